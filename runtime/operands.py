"""NumPy's rules for what goes into an einsum and what comes out, apart from the arithmetic.

Kernels are simple-minded: every operand and the output has one dtype, native and aligned, and the
output overlaps nothing. Here is what makes that so, in the order of a call:

    as_arrays            whatever was given -> arrays
    choose_dtypes        what to compute in, what to return, and whether the casts are allowed
    check_out, clashes   whether `out` can be written, and whether in place
    ready, prepare       operands as kernels want them

What goes with them has files of its own:

    memory.py            the layout of a new result, as NumPy's `order` has it; whether it fits
    views.py             `ij->ji`, which computes nothing; `i->ii`, which is `i->i` into a diagonal
    tensors.py           PyTorch's tensors in, tensors out
    slow.py              dtypes without kernels: object, long double

`runtime/dispatch.py` calls them all; the first call with a layout pays for all of it, the next ones
for what depends on the addresses alone.

What differs from NumPy, on purpose:

- `dtype=` and `order=` hold for `ij->ji` too. (NumPy returns a view and ignores them; we return one
  where it has that dtype and order.)
- `dtype=">f8"` gives the right numbers in that byte order. (NumPy 2.4 forgets to swap them.)
- `out` must have the shape of the result. (NumPy repeats a result of extent 1 along a longer axis.)
- With both `dtype` and `out`, only the cast of the one to the other has to be allowed. (NumPy wants
  the reverse as well, though it reads nothing from `out`.)
- An `out` whose elements share memory is refused. (NumPy adds up in it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.records import dataclass
from .tensors import tensors_among

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = [
    "CASTINGS",
    "KERNEL_DTYPES",
    "ORDERS",
    "Array",
    "Dtypes",
    "as_arrays",
    "check_out",
    "choose_dtypes",
    "clashes",
    "plain",
    "prepare",
    "ready",
    "shares_elements",
]

Array = np.ndarray[Any, np.dtype[Any]]

KERNEL_DTYPES = frozenset(
    np.dtype(code)
    for code in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
)
"""What kernels compute in. `f2` is accumulated in `f4`, `bool` is `and` and `or`, integers wrap."""

_SLOW_KINDS = frozenset("Ofc")  # object; and the floats and complexes that no kernel computes in

CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")
ORDERS = ("C", "F", "A", "K")


# --- what was given -> arrays and dtypes ----------------------------------------------------------


def as_arrays(operands: Sequence[Any]) -> tuple[Array, ...]:
    """Each operand as a plain array; subclasses lose their class (and masks), as in np.einsum.

    PyTorch's tensors become arrays on their memory: see `tensors.py`.

    An object given twice is one array, so that the compiler may know it.

    >>> matrix = np.matrix([[1, 2]])
    >>> first, second, scalar = as_arrays([matrix, matrix, 3])
    >>> type(first).__name__, first is second, scalar.dtype
    ('ndarray', True, dtype('int64'))
    """
    if all(type(operand) is np.ndarray for operand in operands):
        return tuple(operands)
    tensors = tensors_among(operands)
    if tensors is not None:
        operands = tensors.arrays(operands)
    made: dict[int, Array] = {}
    for operand in operands:
        if id(operand) not in made:
            made[id(operand)] = np.asarray(operand)
    return tuple(made[id(operand)] for operand in operands)


@dataclass(frozen=True, slots=True)
class Dtypes:
    """What is computed in, and the dtype of a new result: they differ in byte order at most."""

    compute: np.dtype[Any]
    result: np.dtype[Any]

    @property
    def has_kernels(self) -> bool:
        """Whether kernels can compute in it; if not, `evaluate_slowly` does."""
        return self.compute in KERNEL_DTYPES


def choose_dtypes(
    arrays: Sequence[Array],
    out: Array | None = None,
    dtype: DTypeLike | None = None,
    casting: str = "safe",
    names: Sequence[str] | None = None,
    any_scalar_out: bool = False,
) -> Dtypes:
    """The dtype to compute in: `dtype`, else what `np.result_type` says of the operands and `out`.

    That `out` counts is NumPy's rule: int8 operands are summed in int64 for an int64 `out`.

    Args:
        arrays: the operands, of any shapes and dtypes.
        out: where the result goes, or None.
        dtype: the dtype to compute in and to return, or None.
        casting: which casts are allowed, of operands to it and of it to `out`.
        names: what to call the operands in messages.
        any_scalar_out: whether an `out` without axes takes any cast. (With `optimize` on, NumPy
            casts those without asking, and its tests insist.)

    Raises:
        EinsumTypeError: (a TypeError) the casting rule forbids a cast, or the dtype has no
            arithmetic.
        TypeError: the operands have no common dtype, or `dtype` is none.

    >>> one, two = np.ones(3, "f4"), np.ones(3, "i2")
    >>> choose_dtypes([one, two]).compute
    dtype('float32')
    >>> choose_dtypes([one], dtype="i4")
    Traceback (most recent call last):
    einsumc.compiler.errors.EinsumTypeError: operand 0 would be cast from float32 to int32, which \
