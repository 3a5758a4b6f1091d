"""Memory: in which order the axes of a new result lie, whether there is room, how limits read."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.subscripts import Expression
from .operands import Array

__all__ = ["allocate", "available_memory", "check_fits", "memory_order", "parse_bytes"]

_CHECK_FROM = 1 << 26
"""Results of so many bytes are compared with the memory that is there, which takes 0.1 ms."""


def memory_order(expression: Expression, arrays: Sequence[Array], order: str) -> tuple[int, ...]:
    """The axes of a new result, slowest first: the layout np.einsum(optimize=False) would choose.

    Args:
        expression: the equation; its output may repeat no index.
        arrays: the operands as they were given.
        order: "C" and "F"; "A" for F if all operands are F-contiguous, else C; "K" for NumPy's
            nearest to the operands: axes are sorted by stride, C order breaks ties. An output with
            an affine axis has no such order; it gets C's.

    >>> from einsumc.compiler.resolve import resolve
    >>> from einsumc.compiler.subscripts import parse
    >>> a, b = np.ones((2, 3), order="F"), np.ones((3, 4), order="F")
    >>> memory_order(resolve(parse("ij,jk->ik"), [a.shape, b.shape]), [a, b], "K")
    (1, 0)
    """
    rank = len(expression.output)
    if rank < 2:
        return tuple(range(rank))
    if order == "A":
        order = "F" if all(array.flags.f_contiguous for array in arrays) else "C"
    if order == "K" and not all(axis.is_index for axis in expression.output):
        order = "C"
    if order != "K":
        return tuple(range(rank)) if order == "C" else tuple(reversed(range(rank)))

    # What follows is nditer's npyiter_find_best_axis_ordering, with einsum's numbering of the axes:
    # those of the output, then the summed ones.
    names = [name for axis in expression.output for name in axis.names]
    names += sorted({name for name, _ in expression.extents}.difference(names))
    place = {name: n for n, name in enumerate(names)}
    # For each axis the operands that have it, and its stride there: few, in a large network.
    strides: list[dict[int, int]] = [{} for _ in names]
    for number, (axes, array) in enumerate(zip(expression.inputs, arrays, strict=True)):
        for axis, extent, stride in zip(axes, array.shape, array.strides, strict=True):
            for name, factor in axis.terms if axis is not None and extent > 1 else ():
                column = strides[place[name]]
                column[number] = column.get(number, 0) + factor * stride

    fastest_first = list(reversed(range(len(names))))
    for here in range(1, len(names)):
        target, axis_here = here, fastest_first[here]
        for there in range(here - 1, -1, -1):
            verdict = _is_slower(strides[fastest_first[there]], strides[axis_here])
            if verdict is False:
                break
            if verdict:
                target = there
        fastest_first.insert(target, fastest_first.pop(here))
    return tuple(axis for axis in reversed(fastest_first) if axis < rank)


def _is_slower(first: Mapping[int, int], second: Mapping[int, int]) -> bool | None:
    """Whether an axis is slower than another in every operand that has both; None if none has.

    Axes are given by their strides in the operands.
    """
    both = [(abs(first[n]), abs(second[n])) for n in first if n in second if first[n] and second[n]]
    return all(slow > fast for slow, fast in both) if both else None


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


_UNITS = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_DECIMAL = {"kB": 3, "KB": 3, "MB": 6, "GB": 9, "TB": 12}


def parse_bytes(size: Any) -> int:
    """A number of bytes, from an int or from a text with a unit.

    Raises:
        EinsumError: (a ValueError) it is negative or the text does not read as a size.
        EinsumTypeError: (a TypeError) it is neither.

    >>> parse_bytes(4096), parse_bytes("64 MiB"), parse_bytes("1.5GB"), parse_bytes("100")
    (4096, 67108864, 1500000000, 100)
    """
    if isinstance(size, str):
        import re  # here, since few programs give a size

        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size, re.ASCII)
        unit = (found[2] or "B") if found else ""
        if found is None or unit not in _UNITS.keys() | _DECIMAL.keys():
            units = ", ".join((*_UNITS, *_DECIMAL))
            raise EinsumError(
                f"a size is a number and one of {units}, as in '64 MiB', not {size!r}"
            )
        factor = 1 << _UNITS[unit] if unit in _UNITS else 10 ** _DECIMAL[unit]
        return int(found[1]) * factor if found[1].isdecimal() else int(float(found[1]) * factor)
    try:
        count = operator.index(size)
    except TypeError:
        raise EinsumTypeError(
            f"a size is an int or a text such as '64 MiB', not {type(size).__name__}"
        ) from None
    if isinstance(size, bool) or count < 0:
        raise EinsumError(f"a size is a number of bytes, not {size!r}")
    return count
