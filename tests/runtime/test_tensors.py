"""PyTorch's tensors in and out. Where PyTorch is not installed there is nothing to test."""

import sys

import numpy as np
import pytest
from einsumc import EinsumError, compile_einsum, einsum, gradnorms

torch = pytest.importorskip("torch")


def normal(*shape, dtype=None, seed=0):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(dtype or torch.float32)


product = compile_einsum("ij,jk->ik")


@compile_einsum("ij,jk->ik")
def multiplied(left, right): ...


@compile_einsum
def both(x, layers, rate=0.5):
    made = x @ layers["w"]
    return {"product": made, "rest": (np.exp(-made) * rate, x.shape[0], made.sum())}


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: einsum("ij,jk->ik", a, b),
        lambda a, b: einsum("ij,jk->ik", [a, b]),
        lambda a, b: einsum(a, [0, 1], b, [1, 2], [0, 2]),
        lambda a, b: product(a, b),
        lambda a, b: multiplied(a, right=b),
        lambda a, b: compile_einsum(lambda x, y: x @ y)(a, b),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int64", "float16"])
def test_tensors_in_tensors_out(call, dtype):
    a, b = (normal(20, 20, seed=n).mul(3).to(getattr(torch, dtype)) for n in range(2))
    for _ in range(3):
        found = call(a, b)
        assert type(found) is torch.Tensor
        assert found.dtype == a.dtype
        exact = a.cdouble() @ b.cdouble()
        expected = (exact if a.is_complex() else exact.real).to(a.dtype)
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_a_scalar_is_a_tensor_without_axes():
    a = normal(4)
    found = einsum("i,i->", a, a)
    assert found.shape == ()
    torch.testing.assert_close(found, a @ a)


def test_structures_of_results():
    x, w = normal(2, 3), normal(3, 4)
    found = both(x, {"w": w}, rate=0.25)
    torch.testing.assert_close(found["product"], x @ w)
    torch.testing.assert_close(found["rest"][0], torch.exp(-(x @ w)) / 4)
    assert found["rest"][1] == 2
    assert found["rest"][2].shape == ()
    assert type(both(x.numpy(), {"w": w.numpy()})["product"]) is np.ndarray


def test_tensors_and_arrays_together():
    a, b = normal(2, 3), normal(3, 4)
    assert type(product(a, b.numpy())) is torch.Tensor
    assert type(product(a.numpy(), b)) is torch.Tensor
    assert type(both(a.numpy(), {"w": b})["product"]) is torch.Tensor


def test_strided_and_conjugated_tensors():
    a = normal(6, 8, dtype=torch.complex64)
    for each in (a[::2, 1::3], a.T, a.conj(), a.T.conj()[1:], a[:, :1].expand(6, 8)):
        torch.testing.assert_close(einsum("ij,kj->ik", each, each), each @ each.T)
    b = normal(5)
    torch.testing.assert_close(einsum("i,i->i", b, torch.ones(5)), b)


# --- memory ---------------------------------------------------------------------------------------


def test_no_element_is_copied():
    a = normal(3, 4)
    turned = einsum("ij->ji", a)  # a view in NumPy, and so here
    assert turned.data_ptr() == a.data_ptr()
    out = torch.empty(3, 3)
    assert einsum("ij,kj->ik", a, a, out=out) is out
    torch.testing.assert_close(out, a @ a.T)
    assert compile_einsum(lambda x: x @ x.T)(a, out=out.zero_()) is out
    torch.testing.assert_close(out, a @ a.T)


def test_one_tensor_twice_is_one_operand():
    a = normal(20, 30)
    plan = compile_einsum("ij,ij->i").explain(a, a)
    assert "a[i,j] * a[i,j]" in str(plan.steps[0].statement)


def test_views_with_negative_strides():
    a = np.arange(6.0)
    assert compile_einsum("i,->i")(a[::-1], torch.ones((), dtype=torch.float64)).tolist() == [
        *(5, 4, 3, 2, 1, 0),
    ]


def test_an_out_that_overlaps():
    a = normal(5, 5)
    expected = a @ a
    assert einsum("ij,jk->ik", a, a, out=a) is a
    torch.testing.assert_close(a, expected)


def test_out_of_the_other_kind():
    a, out = normal(5, 5), np.empty((5, 5), "f4")
    assert product(a, a, out=out) is out
    np.testing.assert_allclose(out, (a @ a).numpy(), rtol=1e-5)
    result = torch.empty(5, 5)
    assert product(a.numpy(), a.numpy(), out=result) is result
    torch.testing.assert_close(result, a @ a)


