"""Axes of one element, kept in a step's form, so that kernels of steps with more serve it.

Canonical forms have no axes of one element, and so ``bij,bjk->bik`` has another schedule for one
matrix than for many. Where the kernel for one is missing, that for many does as well, since kernels
take any extents:

    x0[i, j], x1[j, k] -> out[i, k]     its own form, with b = 1 left out
    b (1), i, j, k                      this one, for which schedules are chosen as if b were 8
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod

from .geometry import Geometry, canonical
from .records import replace

__all__ = ["with_units"]


def with_units(
    plain: Geometry, size: int, outermost: bool = False
) -> tuple[Geometry, Geometry] | None:
    """A step with its axes of one element, and the one to choose a schedule for.

    Args:
        plain: the step, not in canonical form.
        size: the extent that such axes have in the second.
        outermost: whether they are the outermost of each tensor there, wherever they lie.

    Returns:
        Twice the same indices with strides along the same tensors; the second in canonical form.
        None if there are no such axes.

    >>> layouts = {"b": 7, "i": 1}, {"i": 1}
    >>> one = Geometry(("f4", "f4"), "f4", {"b": 1, "i": 30}, layouts)
    >>> step, chosen_for = with_units(one, 8)
    >>> step.extents, chosen_for.extents
    ({'i': 30, 'b': 1}, {'i': 30, 'b': 8})
    >>> chosen_for.strides
    ({'i': 1, 'b': 30}, {'i': 1})
    """
    units = [index for index, extent in plain.extents.items() if extent == 1]
    if not units:
        return None
    sizes = {**plain.extents, **dict.fromkeys(units, size)}
    spread = tuple(_spread(plain, strides, size, outermost) for strides in plain.strides)
    grown = canonical(replace(plain, extents=sizes, strides=spread))
    parts = {index: grown.merged.get(index, (index,)) for index in grown.extents}
    nearest = {index: _nearest(plain, each) for index, each in parts.items()}
    if not all(_is_one_run(plain, each) for each in parts.values()):
        return None
    step = replace(
        grown,
        extents={i: prod(plain.extents[part] for part in each) for i, each in parts.items()},
        strides=tuple(
            {i: actual[nearest[i]] for i in strides}
            for actual, strides in zip(plain.strides, grown.strides, strict=True)
        ),
    )
    return step, grown


def _spread(
    plain: Geometry, strides: Mapping[str, int], size: int, outermost: bool
) -> dict[str, int]:
    """A tensor's strides if its axes of one element were longer, in the same order in memory."""
    place = {index: n for n, index in enumerate(strides)}

    def nearness(index: str) -> tuple[bool, int, int]:
        is_far = strides[index] == 0 or (outermost and plain.extents[index] == 1)
        return is_far, abs(strides[index]), -place[index]

    found: dict[str, int] = {}
    factor, reach = 1, 1
    for index in sorted(strides, key=nearness):
        if plain.extents[index] == 1:
            found[index] = reach
            factor *= size
            reach *= size
        else:
            found[index] = strides[index] * factor
            reach = max(reach, abs(found[index]) * plain.extents[index])
    return {index: found[index] for index in strides}


def _nearest(plain: Geometry, indices: tuple[str, ...]) -> str:
    """The innermost of indices that are one run together, axes of one element aside."""
    return next((i for i in reversed(indices) if plain.extents[i] > 1), indices[-1])


def _is_one_run(plain: Geometry, indices: tuple[str, ...]) -> bool:
    """Whether a step along each of the indices equals a whole run along the next, as they lie."""
    longer = [index for index in indices if plain.extents[index] > 1]
    return all(
        strides.get(outer, 0) == strides.get(inner, 0) * plain.extents[inner]
        for strides in plain.strides
        for outer, inner in pairwise(longer)
    )
