"""`@compile_einsum` on a body gives what the body gives."""

import collections
import inspect
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import einsumc
import numpy as np
import pytest
from einsumc import EinsumError, compile_einsum
from einsumc.runtime import entry
from einsumc.runtime.store import Store
from einsumc.runtime.wanted import read_source, wanted_kernels
from sweeps import every, groups
from traced_bodies import BODIES, check, numpys, operands_of


@pytest.mark.parametrize("name", every(2, BODIES))
@pytest.mark.parametrize("seed", groups(3, 1))
def test_a_compiled_body_is_what_numpy_makes_of_it(name, seed):
    function, arrays = operands_of(name, seed)
    expected = numpys(function, arrays)
    compiled = compile_einsum(function)
    before = [array.copy() for array in arrays]
    for _ in range(2):
        check(compiled(*arrays), expected, arrays)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def _repeated(x):
    v, w, none = (
        np.broadcast_to(each, (n, *x.shape)) for each, n in ((x, 200), (x * 2, 5), (x, 0))
    )
    return (
        np.einsum("pqr->r", v),
        np.einsum("pqr,pqr->r", v, v),
        np.einsum("pqr->r", w),
        np.einsum("sr->r", v.reshape(-1, x.shape[1])),
        np.einsum("pr->r", np.einsum("pqr->pr", w)),
        np.einsum("pqr->r", none),
        none.sum(0, dtype=x.dtype),
    )


