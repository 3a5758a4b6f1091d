"""Symmetric products: which half of the output is computed, and what its two sides share.

A Gram matrix `nti,nsi->nts` is symmetric, so that only tiles on one side of the diagonal are
computed (:mod:`..passes.mirror`). Tiles are wider than they are high. Where the output's extent is
no multiple of their width, the last column of tiles is as long as the output and mostly empty; the
tiles below the diagonal have a last row instead, which is lower than that is wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from ..geometry import Geometry

__all__ = [
    "COLLECTED",
    "exchangeable",
    "is_better_below",
    "may_share",
    "tiles_above",
    "tiles_below",
]

COLLECTED = 512
"""Positions of m and of n of a task whose sums are collected in scratch: 1 MiB in f4."""

FEW = 128
"""Positions of a symmetric product's sides up to which packing them once is worth cutting sums.

Measured with one core, f4: 128 positions took 1/1.01 to 1/1.1 of the time with sums of 200 to 400,
but 256 positions 1.03 to 1.09 times as long. With sums of 64 to 128, or of more than 768, up to 512
positions took 1/1.02 to 1/1.25."""

FEWER = 0.97
"""So many of the tiles above the diagonal must be below it for these to be computed instead.

Panels of n are then read by one row of tiles after the other: 128 and 256 positions, for which
there are more tiles below, took 1.06 to 1.09 times as long; 100, 196 and 197, which have 8 to 13 %
fewer of them, 1/1.06 to 1/1.08; 49 and 50, which have 19 % fewer, 1/1.2."""


def exchangeable(
    step: Geometry, members: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[str, str, int | str], ...] | None:
    """Whether exchanging m and n changes nothing: a product of a tensor with its own transpose.

    Not even a bit: parts of complex products are summed in an order that depends on which factor
    comes first. If so, and if m and n are several indices each, that is how the output's strides
    are exchanged: it has one along all of n and one along all of m; None if not.
    """
    m, n, over = members["m"], members["n"], step.over
    if not step.twins or step.accumulator[0] == "c" or len(m) != len(n):
        return None
    first, second = step.strides[:2]
    if m[0] not in first:
        first, second = second, first
    rest = [i for group in "bdk" for i in members.get(group, ())]
    alike = all(first.get(i) == second.get(i) for i in rest)
    for i, j in zip(m, n, strict=True):
        alike = alike and first[i] == second[j] and step.extents[i] == step.extents[j]
        alike = alike and (i in over) == (j in over)
    if not alike:
        return None
    if len(m) == 1 or m[0] in over:  # no element of the output is written twice
        return ()
    along = 1
    for i in reversed((*m, *n)):
        if step.strides[-1][i] != along:
            return None
        along *= step.extents[i]
    return ("out", "m", "N"), ("out", "n", 1)


def may_share(m: int, k: int, shared: int, alone: int) -> bool:
    """Whether one set of panels for both sides of a symmetric product is worth its shorter blocks.

    Both sides' values are further apart in it, so that fewer positions of k stay in the first
    cache, ``shared`` of them instead of ``alone``: a sum that would be one block is cut, and
    collected in scratch.
    """
    return m <= COLLECTED and (k <= shared or k > 2 * alone or m <= FEW)


def is_better_below(m: int, rows: int, width: int) -> bool:
    """Whether the tiles below the diagonal are computed, and not those above it.

    >>> [is_better_below(m, 6, 16) for m in (100, 128, 196, 256)]
    [True, False, True, False]
    """
    return m <= COLLECTED and tiles_below(m, rows, width) <= FEWER * tiles_above(m, rows, width)


def tiles_above(m: int, rows: int, width: int) -> int:
    """Tiles of a symmetric output that are above the diagonal, or that it crosses.

    >>> tiles_above(197, 6, 16), tiles_below(197, 6, 16)
    (245, 225)
    """
    return sum(ceil(min(first + width, m) / rows) for first in range(0, m, width))


def tiles_below(m: int, rows: int, width: int) -> int:
    """Tiles of a symmetric output that are below the diagonal, or that it crosses."""
    return sum(ceil(min(first + rows, m) / width) for first in range(0, m, rows))
