"""NumPy's rules for what goes into an einsum and what comes out, apart from the arithmetic.

Kernels are simple-minded: every operand and the output has one dtype, native and aligned, and the
output overlaps nothing. Here is what makes that so, in the order of a call:

    as_arrays            whatever was given -> arrays
    choose_dtypes        what to compute in, what to return, and whether the casts are allowed
    check_out, clashes   whether `out` can be written, and whether in place
    memory_order         the layout of a new result, as NumPy's `order` has it
    allocate             the result, if it fits in memory
    ready, prepare       operands as kernels want them
    as_view              `ij->ji` and the like, which compute nothing
    distinct_output      `i->ii` is `i->i` into a diagonal
    evaluate_slowly      dtypes without kernels: object, long double

`runtime/decorator.py` calls them; the first call with a layout pays for all of it, the next ones
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

import operator
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..compiler.affine import Affine
from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.subscripts import Expression

__all__ = [
    "CASTINGS",
    "KERNEL_DTYPES",
    "ORDERS",
    "Array",
    "Dtypes",
    "allocate",
    "as_arrays",
    "as_view",
    "available_memory",
    "check_fits",
    "check_out",
    "choose_dtypes",
    "clashes",
    "distinct_output",
    "evaluate_slowly",
    "memory_order",
    "plain",
    "prepare",
    "ready",
    "shares_elements",
]

Array = NDArray[Any]

KERNEL_DTYPES = frozenset(
    np.dtype(code)
    for code in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
)
"""What kernels compute in. `f2` is accumulated in `f4`, `bool` is `and` and `or`, integers wrap."""

_SLOW_KINDS = frozenset("Ofc")  # object; and the floats and complexes that no kernel computes in

CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")
ORDERS = ("C", "F", "A", "K")

_CHECK_FROM = 1 << 26
"""Results of so many bytes are compared with the memory that is there, which takes 0.1 ms."""


# --- what was given -> arrays and dtypes ----------------------------------------------------------


def as_arrays(operands: Sequence[Any]) -> tuple[Array, ...]:
    """Each operand as a plain array; subclasses lose their class (and masks), as in np.einsum.

    An object given twice is one array, so that the compiler may know it.

    >>> matrix = np.matrix([[1, 2]])
    >>> first, second, scalar = as_arrays([matrix, matrix, 3])
    >>> type(first).__name__, first is second, scalar.dtype
    ('ndarray', True, dtype('int64'))
    """
    if all(type(operand) is np.ndarray for operand in operands):
        return tuple(operands)
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


# --- the layout and memory of a new result --------------------------------------------------------


def memory_order(expression: Expression, arrays: Sequence[Array], order: str) -> tuple[int, ...]:
    """The axes of a new result, slowest first: the layout np.einsum(optimize=False) would choose.

    Args:
        expression: the equation; its output may repeat no index.
        arrays: the operands as they were given.
        order: "C" and "F"; "A" for F if all operands are F-contiguous, else C; "K" for NumPy's
            nearest to the operands: axes are sorted by stride, C order breaks ties.

    >>> from einsumc.compiler.subscripts import parse, resolve
    >>> a, b = np.ones((2, 3), order="F"), np.ones((3, 4), order="F")
    >>> memory_order(resolve(parse("ij,jk->ik"), [a.shape, b.shape]), [a, b], "K")
    (1, 0)
    """
    rank = len(expression.output)
    if order == "A":
        order = "F" if all(array.flags.f_contiguous for array in arrays) else "C"
    if order != "K":
        return tuple(range(rank)) if order == "C" else tuple(reversed(range(rank)))

    # What follows is nditer's npyiter_find_best_axis_ordering, with einsum's numbering of the axes:
    # those of the output, then the summed ones.
    names = [name for axis in expression.output for name in axis.names]
    names += sorted({name for name, _ in expression.extents}.difference(names))
    place = {name: n for n, name in enumerate(names)}
    strides = [[0] * len(names) for _ in arrays]
    for row, axes, array in zip(strides, expression.inputs, arrays, strict=True):
        for axis, extent, stride in zip(axes, array.shape, array.strides, strict=True):
            for name, factor in axis.terms if axis is not None and extent > 1 else ():
                row[place[name]] += factor * stride

    fastest_first = list(reversed(range(len(names))))
    for here in range(1, len(names)):
        target, axis_here = here, fastest_first[here]
        for there in range(here - 1, -1, -1):
            verdict = _is_slower([(row[fastest_first[there]], row[axis_here]) for row in strides])
            if verdict is False:
                break
            if verdict:
                target = there
        fastest_first.insert(target, fastest_first.pop(here))
    return tuple(axis for axis in reversed(fastest_first) if axis < rank)


def _is_slower(strides: Sequence[tuple[int, int]]) -> bool | None:
    """Whether an axis is slower than another in every operand that has both; None if none has."""
    both = [(abs(first), abs(second)) for first, second in strides if first and second]
    return all(first > second for first, second in both) if both else None


def allocate(
    shape: tuple[int, ...], dtype: np.dtype[Any], axes: tuple[int, ...] | None = None
) -> Callable[[], Array]:
    """A function that makes an uninitialised array of this shape, `axes` being its memory order.

    It raises MemoryError where `check_fits` does.

    >>> allocate((2, 3), np.dtype("f8"), (1, 0))().strides
    (8, 16)
    """
    large = prod(shape) * dtype.itemsize >= _CHECK_FROM
    empty: Callable[..., Array] = _checked_empty if large else np.empty
    if axes is None or axes == tuple(range(len(shape))):
        return lambda: empty(shape, dtype)
    if axes == tuple(reversed(range(len(shape)))):
        backwards = shape[::-1]
        return lambda: empty(backwards, dtype).T
    slowest_first = tuple(shape[axis] for axis in axes)
    inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
    return lambda: empty(slowest_first, dtype).transpose(inverse)


def _checked_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    check_fits(shape, dtype)
    try:
        return np.empty(shape, dtype)
    except MemoryError:
        raise MemoryError(f"{_sizes(shape, dtype)} could not be allocated") from None


def check_fits(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise MemoryError if a result of this shape cannot be, or cannot be now.

    >>> check_fits((10**9, 2**30, 8), np.dtype("f4"))
    Traceback (most recent call last):
    MemoryError: the result, shape (1000000000, 1073741824, 8) of float32, 32,000,000,000.0 GiB, \
cannot be addressed
    """
    needed = prod(shape) * dtype.itemsize
    if needed > sys.maxsize:
        raise MemoryError(f"{_sizes(shape, dtype)} cannot be addressed")
    there = available_memory()
    if there is not None and needed > there:
        raise MemoryError(f"{_sizes(shape, dtype)} does not fit: {_gib(there)} are available")