@pytest.mark.parametrize("dtype", ["f8", "i1", "?"])
def test_sums_along_axes_that_repeat_their_elements(dtype):
    x = np.arange(12).reshape(3, 4).astype(dtype)
    if dtype == "f8":
        x[0, 0] = np.inf  # none of it is zero all the same
    for one in (x, x[1:], x[1:2]):
        for found, expected in zip(compile_einsum(_repeated)(one), _repeated(one), strict=True):
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (6, 1)])
def test_diagonals_of_merged_axes(shape):
    def body(x):
        repeated = np.broadcast_to(x, (2, *x.shape)).reshape(-1, x.shape[1])
        return (
            np.diagonal(x.reshape(-1, 2), 0, 0, 1) * 2,
            np.einsum("p->", np.diagonal((x + 1).reshape(-1, 2), -1)),
            np.diagonal(repeated, -1),
            np.trace(repeated),
            np.diagonal(repeated, -99),
        )

    x = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    for found, expected in zip(compile_einsum(body)(x), body(x), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


# --- arguments ------------------------------------------------------------------------------------


def test_arguments_by_name_and_by_default():
    @compile_einsum
    def scaled(x, /, w, power=2, *, shift=1.0):
        return (x @ w) ** power + shift

    x, w = np.random.rand(2, 3), np.random.rand(3, 4)
    np.testing.assert_allclose(scaled(x, w=w), (x @ w) ** 2 + 1)
    np.testing.assert_allclose(scaled(x, w, 3, shift=2), (x @ w) ** 3 + 2)
    np.testing.assert_allclose(scaled(x, w, power=1, shift=np.float64(3)), x @ w + 3)
    with pytest.raises(TypeError, match="missing a required argument: 'w'"):
        scaled(x)


Layer = collections.namedtuple("Layer", "w b")


def test_operands_in_structures():
    @compile_einsum
    def network(x, layers, *more, **options):
        for layer in layers:
            x = np.tanh(x @ layer.w + layer.b)
        for other in more:
            x = x + other["y"]
        return Layer(x, {"scaled": [x * options["by"], None]})

    numbers = np.random.default_rng(0)
    x = numbers.random((2, 3))
    layers = [Layer(numbers.random((3, 3)), numbers.random(3)) for _ in range(2)]
    more = {"y": numbers.random((2, 3))}, {"y": numbers.random(3)}
    found = network(x, layers, *more, by=2)
    expected = network.__wrapped__(x, layers, *more, by=2)
    assert type(found) is Layer
    np.testing.assert_allclose(found.w, expected.w)
    np.testing.assert_allclose(found.b["scaled"][0], expected.b["scaled"][0])
    assert found.b["scaled"][1] is None


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_array_likes_and_scalars_are_operands():
    @compile_einsum
    def product(x, y):
        return x * y

    found = product(np.matrix([[1, 2]]), np.float32(2))
    assert type(found) is np.ndarray
    assert found.dtype == np.result_type(np.int64, np.float32)
    np.testing.assert_array_equal(found, [[2, 4]])


def test_what_is_no_array_is_part_of_the_program():
    calls = []

    @compile_einsum
    def power(x, kind):
        calls.append(kind)
        return x**2 if kind == "square" else x

    x = np.arange(3.0)
    assert power(x, "square").tolist() == [0, 1, 4]
    assert power(x, "none").tolist() == [0, 1, 2]
    assert power(x, "square").tolist() == [0, 1, 4]
    assert calls == ["square", "none"]
    with pytest.raises(TypeError, match="an argument is a set, neither an array nor hashable"):
        power(x, {1})


def test_unaligned_and_swapped_operands():
    @compile_einsum
    def product(x, y):
        return x @ y

    x = np.frombuffer(bytearray(b"x" + np.arange(4.0).tobytes()), "f8", 4, 1).reshape(2, 2)
    y = np.arange(4.0).reshape(2, 2).astype(">f8")
    for _ in range(2):
        np.testing.assert_array_equal(product(x, y), np.arange(4.0).reshape(2, 2) @ y)


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_dtypes_wider_than_any_kernel(dtype):
    def body(a, b):
        product = a @ b
        return product, np.exp(a) * 2.5, (product * product).sum(axis=1) + np.einsum("ij->i", b)

    wide, narrow = np.random.rand(2, 4, 4).astype(dtype) / 3, np.random.rand(4, 4)
    for operands in [(wide[0], wide[1]), (wide[0], narrow), (narrow.astype("f4"), wide[1].T)]:
        for found, expected in zip(compile_einsum(body)(*operands), body(*operands), strict=True):
            assert found.dtype == expected.dtype
            tolerance = 1e-6 if "float32" in str(expected.dtype) else 1e-15
            np.testing.assert_allclose(found, expected, rtol=tolerance)


def test_constants_are_read_when_the_function_is_called():
    table = np.ones(3)

    @compile_einsum
    def product(x):
        return x * table

    assert product(np.ones(3)).tolist() == [1, 1, 1]
    table[:] = 2
    assert product(np.ones(3)).tolist() == [2, 2, 2]


def test_compiled_functions_and_einsums_inside_of_others():
    from einsumc import einsum

    multiply = compile_einsum("ij,jk->ik")

    @compile_einsum
    def squares(x):
        return x**2

    @compile_einsum
    def outer(x, y):
        return squares(multiply(x, y)) + einsum("ij,kj->ik", x, y.T) + einsum("ij,jk->ik", [x, y])

    x, y = np.random.rand(2, 3), np.random.rand(3, 4)
    np.testing.assert_allclose(outer(x, y), (x @ y) ** 2 + 2 * (x @ y))


# --- traces ---------------------------------------------------------------------------------------


def counted(function):
    """A function that is compiled, and how often it was traced."""
    calls = []

    def body(*args):
        calls.append(1)
        return function(*args)

    return compile_einsum(body), calls


def test_one_trace_serves_all_sizes():
    def flat(x, w):
        n = x.shape[0]
        half = x.shape[-1] // 2
        return x.reshape(n, -1).sum(axis=1) / n, x[..., :half] * len(x.shape) + w / x.size

    function, calls = counted(flat)
    for shape in [(2, 3, 4), (5, 1, 2), (1, 1, 1), (3, 0, 2), (7, 8, 9)]:
        x = np.random.rand(*shape)
        if x.size:
            check(function(x, np.ones(())), flat(x, np.ones(())))
    assert len(calls) == 1
    function(np.ones((2, 2, 2), "f4"), np.ones(()))
    function(np.ones((2, 2, 2)), np.ones(1))
    assert len(calls) == 3


def test_a_size_that_python_needs_is_a_reason_to_trace_again():
    def scaled(x):
        if x.shape[0] > 3:
            return x / float(x.shape[1])
        return [x[n] for n in range(len(x))]

    function, calls = counted(scaled)
    for shape in [(2, 3), (2, 5), (4, 3), (4, 3), (5, 3), (5, 4), (3, 3), (2, 3)]:
        x = np.random.rand(*shape)
        check(function(x), scaled(x))
    assert len(calls) == 4  # 2 rows, 4 rows of 3, 5 rows of 4, 3 rows


def test_the_same_array_twice_is_one_tensor():
    function, calls = counted(lambda x, y: (x * y).sum())
    x, y = np.random.rand(2, 3), np.random.rand(2, 3)
    assert np.isclose(function(x, y), (x * y).sum())
    assert np.isclose(function(x, x), (x * x).sum())
    assert np.isclose(function(y, y), (y * y).sum())
    assert len(calls) == 2


# --- results --------------------------------------------------------------------------------------


def test_out():
    @compile_einsum
    def product(x, y):
        return (x @ y).T

    x, y = np.random.rand(3, 3), np.random.rand(3, 3)
    expected = (x @ y).T
    for out in (np.empty((3, 3)), np.empty((3, 3), "f4").T, np.empty((6, 3))[::2]):
        for _ in range(2):
            assert product(x, y, out=out) is out
            np.testing.assert_allclose(out, expected, rtol=1e-6)
    product(x, y, out=x)
    np.testing.assert_allclose(x, expected)
    with pytest.raises(EinsumError, match="out has shape"):
        product(x, y, out=np.empty((3, 4)))
    with pytest.raises(TypeError, match="the result would be cast from float64 to int64"):
        product(x, y, out=np.empty((3, 3), int))
    with pytest.raises(TypeError, match="out must be an array"):
        product(x, y, out=[1])


def test_out_of_merged_axes():
    @compile_einsum
    def flat(x, y):
        return np.einsum("abc,cd->adb", x, y).reshape(-1, x.shape[1])

    x, y = np.random.rand(2, 3, 4), np.random.rand(4, 5)
    expected = flat.__wrapped__(x, y)
    for out in (np.empty((10, 3)), np.empty((3, 10)).T, np.empty((20, 3))[::-2]):
        np.testing.assert_allclose(flat(x, y, out=out), expected)


def test_no_out_for_several_results():
    function = compile_einsum(lambda x: (x, x * 2))
    with pytest.raises(EinsumError, match="several results"):
        function(np.ones(2), out=np.ones(2))
    with pytest.raises(TypeError, match="has a parameter 'out'"):
        compile_einsum(lambda x, out: x)


def test_results_are_arrays_of_their_own():
    function = compile_einsum(lambda x: (x, x.T, x))
    x = np.random.rand(2, 3)
    first, second, third = function(x)
    assert first is third
    assert not np.shares_memory(first, x)
    assert not np.shares_memory(second, x)
    np.testing.assert_array_equal(second, x.T)


def test_a_scalar_result_is_a_scalar():
    function = compile_einsum(lambda x: {"sum": x.sum(), "size": x.size})
    found = function(np.ones((2, 3), "f4"))
    assert type(found["sum"]) is np.float32
    assert found == {"sum": 6, "size": 6}
    assert type(found["size"]) is int


def test_threads_may_call_at_once():
    function, calls = counted(lambda x, y: ((x @ y) ** 2).sum(axis=1))
    x, y = np.random.rand(20, 30), np.random.rand(30, 40)
    expected = ((x @ y) ** 2).sum(axis=1)
    with ThreadPoolExecutor(8) as executor:
        for found in executor.map(lambda _: function(x, y), range(32)):
            np.testing.assert_allclose(found, expected)
    assert len(calls) == 1


# --- what is shown and compiled before ------------------------------------------------------------


def norms(b, a):
    g = np.einsum("nti,ntj->nij", b, a)
    return np.einsum("nij,nij->n", g, g)


def test_explain():
    plan = compile_einsum(norms).explain(np.ones((8, 2, 30), "f4"), np.ones((8, 2, 40), "f4"))
    assert plan.stage("program").splitlines() == [
        "norms    n=8 t=2 i=30 j=40    float32",
        "  t0[n,i,j] = sum_t b[n,t,i] * a[n,t,j]",
        "  out[n] = sum_{i,j} t0[n,i,j] * t0[n,i,j]",
    ]
    assert plan.flops > 0
    assert "kernel" in plan.stage("tree")
    assert "def kernel(" in str(plan)


def test_stages_are_printed(monkeypatch, capfd):
    monkeypatch.setenv("EINSUMC_SHOW", "program,tree")
    compile_einsum(norms)(np.ones((8, 2, 30), "f4"), np.ones((8, 2, 40), "f4"))
    shown = capfd.readouterr().err
    assert "t0[n,i,j] = sum_t b[n,t,i] * a[n,t,j]" in shown
    assert "step  computes" in shown


def test_precompiled_functions_need_no_compiler(tmp_path, monkeypatch):
    signature = "f4[n,3,16], f4[n,3,8]"
    function = compile_einsum(signatures=[signature])(norms)
    kernels = function.precompile(store=Store(str(tmp_path)))
    assert any(kernel.recipe in ("streamed", "packed") for kernel in kernels)
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    b, a = np.random.rand(24, 3, 16).astype("f4"), np.random.rand(24, 3, 8).astype("f4")
    np.testing.assert_allclose(compile_einsum(norms)(b, a), norms(b, a), rtol=1e-4)
    with pytest.raises(EinsumError, match="has no signatures"):
        compile_einsum(norms).precompile()


MODULE = """
import numpy as np
from einsumc import compile_einsum

@compile_einsum(signatures=["f4[3,16], f4[16,8]"])
def hidden(x, w):
    return x @ w

def plain(x):
    return x.sum(axis=1)
"""


def test_functions_in_modules_and_manifests(tmp_path, monkeypatch):
    (tmp_path / "layers_of_mine.py").write_text(MODULE)
    (tmp_path / "kernels.toml").write_text(
        "[[kernel]]\nfunction = 'layers_of_mine:plain'\nsignatures = ['f8[n,64]']\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (request,) = read_source("layers_of_mine")
    assert request.text == "layers_of_mine:hidden"
    wanted = [each for each in wanted_kernels([request], ["native"]) if each.job.dtypes]
    assert ("f4", "f4", "f4") in {each.job.dtypes for each in wanted}
    assert {each.equations for each in wanted} == {("layers_of_mine:hidden",)}
    found = wanted_kernels(read_source("kernels.toml"), ["native"])
    assert {each.job.dtypes for each in found} >= {("f8", "f8")}
    copy = pickle.loads(pickle.dumps(sys.modules["layers_of_mine"].hidden))
    assert copy is sys.modules["layers_of_mine"].hidden


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("function = 'math'\nsignatures = ['f8']", "expected a text such as"),
        ("function = 'math:sin'", "it has no signatures"),
        ("function = 'math:sin'\nsignatures = ['x8']", "signature 1: there is no dtype 'x8'"),
        ("function = 'math:sin'\nsignatures = ['f8']\nsizes = {i = 8}", "beside function"),
        ("function = 'math:sin'\nsignatures = ['f8']", "math:sin is no function that"),
        ("function = 'no.module:sin'\nsignatures = ['f8']", "there is no module 'no.module'"),
    ],
)
def test_wrong_entries_of_functions(tmp_path, entry, message):
    (tmp_path / "kernels.toml").write_text(f"[[kernel]]\n{entry}\n")
    with pytest.raises(EinsumError, match=message):
        wanted_kernels(read_source(str(tmp_path / "kernels.toml")), ["native"])


