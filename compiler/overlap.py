"""Overlap: whether a product's factor is read where it is, as far as a statement shows it.

A factor that is read at sums of indices has more positions than elements,

    out[o,c,k] = sum_y g[o,y] * image[c,y+k]        c * k * y positions, c * (y + k - 1) elements

and :mod:`.choose.in_place` decides by strides what becomes of that. Here the same is said before
there are any, for predicted times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from .access import Access
from .choose.in_place import OVERLAP
from .program import elements, volume

__all__ = ["copied_often", "read_in_place"]


def read_in_place(
    factors: Sequence[Access],
    kept: Sequence[str],
    reduced: Sequence[str],
    over: Collection[str],
    extents: Mapping[str, int],
) -> Access | None:
    """The one of two factors that has the rows of the register tile, read where they are.

    Args:
        factors: of the product.
        kept: the indices of its sums.
        reduced: those that are summed.
        over: those of the kept ones that are summed after an epilogue.
        extents: of all indices.
    """
    if len(factors) != 2:
        return None
    windows = [f for f in factors if not f.is_plain and _overlaps(f, extents)]
    found = [f for f in windows if _sums_positions(f, reduced, extents)]
    if len(found) != 1:
        return None
    (factor,) = found
    other = factors[factors[0] is factor].names
    own = [name for name in kept if name in factor.names and name not in other]
    lanes = [name for name in kept if name in other and name not in factor.names]
    is_long = volume(lanes, extents) <= volume(reduced, extents)
    return factor if is_long or all(name in over for name in own) else None


def copied_often(factors: Iterable[Access], extents: Mapping[str, int]) -> int:
    """Elements that panels have more than the factors themselves, where windows overlap.

    That is what it costs to make panels of windows, for want of frames.
    """
    windows = (f for f in factors if not f.is_plain and _overlaps(f, extents))
    return sum(volume(f.names, extents) for f in windows)


def _sums_positions(factor: Access, reduced: Sequence[str], extents: Mapping[str, int]) -> bool:
    """Whether windows' positions are summed; where taps are, they are held in frames."""
    windows = (axis.names for axis in factor.subscripts if len(axis.names) > 1)
    longest = {max(names, key=extents.__getitem__) for names in windows}
    return not longest.isdisjoint(reduced)


def _overlaps(factor: Access, extents: Mapping[str, int]) -> bool:
    """Whether a factor has many more positions than elements."""
    return OVERLAP * elements(factor, extents) <= volume(factor.names, extents)
