"""NumPy's rules for operands and results, one by one and against np.einsum itself."""

import operator
import warnings
from itertools import product

import numpy as np
import pytest
from einsumc.compiler.errors import EinsumError, EinsumTypeError
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.runtime.operands import (
    CASTINGS,
    KERNEL_DTYPES,
    as_arrays,
    check_out,
    choose_dtypes,
    clashes,
    plain,
    prepare,
    ready,
    shares_elements,
)
from hypothesis import given
from hypothesis import strategies as st

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