# --- numbers --------------------------------------------------------------------------------------


def test_another_number_is_no_reason_to_trace_again():
    def step(weights, gradient, rate, scale=1.0):
        return weights - rate * gradient, {"rate": rate / 2, "norm": scale / np.sqrt(rate)}

    function, calls = counted(step)
    for dtype in ("f4", "f8"):
        w, g = np.random.rand(3, 4).astype(dtype), np.random.rand(3, 4).astype(dtype)
        for rate in (0.1, 1e-3, 2.0):
            found, expected = function(w, g, rate), step(w, g, rate)
            check(found[0], expected[0])
            assert found[1] == expected[1]
            assert type(found[1]["rate"]) is float
    assert len(calls) == 2
    assert len(function._plans) == 2


def test_a_number_takes_the_dtype_that_it_meets():
    function, calls = counted(lambda x, p: (x * p, p * x.shape[0] + x, np.where(x > p, x, p)))
    for dtype in ("f2", "f4", "f8", "c8", "i4"):
        x = (np.random.rand(3) * 4).astype(dtype)
        for p in (0.5, 1.25):
            if dtype == "c8":
                continue  # which have no order
            check(function(x, p), (x * p, p * x.shape[0] + x, np.where(x > p, x, p)))
    assert len(calls) == 4


