"""NumPy's rules for operands and results, one by one and against np.einsum itself."""

import operator
import resource
import subprocess
import sys
import warnings
from itertools import product

import numpy as np
import pytest
from einsumc.compiler.errors import EinsumError, EinsumTypeError
from einsumc.compiler.subscripts import parse, resolve
from einsumc.runtime import operands
from einsumc.runtime.operands import (
    CASTINGS,
    KERNEL_DTYPES,
    allocate,
    as_arrays,
    as_view,
    available_memory,
    check_fits,
    check_out,
    choose_dtypes,
    clashes,
    distinct_output,
    evaluate_slowly,
    memory_order,
    plain,
    prepare,
    ready,
    shares_elements,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Seeded, draw_call, draw_equation, evaluate

CODES = "?bBhHiIlLqQefdFDgGO"


def resolved(text, *arrays):
    return resolve(parse(text), [array.shape for array in arrays])


# --- operands -------------------------------------------------------------------------------------


def test_subclasses_and_sequences_become_arrays():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.matrix([[1, 2]])
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    for array, given_ in zip(as_arrays([matrix, masked, [1, 2], 3.0]), range(4), strict=True):
        assert type(array) is np.ndarray, given_
    assert np.shares_memory(as_arrays([matrix])[0], matrix)


def test_what_is_one_object_stays_one():
    listed, array = [1, 2], np.ones(2)
    first, second, third, fourth = as_arrays([listed, array, listed, array])
    assert first is third
    assert second is fourth is array


# --- dtypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "two"), [*product(CODES, repeat=2)])
def test_computes_in_numpys_dtype(one, two):
    arrays = [np.ones(2, one), np.ones(2, two)]
    expected = np.einsum("i,i->i", *arrays).dtype
    assert choose_dtypes(arrays).compute == expected == choose_dtypes(arrays).result


@pytest.mark.parametrize("casting", CASTINGS)
@pytest.mark.parametrize(("one", "other"), [*product("?bHiqQefdFDO", repeat=2)])
def test_casting_is_allowed_where_numpy_allows_it(one, other, casting):
    """For `dtype=` and `out=`, together and alone, native and swapped."""
    for swap_operand, swap_out in product("=S", repeat=2):
        array = np.ones(2, np.dtype(one).newbyteorder(swap_operand))
        out = np.ones(2, np.dtype(other).newbyteorder(swap_out))
        for dtype, result in ((None, out), (np.dtype(other), None), (np.dtype("f4"), out)):

            def ours(array=array, result=result, dtype=dtype):
                choose_dtypes([array, array], result, dtype, casting)

            def numpys(array=array, result=result, dtype=dtype):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    np.einsum("i,i->i", array, array, out=result, dtype=dtype, casting=casting)

            if dtype is None or result is None:
                assert refuses(ours) == refuses(numpys), (array.dtype, result, dtype)
            else:  # NumPy wants the cast of out to dtype as well, though nothing is read from it
                assert refuses(ours) <= refuses(numpys), (array.dtype, result, dtype)


def refuses(function):
    try:
        function()
    except TypeError:
        return True
    return False


def test_message_names_operand_and_dtypes():
    with pytest.raises(EinsumTypeError) as caught:
        choose_dtypes([np.ones(1, "f4"), np.ones(1)], dtype="f4", names=("weights", "x"))
    assert str(caught.value) == (
        "operand 1 (x) would be cast from float64 to float32, which casting='safe' forbids"
    )
    with pytest.raises(EinsumTypeError, match="operand 0 would be cast from >f8 to <f8"):
        choose_dtypes([np.ones(1, ">f8")], casting="no")
    with pytest.raises(EinsumTypeError, match="result would be cast for out from float64 to int8"):
        choose_dtypes([np.ones(1)], out=np.ones(1, "i1"))


@pytest.mark.parametrize(
    "array",
    [np.array(["a"]), np.array([b"a"]), np.array([1], "m8[s]"), np.array([1], "M8[s]")],
    ids=lambda array: str(array.dtype),
)
def test_dtypes_without_arithmetic_are_type_errors(array):
    with pytest.raises(TypeError):
        np.einsum("i->", array)
    with pytest.raises(EinsumTypeError, match="no arithmetic for dtype"):
        choose_dtypes([array])


def test_dtypes_without_a_common_one_are_type_errors():
    with pytest.raises(TypeError):
        choose_dtypes([np.ones(1, [("a", "f4")]), np.ones(1)])


@pytest.mark.parametrize("code", CODES)
def test_objects_and_long_doubles_have_no_kernels(code):
    dtype = np.dtype(code)
    assert choose_dtypes([np.ones(1, dtype)]).has_kernels == (dtype in KERNEL_DTYPES)
    if np.dtype("g") != np.dtype("d"):
        assert (dtype in KERNEL_DTYPES) == (code not in "gGO")


def test_a_swapped_dtype_is_computed_natively_and_returned_swapped():
    dtypes = choose_dtypes([np.ones(1)], dtype=">f8")
    assert (dtypes.compute.str, dtypes.result.str) == ("<f8", ">f8")
    assert choose_dtypes([np.ones(1, ">f8")]).result.str == "<f8"


# --- out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "exception", "message"),
    [
        ([1, 2], EinsumTypeError, "out must be an array, not list"),
        (np.ones((2, 1)), EinsumError, r"out has shape \(2, 1\), but the result has shape \(2,\)"),
        (np.ones(3), EinsumError, r"out has shape \(3,\), but the result has shape \(2,\)"),
        (np.frombuffer(b"0" * 16), EinsumError, "out is read-only"),
        (
            np.lib.stride_tricks.as_strided(np.ones(1), (2,), (0,)),
            EinsumError,
            r"some elements of out share memory \(shape \(2,\), strides \(0,\)\)",
        ),
    ],
)
def test_out_that_cannot_be_written(out, exception, message):
    with pytest.raises(exception, match=message):
        check_out(out, (2,))