# --- bfloat16 -------------------------------------------------------------------------------------


def test_bfloat16_is_computed_in_single_precision():
    a, b = (normal(40, 50, dtype=torch.bfloat16, seed=n) for n in range(2))
    found = einsum("ij,kj->ik", a, b)
    assert found.dtype == torch.bfloat16
    expected = (a.float() @ b.float().T).bfloat16()  # rounded once
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-6)
    assert einsum("ij,kj->ik", a, b.float()).dtype == torch.float32
    made = both(a, {"w": b.T})
    assert made["product"].dtype == torch.bfloat16
    out = torch.empty(40, 40, dtype=torch.bfloat16)
    assert einsum("ij,kj->ik", a, b, out=out) is out
    torch.testing.assert_close(out, found)


def test_dtypes_of_pytorch():
    a = torch.ones(3, dtype=torch.int32)
    assert einsum("i,i->", a, a, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(TypeError, match="no dtype bfloat16"):
        einsum("i,i->", a, a, dtype=torch.bfloat16)


# --- what is refused ------------------------------------------------------------------------------


def test_tensors_that_want_gradients():
    a, b = normal(3, 3).requires_grad_(), normal(3, 3)
    for call in (product, lambda a, b: einsum("ij,jk->ik", a, b)):
        with pytest.raises(EinsumError, match="operand 0 is a tensor that requires grad"):
            call(a, b)
    with pytest.raises(EinsumError, match="left is a tensor that requires grad"):
        multiplied(a, b)
    with pytest.raises(EinsumError, match="layers_w is a tensor that requires grad"):
        both(b, {"w": a})
    with torch.no_grad():
        torch.testing.assert_close(product(a, b), a @ b)
    torch.testing.assert_close(product(a.detach(), b), (a @ b).detach())


def test_tensors_elsewhere():
    a = torch.empty(3, 3, device="meta")
    with pytest.raises(EinsumError, match=r"operand 1 is a tensor on device meta.*pass tensor.cpu"):
        product(normal(3, 3), a)
    with pytest.raises(EinsumError, match=r"layout torch.sparse_coo: pass .to_dense"):
        product(normal(3, 3), torch.eye(3).to_sparse())


# --- gradient norms -------------------------------------------------------------------------------


def some_layers(dtype=torch.float32):
    ids = torch.tensor([[0, 1, 0], [2, 2, 1]])
    g, x = normal(2, 3, 4, dtype=dtype), normal(2, 3, 5, dtype=dtype, seed=1)
    logits = normal(2, 3, 6, dtype=dtype, seed=2)
    return {
        "fc": gradnorms.Linear(g, x),
        "table": gradnorms.Embedding(ids, g, rows=3),
        "norm": gradnorms.LayerNorm(x, x),
        "tied": gradnorms.tied(ids, g, normal(2, 3, 4, dtype=dtype, seed=3), logits),
    }


def in_arrays(layers):
    with torch.no_grad():
        return {
            name: type(each)(
                **{
                    field: value.numpy() if isinstance(value, torch.Tensor) else value
                    for field, value in vars(each).items()
                }
            )
            for name, each in layers.items()
        }


def test_gradient_norms_of_tensors():
    layers = some_layers()
    arrays = in_arrays(layers)
    for function in (gradnorms.norms, gradnorms.squared_norms, gradnorms.dot_products):
        found = function(layers)
        assert type(found) is torch.Tensor
        np.testing.assert_allclose(found.numpy(), function(arrays), rtol=1e-5)
    coefficients = gradnorms.clip_coefficients(layers, 1.0)
    assert type(coefficients) is torch.Tensor
    sums, expected = gradnorms.clipped_sums(layers, 1.0), gradnorms.clipped_sums(arrays, 1.0)
    for name, each in sums.items():
        for parameter, value in each.items():
            assert type(value) is torch.Tensor
            np.testing.assert_allclose(value.numpy(), expected[name][parameter], rtol=1e-4)


def test_gradient_norms_in_bfloat16():
    x, g = normal(4, 9, dtype=torch.bfloat16), normal(4, 7, dtype=torch.bfloat16)
    found = gradnorms.norms(gradnorms.Linear(g, x))
    exact = gradnorms.norms(gradnorms.Linear(g.double(), x.double()))
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=0)


def test_pytorch_is_not_imported_by_us():
    import subprocess

    code = (
        "import sys, numpy as np, einsumc; einsumc.einsum('i,i->', [1.0], [2.0]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