def _sizes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"the result, shape {shape} of {dtype}, {_gib(prod(shape) * dtype.itemsize)},"


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:.1f} MiB"


def available_memory() -> int | None:
    """Bytes that could be allocated now, or None where the system does not tell.

    The least of what the machine has left with its swap, what the limit of the control group leaves
    (file caches count as free), and what RLIMIT_AS leaves. Linux; elsewhere None.
    """
    limits = []
    with suppress(OSError, KeyError, ValueError):
        memory = _table("/proc/meminfo")
        limits.append((memory["MemAvailable"] + memory.get("SwapFree", 0)) * 1024)
    with suppress(OSError, KeyError, ValueError):
        group = "/sys/fs/cgroup/memory"
        with open(f"{group}.max") as most, open(f"{group}.current") as current:
            caches = _table(f"{group}.stat")["inactive_file"]
            limits.append(int(most.read()) - int(current.read()) + caches)
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            with open("/proc/self/statm") as pages:
                used = int(pages.read().split()[0]) * os.sysconf("SC_PAGESIZE")
            limits.append(soft - used)
    return max(min(limits), 0) if limits else None


def _table(path: str) -> dict[str, int]:
    """The first number after each name of a file such as /proc/meminfo."""
    with open(path) as lines:
        words = (line.split() for line in lines)
        return {name.rstrip(":"): int(number) for name, number, *_ in words}


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


# --- equations that are less than they look -------------------------------------------------------


def as_view(expression: Expression) -> Callable[[Array], Array] | None:
    """How to take the result of a one-operand equation that sums nothing as a view, if it is one.

    As in np.einsum, the view can be written if the operand can.

    >>> from einsumc.compiler.subscripts import parse, resolve
    >>> diagonal = as_view(resolve(parse("ii->i"), [(3, 3)]))
    >>> diagonal(np.arange(9).reshape(3, 3))
    array([0, 4, 8])
    """
    if len(expression.inputs) != 1:
        return None
    axes = [axis.names[0] if axis and axis.is_index else "" for axis in expression.inputs[0]]
    output = [axis.names[0] for axis in expression.output]
    if len(set(output)) < len(output) or set(output) != set(axes):
        return None
    if len(axes) == len(output):
        order = [axes.index(name) for name in output]
        return operator.methodcaller("transpose", order)

    def view(array: Array) -> Array:
        diagonal, names = _diagonal(array, axes)
        return diagonal.transpose([names.index(name) for name in output])

    return view


