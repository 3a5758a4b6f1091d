"""Overlap: whether a product's factor is read where it is, as far as a statement shows it.

A factor that is read at sums of indices has more positions than elements,

    out[o,c,k] = sum_y g[o,y] * image[c,y+k]        c * k * y positions, c * (y + k - 1) elements

and :mod:`.choose.in_place` decides by strides what becomes of that. Here the same is said before
there are any, for predicted times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod

from .access import Access
from .choose.in_place import OVERLAP, SHORT, SPREAD
from .program import bounds

__all__ = ["elements", "is_overlapping", "read_in_place", "volume"]


def read_in_place(
    factors: Sequence[Access],
    kept: Sequence[str],
    reduced: Sequence[str],
    over: Collection[str],
    extents: Mapping[str, int],
    size: int,
) -> Access | None:
    """The one of two factors that has the rows of the register tile, read where they are.

    Args:
        factors: of the product.
        kept: the indices of its sums.
        reduced: those that are summed.
        over: those of the kept ones that are summed after an epilogue.
        extents: of all indices.
        size: of an element, in bytes.
    """
    if len(factors) != 2:
        return None
    found = [f for f in factors if not f.is_plain and _is_in_place(f, reduced, extents, size)]
    if len(found) != 1:
        return None
    (factor,) = found
    other = factors[factors[0] is factor].names
    own = [name for name in kept if name in factor.names and name not in other]
    lanes = [name for name in kept if name in other and name not in factor.names]
    is_long = volume(lanes, extents) <= volume(reduced, extents)
    return factor if is_long or all(name in over for name in own) else None


def _is_in_place(
    factor: Access, reduced: Sequence[str], extents: Mapping[str, int], size: int
) -> bool:
    """Whether positions are summed, and either overlap or are walked in small steps."""
    longest = {max(a.names, key=extents.__getitem__) for a in factor.subscripts if a.names}
    if longest.isdisjoint(reduced):
        return False  # windows whose taps are summed are held in frames
    if is_overlapping(factor, extents):
        return True
    steps = dict(factor.subscripts[-1].terms)
    if any(abs(step) == 1 and extents[name] >= SHORT for name, step in steps.items()):
        return False
    summed = [abs(step) for name, step in steps.items() if name in reduced]
    return bool(summed) and min(summed) > 1 and min(summed) * size <= SPREAD


def is_overlapping(factor: Access, extents: Mapping[str, int]) -> bool:
    """Whether a factor has many more positions than elements."""
    return OVERLAP * elements(factor, extents) <= volume(factor.names, extents)


def elements(access: Access, extents: Mapping[str, int]) -> int:
    """How many elements of its tensor an access touches; for an affine one, about as many."""
    touched = volume(access.names, extents)
    if len(access.names) > len(access.subscripts):
        spans = (bounds(axis, extents) for axis in access.subscripts)
        touched = min(touched, prod(high - low + 1 for low, high in spans))
    return touched


def volume(names: Iterable[str], extents: Mapping[str, int]) -> int:
    """The product of some indices' extents."""
    return prod([extents[name] for name in names])