def test_a_number_that_python_needs_is_a_reason_to_trace_again():
    def clipped(x, limit, power):
        if limit > 0:
            x = np.minimum(x, limit)
        return x**power * np.array([1.0, limit])

    function, calls = counted(clipped)
    x = np.random.rand(2, 2)
    for limit, power in [(0.5, 2.0), (0.25, 2.0), (-1.0, 2.0), (0.5, 2.0), (0.5, 1.0), (-1.0, 2.0)]:
        check(function(x, limit, power), clipped(x, limit, power))
    assert len(calls) == 4
    table = np.arange(2.0)
    function = compile_einsum(lambda x, p: x @ (table * p) + round(p, 1))
    for p in (0.26, 2.0):
        np.testing.assert_allclose(function(x, p), x @ (table * p) + round(p, 1))


def test_a_number_as_a_signature(tmp_path, monkeypatch):
    def scaled(x, by):
        return np.einsum("ij,ik->jk", x, x) * by

    function = compile_einsum(signatures=["f4[8,16], f4"])(scaled)
    function.precompile(store=Store(str(tmp_path)))
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    x = np.random.rand(8, 16).astype("f4")
    np.testing.assert_allclose(compile_einsum(scaled)(x, 0.5), scaled(x, 0.5), rtol=1e-4)