casting='safe' forbids
    """
    if dtype is not None:
        result = np.dtype(dtype)
    else:
        involved = [*arrays, out] if out is not None else arrays
        result = np.result_type(*(array.dtype for array in involved)).newbyteorder("=")
    compute = result.newbyteorder("=")
    if compute not in KERNEL_DTYPES and compute.kind not in _SLOW_KINDS:
        raise EinsumTypeError(f"einsum has no arithmetic for dtype {compute}")

    rule = cast("Any", casting)
    for n, array in enumerate(arrays):
        if not np.can_cast(array.dtype, compute, rule):
            which = f"operand {n}{f' ({names[n]})' if names else ''}"
            raise EinsumTypeError(_forbidden(which, array.dtype, compute, casting))
    if (
        out is not None
        and not (any_scalar_out and out.ndim == 0)
        and not np.can_cast(compute, out.dtype, rule)
    ):
        raise EinsumTypeError(_forbidden("the result", compute, out.dtype, casting, "for out "))
    return Dtypes(compute, result)


def _forbidden(
    which: str, old: np.dtype[Any], new: np.dtype[Any], casting: str, purpose: str = ""
) -> str:
    same = old == new.newbyteorder("=") or old.newbyteorder("=") == new
    kinds = (old.str, new.str) if same else (str(old), str(new))
    return (
        f"{which} would be cast {purpose}from {kinds[0]} to {kinds[1]}, "
        f"which casting={casting!r} forbids"
    )


# --- out ------------------------------------------------------------------------------------------


def check_out(out: Any, shape: tuple[int, ...]) -> Array:
    """The same `out`, once it is known to be an array of this shape that can be written.

    Raises:
        EinsumTypeError: (a TypeError) it is not an array.
        EinsumError: (a ValueError) its shape is another one, it is read-only, or some of its
            elements share memory.

    >>> check_out(np.ones((2, 3)), (3, 2))
    Traceback (most recent call last):
    einsumc.compiler.errors.EinsumError: out has shape (2, 3), but the result has shape (3, 2)
    """
    if not isinstance(out, np.ndarray):
        raise EinsumTypeError(f"out must be an array, not {type(out).__name__}")
    if out.shape != shape:
        raise EinsumError(f"out has shape {out.shape}, but the result has shape {shape}")
    if not out.flags.writeable:
        raise EinsumError("out is read-only")
    if shares_elements(out):
        raise EinsumError(
            f"some elements of out share memory (shape {out.shape}, strides {out.strides})"
        )
    return out


def shares_elements(array: Array) -> bool:
    """Whether two elements of an array overlap in memory.

    >>> shares_elements(np.broadcast_to(1.0, 3)), shares_elements(np.ones((4, 4)).T[::2])
    (True, False)
    """
    if array.size < 2:
        return False
    axes = sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1)
    reach = array.itemsize
    for stride, extent in axes:
        if stride < reach:
            break
        reach += stride * (extent - 1)
    else:
        return False  # each axis steps over all that the ones before it cover
    if axes[0][0] == 0:
        return True
    starts = np.zeros(1, np.int64)
    for stride, extent in axes:
        starts = np.add.outer(starts, stride * np.arange(extent)).ravel()
    starts.sort()
    return bool(np.diff(starts).min() < array.itemsize)


def clashes(out: Array, arrays: Sequence[Array]) -> bool:
    """Whether writing to `out` might change an operand.

    May say yes where the answer is hard to find; then the result takes a detour, right as well.

    >>> x = np.ones(8)
    >>> clashes(x[::2], [x[1::2]]), clashes(x[::2], [x[:2]])
    (False, True)
    """
    return any(
        np.may_share_memory(array, out)  # do the bounds overlap?
        and np.may_share_memory(array, out, max_work=cast("Any", 1000))
        for array in arrays
    )


# --- operands as kernels want them ----------------------------------------------------------------


def plain(array: Array) -> bool:
    """Whether the elements of an array are native, aligned, and whole elements apart.

    >>> plain(np.ones(3)[::-1]), plain(np.ones(3, ">f8"))
    (True, False)
    """
    size = array.itemsize
    return (
        array.dtype.isnative
        and array.flags.aligned
        and not (size > 1 and any(stride % size for stride in array.strides))
    )


def ready(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether kernels can read (or write) an array as it is; strides may have any sign or be 0."""
    return array.dtype == dtype and plain(array)


def prepare(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array if kernels can read it as it is, else a copy; axes of stride 0 are kept so.

    >>> prepare(np.broadcast_to(np.int8(1), (1000, 1000)), np.dtype("f8")).strides
    (0, 0)
    """
    if ready(array, dtype):
        return array
    if array.size > 1 and 0 in array.strides:
        once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)
        return np.broadcast_to(array[once].astype(dtype), array.shape)
    return array.astype(dtype)
