"""What is planned ahead for affine equations: plans and kernels in stores, manifests."""

import numpy as np
import pytest
from einsumc import EinsumError, compile_einsum, einsum
from einsumc.runtime.manifest import read_requests
from einsumc.runtime.uses import to_text, use_of, uses_in
from einsumc.runtime.wanted import jobs_of

IMAGE, KERNEL = np.arange(9.0), np.array([1.0, 10, 100])


def test_plans_of_other_sizes_are_others():
    for extent in (3, 5, 7, 3):
        for _ in range(2):
            got = einsum("y+k-1, k -> y", IMAGE, KERNEL, sizes={"y": extent})
            expected = np.convolve(IMAGE, KERNEL[::-1], "same")[:extent]
            np.testing.assert_array_equal(got, expected)


def test_equal_results_of_other_sums_too():
    once = einsum("y+k -> y", IMAGE, sizes={"y": 5, "k": 3})
    more = einsum("y+k -> y", IMAGE, sizes={"y": 5, "k": 4})
    np.testing.assert_array_equal(more - once, IMAGE[3:8])


def test_a_manifest_has_sizes(tmp_path, few_calls):
    compiled = compile_einsum("y+k-1, k -> y", sizes={"y": 9}, signatures=["f8[h], f8[k]"])
    expression = compiled._resolve((IMAGE, KERNEL))
    use = use_of(compiled.equation, expression, [IMAGE, KERNEL], IMAGE.dtype, sizes=compiled.sizes)
    text = to_text([use])
    assert 'sizes = {"y" = 9}' in text
    assert uses_in(text) == [use]
    path = tmp_path / "kernels.toml"
    path.write_text(text)
    (request,) = read_requests(path)
    assert request.sizes == compiled.sizes
    assert compiled.request().sizes == compiled.sizes
    assert any(job.dtypes for job in jobs_of(request))


def test_wrong_sizes_in_a_manifest(tmp_path):
    path = tmp_path / "kernels.toml"
    path.write_text(
        '[[kernel]]\nequation="y+k, k -> y"\nsignatures=["f8[h], f8[k]"]\nsizes={y="a"}'
    )
    with pytest.raises(EinsumError, match=r"kernel 1, sizes: sizes\['y'\] must be an extent"):
        read_requests(path)


def _view(array, axes, stride=(1, 1), dilation=(1, 1), taps=3):
    """Windows of two axes of an array, as a view."""
    shape, strides = [*array.shape], [*array.strides]
    for axis, step, apart in zip(axes, stride, dilation, strict=True):
        shape[axis] = (array.shape[axis] - apart * (taps - 1) - 1) // step + 1
        strides[axis] *= step
    shape += [taps] * len(axes)
    strides += [array.strides[axis] * apart for axis, apart in zip(axes, dilation, strict=True)]
    return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)


@pytest.mark.parametrize(
    ("stride", "dilation"), [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 2), (2, 1)), ((2, 3), (3, 2))]
)
@pytest.mark.parametrize(
    ("view", "notation", "kernel"),
    [
        ("ncyxkl,ockl->noyx", "n c {y} {x}, o c k l -> n o y x", (6, 4, 3, 3)),
        ("ncyxkl,ckl->ncyx", "n c {y} {x}, c k l -> n c y x", (4, 3, 3)),
        ("ncyxkl,kl->nyxc", "n c {y} {x}, k l -> n y x c", (3, 3)),
    ],
)
def test_views_have_the_steps_of_the_notation(view, notation, kernel, stride, dilation):
    image = np.random.default_rng(0).integers(-3, 4, (2, 4, 33, 38)).astype("f4")
    windows = _view(image, (2, 3), stride, dilation)
    other = np.random.default_rng(1).integers(-3, 4, kernel).astype("f4")
    axes = (f"{s}*{p}+{d}*{t}" for s, p, d, t in zip(stride, "yx", dilation, "kl", strict=True))
    text = notation.format(**dict(zip("yx", axes, strict=True)))
    by_view, by_notation = compile_einsum(view), compile_einsum(text, sizes={"k": 3, "l": 3})
    expected = np.einsum(view, windows, other)
    np.testing.assert_array_equal(by_view(windows, other), expected)
    np.testing.assert_array_equal(by_notation(image, other), expected)
    recipes, others = (
        [step.recipe for step in f.explain(array, other).steps]
        for f, array in ((by_view, windows), (by_notation, image))
    )
    assert recipes == others