# --- calls without Python -------------------------------------------------------------------------


def test_a_function_of_arrays_is_native_from_the_third_call_on():
    table = np.random.rand(30)

    @compile_einsum
    def function(x, y):
        return np.exp(x @ y) * table

    x, y = np.random.rand(20, 30), np.random.rand(30, 30)
    out = np.empty((20, 30))
    for _ in range(4):
        np.testing.assert_allclose(function(x, y), np.exp(x @ y) * table)
        assert function(x, y, out=out) is out
        np.testing.assert_allclose(out, np.exp(x @ y) * table)
        table *= 0.5  # read where it is
    if entry._is_supported():
        assert len(function._native_plans[0]) == 2
    assert [*inspect.signature(type(function).__call__).parameters] == [
        *("self", "args", "out", "named"),
    ]
    np.testing.assert_allclose(function(x, y=y), np.exp(x @ y) * table)
    np.testing.assert_allclose(function(x[::2], y.T), np.exp(x[::2] @ y.T) * table)
    with pytest.raises(TypeError, match="too many positional arguments"):
        function(x, y, x)


def test_an_out_of_a_subclass_is_no_reason_to_stay_in_python():
    compiled = compile_einsum(lambda a, b: a @ b)
    a, b, out = np.random.rand(4, 3), np.random.rand(3, 5), np.empty((4, 5))
    for _ in range(3):
        assert type(compiled(a, b, out=out.view(np.matrix))) is np.matrix
    np.testing.assert_allclose(out, a @ b)
    compiled(a, b, out=out)
    if entry._is_supported():
        assert len(compiled._native_plans[0]) == 1


def test_several_results_share_a_workspace():
    @compile_einsum
    def function(a, b, c):
        made = a @ b
        return np.tanh(made) @ c, (made @ c).sum(axis=0), np.sqrt(made.astype(complex))

    a, b, c = (np.random.rand(30, 30) for _ in range(3))
    for _ in range(3):
        check(function(a, b, c), function.__wrapped__(a, b, c))
    plan = function.explain(a, b, c)
    assert plan.peak_memory < sum(
        np.prod(shape) * dtype.itemsize for shape, dtype in plan.temporaries.values()
    ) + 64 * len(plan.temporaries)
    assert "memory" in plan.intermediates[next(iter(plan.temporaries))]


@pytest.mark.parametrize("equation", ["ii,ji->ij", "i k, j k -> i+j"])
def test_what_is_read_beside_a_symmetric_product_need_not_be(equation):
    """Only half of the product would be computed, and of what is done to it."""

    def body(x, a):
        other = einsumc.einsum(equation, x, x)
        product = np.einsum("ik,jk->ij", a, a)
        return np.tanh(product + (other if other.ndim == 2 else other[:, None]))

    rng = np.random.default_rng(0)
    plain = equation.count(" ") == 0
    x = rng.random((90, 90) if plain else (45, 20)) / 10
    a = rng.random((90 if plain else 89, 200)) / 10
    np.testing.assert_allclose(compile_einsum(body)(x, a), body(x, a), rtol=1e-12)