def test_out_is_returned_as_it_is():
    out = np.ones((4, 6), ">f2")[::-2, ::3]
    assert check_out(out, (2, 2)) is out


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-9, 9)), max_size=4),
    st.sampled_from([1, 2, 4]),
)
def test_shared_elements_are_found(axes, size):
    array = np.lib.stride_tricks.as_strided(
        np.zeros(400, "u1")[200:].view(f"u{size}"), [n for n, _ in axes], [s for _, s in axes]
    )
    strides = [stride for _, stride in axes]
    starts = [sum(map(operator.mul, strides, at)) for at in np.ndindex(array.shape)]
    touched = [start + byte for start in starts for byte in range(size)]
    assert shares_elements(array) == (len(set(touched)) < len(touched))


def test_clashes_are_found_and_neighbours_are_not():
    x = np.zeros((8, 8))
    assert clashes(x, [np.ones(3), x])
    assert clashes(x[:4], [x.T[:1]])
    assert not clashes(x[:4], [x[4:]])
    assert not clashes(x[:, ::2], [x[:, 1::2]])
    assert not clashes(x, [])


# --- results --------------------------------------------------------------------------------------


def test_order_k_is_numpys():
    seen = 0
    for seed in range(1500):
        call = draw_call(Seeded(seed))
        arrays = call.arrays
        if call.equation.repeats or np.result_type(*arrays) not in KERNEL_DTYPES:
            continue
        expected = np.einsum(call.equation.text, *arrays)
        if expected.ndim < 2 or not expected.size or np.shares_memory(expected, arrays[0]):
            continue
        expression = resolved(call.equation.text, *arrays)
        axes = memory_order(expression, arrays, "K")
        made = allocate(expected.shape, expected.dtype, axes)()
        long = np.array(expected.shape) > 1
        assert np.array_equal(np.array(made.strides)[long], np.array(expected.strides)[long]), call
        seen += 1
    assert seen > 300