def distinct_output(expression: Expression) -> tuple[Expression, Callable[[Array], Array]]:
    """An equation whose output repeats no index, and how to take the part of `out` it computes.

    The rest of `out` has to be zero.

    >>> from einsumc.compiler.subscripts import parse, resolve
    >>> expression, part = distinct_output(resolve(parse("i->ii"), [(3,)]))
    >>> [str(axis) for axis in expression.output]
    ['i']
    >>> out = np.zeros((3, 3))
    >>> part(out)[:] = [1, 2, 3]
    >>> print(out.trace())
    6.0
    """
    axes = [axis.names[0] for axis in expression.output]
    if len(set(axes)) == len(axes):
        return expression, lambda out: out
    names = _without_repeats(axes)
    output = tuple(Affine.index(name) for name in names)
    return replace(expression, output=output), lambda out: _diagonal(out, axes)[0]


def _diagonal(array: Array, axes: Sequence[str]) -> tuple[Array, list[str]]:
    """A view with one axis for each name, and the names of its axes; it is as writeable."""
    view, names, target = array, list(axes), _without_repeats(axes)
    while len(names) > len(target):
        name = next(name for name in names if names.count(name) > 1)
        first = names.index(name)
        second = names.index(name, first + 1)
        view = view.diagonal(0, first, second)  # a view that cannot be written
        names = [*names[:first], *names[first + 1 : second], *names[second + 1 :], name]
    if view is not array and array.flags.writeable:
        view.flags.writeable = True
    return view.transpose([names.index(name) for name in target]), target


def _without_repeats(axes: Sequence[str]) -> list[str]:
    """Each name once, where it comes last."""
    return [name for n, name in enumerate(axes) if name not in axes[n + 1 :]]


# --- dtypes without kernels -----------------------------------------------------------------------

_SLAB = 1 << 22
"""How many products are held at a time."""


def evaluate_slowly(expression: Expression, arrays: Sequence[Array], out: Array) -> None:
    """Compute with np.multiply and np.add alone, from the left, summing an index once it is done.

    For `object` (with the elements' own `*` and `+`, exceptions and all) and long double. The
    output may repeat no index.

    >>> from einsumc.compiler.subscripts import parse, resolve
    >>> a, out = np.array([2**70, 1], object), np.empty((), object)
    >>> evaluate_slowly(resolve(parse("i,i->"), [a.shape, a.shape]), [a, a], out)
    >>> out[()] == 2**140 + 1
    True
    """
    target = [axis.names[0] for axis in expression.output]
    waiting = [_named(axes, array) for axes, array in zip(expression.inputs, arrays, strict=True)]
    product, names = waiting.pop(0)
    while True:
        factor, factor_names = waiting.pop(0) if waiting else (None, [])
        needed = {*target}.union(*(rest for _, rest in waiting))
        every = list(dict.fromkeys([*names, *factor_names]))
        kept = [name for name in every if name in needed]
        order = [name for name in every if name not in needed] + kept
        product = _sum_of_products(
            [
                _arranged(part, its_names, order)
                for part, its_names in ((product, names), (factor, factor_names))
                if part is not None
            ],
            len(order) - len(kept),
        )
        names = kept
        if not waiting:
            out[...] = _arranged(product, names, target)
            return


def _named(axes: Sequence[Affine | None], array: Array) -> tuple[Array, list[str]]:
    """An operand without the axes that broadcast and with each index once, and their names."""
    for axis in axes:
        if axis is not None and not axis.is_index:
            raise EinsumTypeError(f"the axis {axis} needs a dtype with kernels, not {array.dtype}")
    used = array[(*(0 if axis is None else slice(None) for axis in axes), ...)]
    return _diagonal(used, [axis.names[0] for axis in axes if axis is not None])


def _arranged(array: Array, names: Sequence[str], order: Sequence[str]) -> Array:
    """An array with its axes in this order, and axes of extent 1 where it has none."""
    moved = array.transpose([names.index(name) for name in order if name in names])
    return moved[(*(slice(None) if name in names else None for name in order), ...)]


def _sum_of_products(parts: Sequence[Array], summed: int) -> Array:
    """The product of one or two arrays, summed over the first axes, some slabs at a time."""

    def over(rows: slice | None) -> Array:
        taken = [part if rows is None or part.shape[0] == 1 else part[rows] for part in parts]
        product = taken[0] if len(taken) == 1 else np.asarray(np.multiply(*taken))
        return np.asarray(np.add.reduce(product, axis=tuple(range(summed))) if summed else product)

    shape = np.broadcast_shapes(*(part.shape for part in parts))
    size = prod(shape)
    if not summed or len(parts) == 1 or size <= _SLAB:
        return over(None)
    rows = max(_SLAB * shape[0] // size, 1)
    total = over(slice(0, rows))
    for start in range(rows, shape[0], rows):
        total = np.asarray(np.add(total, over(slice(start, start + rows))))
    return total
