"""Limits: ranges of indices within which affine expressions stay inside of tensors.

A limit is an expression and an extent: it has to be at least zero and below the extent. Ranges are
cut until all limits hold in each: kept indices into parts that differ in what they may sum, summed
ones to what is valid. See :mod:`.regions` for what this is good for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from .affine import Affine
from .program import Statement

__all__ = ["Limit", "NotBoxes", "Ranges", "inside", "leaving", "reach", "split"]

Ranges = dict[str, tuple[int, int]]
"""For each index its first position and the one behind its last."""

Limit = tuple[Affine, int]
"""What has to be at least zero, and below a number."""


class NotBoxes(Exception):
    """A statement's valid positions are no boxes, or too many.

    Attributes:
        factor: the place of the factor that is to blame, if it is one; then also
        axis: the number of its axis, and
        reach: the least and the greatest position that is read there.
    """

    def __init__(self, limit: Limit) -> None:
        super().__init__(f"{limit[0]} in 0..{limit[1]}")
        self.limit = limit
        self.factor: int | None = None
        self.axis = 0
        self.reach = (0, 0)

    def blame(
        self,
        statement: Statement,
        shapes: Mapping[str, tuple[int, ...]],
        sizes: Mapping[str, int],
    ) -> None:
        """Find the factor whose limit it is: others may have the same expression, and be longer."""
        for place, factor in enumerate(statement.factors):
            limits = zip(factor.subscripts, shapes.get(factor.tensor, ()), strict=False)
            for number, (axis, extent) in enumerate(limits):
                if (axis, extent) == self.limit:
                    ranges = {name: (0, sizes[name]) for name in axis.names}
                    self.factor, self.axis, self.reach = place, number, reach(axis, ranges)
                    return


def reach(axis: Affine, ranges: Ranges) -> tuple[int, int]:
    """The least and the greatest value of an expression."""
    low = high = axis.constant
    for name, c in axis.terms:
        begin, end = ranges[name]
        low += c * (begin if c > 0 else end - 1)
        high += c * (end - 1 if c > 0 else begin)
    return low, high


def inside(limit: Limit, ranges: Ranges) -> bool:
    """Whether a limit holds in all of some ranges."""
    low, high = reach(limit[0], ranges)
    return low >= 0 and high < limit[1]


def leaving(limit: Limit, ranges: Ranges) -> int:
    """By how many positions an expression leaves its limit, on both sides together."""
    low, high = reach(limit[0], ranges)
    return max(0, -low) + max(0, high + 1 - limit[1])


def split(
    ranges: Ranges, limits: Sequence[Limit], kept: set[str], over: frozenset[str]
) -> Iterator[tuple[Ranges, bool]]:
    """Ranges that part the kept positions, the summed ones cut to what is valid.

    And whether nothing is: then all kept positions in them are without a valid summed one.
    """
    for place, limit in enumerate(limits):
        if inside(limit, ranges):
            continue
        axis, extent = limit
        low, high = reach(axis, ranges)
        if high < 0 or low >= extent:
            if over:
                raise NotBoxes(limit)
            yield ranges, True
            return
        varying = [name for name in axis.names if ranges[name][1] - ranges[name][0] > 1]
        cut = [name for name in varying if name in kept]
        summed = [name for name in varying if name not in kept]
        if len(summed) > 1 or not over.isdisjoint(varying):
            raise NotBoxes(limit)
        if len(cut) > 1:
            name = min(cut, key=lambda name: ranges[name][1] - ranges[name][0])
            parts: Iterable[Ranges] = (
                {**ranges, name: (position, position + 1)} for position in range(*ranges[name])
            )
        else:
            parts = _runs(ranges, limit, next(iter(cut), None), next(iter(summed), None))
        for part in parts:
            yield from split(part, limits[place:], kept, over)
        return
    yield ranges, False


def _runs(ranges: Ranges, limit: Limit, kept: str | None, summed: str | None) -> Iterator[Ranges]:
    """Ranges of the kept index for which the same positions of the summed one are valid.

    Where none are, the ranges are left as they are: the limit is then out of reach.
    """
    axis, extent = limit
    if kept is None:
        assert summed is not None
        yield {**ranges, summed: _some(_valid(axis, extent, summed, ranges), ranges[summed])}
        return
    position, end = ranges[kept]
    step = dict(axis.terms)[kept]
    low, high = reach(axis, {**ranges, kept: (0, 1)})
    every = _within(step, low, high, extent, position, end)
    some = _within(step, high, low, extent, position, end)
    while position < end:
        here = {**ranges, kept: (position, position + 1)}
        if every[0] <= position < every[1]:
            after, valid = every[1], None
        elif position < some[0]:
            after, valid = min(some[0], end), None
        elif position >= some[1]:
            after, valid = end, None
        else:
            valid = None if summed is None else _valid(axis, extent, summed, here)
            after = position + 1
            while (
                after < end
                and summed is not None
                and some[0] <= after < some[1]
                and not every[0] <= after < every[1]
                and _valid(axis, extent, summed, {**ranges, kept: (after, after + 1)}) == valid
            ):
                after += 1
        part = {**ranges, kept: (position, after)}
        if valid is not None and summed is not None:
            part[summed] = _some(valid, ranges[summed])
        yield part
        position = after


def _some(valid: tuple[int, int], whole: tuple[int, int]) -> tuple[int, int]:
    """The positions that are valid, or one that is not: where none is, that is soon found."""
    return valid if valid[0] < valid[1] else (whole[0], whole[0] + 1)


def _valid(axis: Affine, extent: int, name: str, ranges: Ranges) -> tuple[int, int]:
    """The positions of one index for which an expression of it alone is within its limit."""
    low, high = reach(axis, {**ranges, name: (0, 1)})
    return _within(dict(axis.terms)[name], low, high, extent, *ranges[name])


def _within(step: int, low: int, high: int, extent: int, begin: int, end: int) -> tuple[int, int]:
    """The positions p from begin to end with low + step * p >= 0 and high + step * p < extent.

    >>> _within(2, -1, -1, 10, 0, 20)
    (1, 6)
    """
    if step > 0:
        first, last = -(low // step), (extent - 1 - high) // step
    else:
        first, last = -((extent - 1 - high) // -step), low // -step
    first = min(max(first, begin), end)
    return first, max(min(last + 1, end), first)