@pytest.mark.parametrize("order", "CFA")
@pytest.mark.parametrize("layouts", [*product("CF", repeat=2)])
def test_other_orders_are_numpys(order, layouts):
    a, b = (np.ones((2, 3), order=layout) for layout in layouts)
    for equation in ("ij,kj->ik", "ij,kj->kij", "ij,ij->ji"):
        expected = np.einsum(equation, a, b, order=order)
        axes = memory_order(resolved(equation, a, b), [a, b], order)
        assert allocate(expected.shape, expected.dtype, axes)().strides == expected.strides


def test_allocate_makes_any_order():
    for axes in ((0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)):
        made = allocate((2, 3, 4), np.dtype("f4"), axes)()
        assert made.shape == (2, 3, 4)
        assert made.transpose(axes).flags.c_contiguous
    assert allocate((2, 3), np.dtype("i1"))().flags.c_contiguous
    assert allocate((), np.dtype("i1"), ())().shape == ()


def test_a_result_that_cannot_be_addressed_is_refused():
    with pytest.raises(MemoryError, match=r"shape \(10000000000, 10000000000\) of float64.*cannot"):
        allocate((10**10, 10**10), np.dtype("f8"))()


def test_a_result_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(operands, "available_memory", lambda: 3 << 30)
    with pytest.raises(MemoryError) as caught:
        allocate((1 << 15, 1 << 15), np.dtype("f4"), (1, 0))()
    assert str(caught.value) == (
        "the result, shape (32768, 32768) of float32, 4.0 GiB, does not fit: 3.0 GiB are available"
    )
    check_fits((1 << 14, 1 << 14), np.dtype("f4"))
    monkeypatch.setattr(operands, "available_memory", lambda: None)
    check_fits((1 << 15, 1 << 15), np.dtype("f4"))


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_a_limit_of_the_process_counts():
    script = (
        "import resource, numpy as np\n"
        "from einsumc.runtime.operands import allocate, available_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))\n"
        "assert available_memory() < 4 << 30\n"
        "try:\n"
        "    allocate((1 << 15, 1 << 14), np.dtype('f8'))()\n"
        "except MemoryError as error:\n"
        "    print(error)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    assert "the result, shape (32768, 16384) of float64, 4.0 GiB, does not fit" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_available_memory_is_plausible():
    there = available_memory()
    assert there is not None
    assert 0 < there < 1 << 50
    assert resource.getrlimit(resource.RLIMIT_AS)[0] in (resource.RLIM_INFINITY, -1) or there


# --- what kernels are given -----------------------------------------------------------------------


def unaligned(shape, dtype):
    size = np.dtype(dtype).itemsize
    memory = np.zeros(int(np.prod(shape)) * size + 1, "u1")
    return memory[1:].view(dtype).reshape(shape)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((3, 4)),
        np.ones((3, 4)).T,
        np.ones((6, 4))[::-2, ::3],
        np.broadcast_to(np.ones(4), (3, 4)),
        np.frombuffer(b"0" * 32),
        np.ones(5, "i1")[::3],
        np.ones(()),
        np.ones((0, 3)),
    ],
    ids=lambda array: f"{array.shape}{array.strides}",
)
def test_kernels_read_any_strides_as_they_are(array):
    assert plain(array)
    assert ready(array, array.dtype)
    assert prepare(array, array.dtype) is array


@pytest.mark.parametrize(
    "array",
    [
        np.ones((3, 4), ">f8"),
        unaligned((3, 4), "f8"),
        np.ones((3, 4), [("a", "u1"), ("b", "f8")])["b"],
        np.ones((3, 4), np.dtype([("a", "f4"), ("b", "f8")], align=False))["b"],
        np.ones((3, 4), "f4"),
    ],
    ids=["swapped", "unaligned", "packed", "odd strides", "other dtype"],
)
def test_kernels_get_copies_of_the_rest(array):
    assert not ready(array, np.dtype("f8"))
    made = prepare(array, np.dtype("f8"))
    assert ready(made, np.dtype("f8"))
    assert np.array_equal(made, array)


