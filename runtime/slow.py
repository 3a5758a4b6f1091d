"""Evaluation of einsums in dtypes without kernels: `object` and long double."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from ..compiler.access import Access
from ..compiler.affine import Affine
from ..compiler.evaluate import scattered
from ..compiler.program import bounds
from ..compiler.subscripts import Expression
from .operands import Array
from .views import diagonal_of

__all__ = ["evaluate_slowly"]

_SLAB = 1 << 22
"""How many products are held at a time."""


def evaluate_slowly(expression: Expression, arrays: Sequence[Array], out: Array) -> None:
    """Compute with np.multiply and np.add alone, from the left, summing an index once it is done.

    For `object` (with the elements' own `*` and `+`, exceptions and all) and long double. The
    output may repeat no index.

    >>> from einsumc.compiler.resolve import resolve
    >>> from einsumc.compiler.subscripts import parse
    >>> a, out = np.array([2**70, 1], object), np.empty((), object)
    >>> evaluate_slowly(resolve(parse("i,i->"), [a.shape, a.shape]), [a, a], out)
    >>> out[()] == 2**140 + 1
    True
    """
    output, sizes = Access("out", expression.output), expression.sizes
    target = list(output.names)
    waiting = [
        _named(axes, array, sizes) for axes, array in zip(expression.inputs, arrays, strict=True)
    ]
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
            result = _arranged(product, names, target)
            if not all(axis.is_index for axis in expression.output):
                result = scattered(result, output, out.shape)
            out[...] = result
            return


def _named(
    axes: Sequence[Affine | None], array: Array, sizes: Mapping[str, int]
) -> tuple[Array, list[str]]:
    """An operand without the axes that broadcast and with each index once, and their names."""
    if not all(axis is None or axis.is_index for axis in axes):
        return _windows([axis or Affine(()) for axis in axes], array, sizes)
    used = array[(*(0 if axis is None else slice(None) for axis in axes), ...)]
    return diagonal_of(used, [axis.names[0] for axis in axes if axis is not None])


def _windows(
    axes: Sequence[Affine], array: Array, sizes: Mapping[str, int]
) -> tuple[Array, list[str]]:
    """A view of an operand, in a frame of zeros, with an axis for each index of affine axes."""
    reach = [bounds(axis, sizes) for axis in axes]
    before = [max(0, -low) for low, _ in reach]
    after = [max(0, high + 1 - n) for (_, high), n in zip(reach, array.shape, strict=True)]
    framed = np.zeros(
        [b + n + a for b, n, a in zip(before, array.shape, after, strict=True)], array.dtype
    )
    framed[tuple(slice(b, b + n) for b, n in zip(before, array.shape, strict=True))] = array
    begin = framed[
        tuple(slice(b + axis.constant, None) for b, axis in zip(before, axes, strict=True))
    ]
    strides: dict[str, int] = {}
    for axis, stride in zip(axes, framed.strides, strict=True):
        for name, c in axis.terms:
            strides[name] = strides.get(name, 0) + c * stride
    view = np.lib.stride_tricks.as_strided(
        begin, [sizes[name] for name in strides], list(strides.values()), writeable=False
    )
    return view, list(strides)


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