def test_copies_keep_axes_of_stride_zero():
    array = np.broadcast_to(np.arange(3, dtype=">i4")[:, None], (3, 10**9))
    made = prepare(array, np.dtype("i4"))
    assert made.shape == array.shape
    assert made.strides == (4, 0)
    assert made[:, 5].tolist() == [0, 1, 2]


# --- rewritten equations --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "equation", ["ij", "ij->ji", "ii->i", "iij->ji", "ijij->ij", "iii->i", "jii->ij", "...i->i..."]
)
def test_views_are_numpys(equation):
    rank = len(equation.split("->", maxsplit=1)[0].replace("...", "ab"))
    array = np.arange(3.0**rank).reshape((3,) * rank)
    view = as_view(resolved(equation, array))
    assert view is not None
    expected = np.einsum(equation, array)
    result = view(array)
    assert np.array_equal(result, expected)
    assert result.strides == expected.strides
    assert result.base is array.base
    assert result.flags.writeable
    array.flags.writeable = False
    assert not view(array).flags.writeable


@pytest.mark.parametrize("equation", ["i->", "ij->i", "ii->", "ii", "i->ii", "i,i->i"])
def test_what_computes_is_no_view(equation):
    arrays = [np.ones((2,) * len(term)) for term in equation.split("->")[0].split(",")]
    assert as_view(resolved(equation, *arrays)) is None


@pytest.mark.parametrize("equation", ["i->ii", "ij->iji", "ij->jiijj", "ijk->kiji"])
def test_a_repeated_output_is_a_diagonal_of_out(equation):
    inputs, output = equation.split("->")
    array = np.random.default_rng(0).random(tuple(range(2, 2 + len(inputs))))
    expression, part = distinct_output(resolved(equation, array))
    names = [str(axis) for axis in expression.output]
    assert sorted(names) == sorted(inputs)
    out = np.zeros([array.shape[inputs.index(name)] for name in output])
    part(out)[...] = np.einsum(f"{inputs}->{''.join(names)}", array)
    for at in np.ndindex(out.shape):
        index = dict(zip(output, at, strict=True))
        inside = all(index[name] == i for name, i in zip(output, at, strict=True))
        assert out[at] == (array[tuple(index[name] for name in inputs)] if inside else 0)


def test_a_plain_output_is_left_alone():
    expression = resolved("ij->ji", np.ones((2, 3)))
    same, part = distinct_output(expression)
    out = np.ones((3, 2))
    assert same is expression
    assert part(out) is out


# --- without kernels ------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_slow_evaluation_is_numpys(seed, objects):
    equation = draw_equation(Seeded(seed), repeated_output=False)
    if any(0 in shape for shape in equation.shapes):
        return
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(-3, 4, shape) for shape in equation.shapes]
    expected = evaluate(equation, arrays)
    arrays = [array.astype(object if objects else "g") for array in arrays]
    out = np.empty(expected.shape, arrays[0].dtype)
    evaluate_slowly(resolved(equation.text, *arrays), arrays, out)
    assert np.array_equal(out.astype(expected.dtype), expected)


def test_slow_evaluation_takes_large_sums_in_slabs(monkeypatch):
    monkeypatch.setattr(operands, "_SLAB", 50)
    a, b = np.arange(60).reshape(4, 15).astype("g"), np.arange(90).reshape(15, 6).astype("g")
    out = np.empty((4, 6), "g")
    evaluate_slowly(resolved("ij,jk->ik", a, b), [a, b], out)
    assert np.array_equal(out, a @ b)


def test_slow_evaluation_uses_the_objects_own_arithmetic():
    big = np.array([2**100, 3], object)
    out = np.empty((), object)
    evaluate_slowly(resolved("i,i->", big, big), [big, big], out)
    assert out[()] == 2**200 + 9
