"""Regions: cut a statement's index space into boxes in which every access stays inside its tensor.

    out[y] = sum_k a[y+k-1] * b[k]        with 32 of a and of y, and 3 of k

reads `a` in front of its first element where y and k are 0, and behind its last where y is 31 and
k is 2. What is read there is zero, so those products are left out:

    out[0]   = sum_{k in 1..3} a[k-1]   * b[k]
    out[y]   = sum_{k in 0..3} a[y+k-1] * b[k]     for y in 1..31
    out[31]  = sum_{k in 0..2} a[k+30]  * b[k]

Each is a plain step: what a box begins with is added to the tensors' addresses, and strides are
those of the whole. So kernels know nothing of padding, test nothing, and no tensor is copied.

The boxes write disjoint parts of the target and together all of it. Kept positions for which no
summed one is left are set to zero: the product is then the tensor `ZERO`. Where a target's axis is
affine (`out[2*y+k]`, values that meet are added up), the statement is turned round first, so that
each element of the target gathers what belongs there: with a factor 2, the elements at even and at
odd places separately, each with every other position of `k`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import gcd
from typing import TYPE_CHECKING

from .access import Access
from .affine import Affine
from .formula import with_accesses
from .inside import ZERO, Box
from .program import Epilogue, Statement
from .records import dataclass, replace

if TYPE_CHECKING:
    from .frames import Windows

__all__ = ["ZERO", "Box", "NotBoxes", "boxes", "leaves"]

MOST_BOXES = 64
"""Of one statement: each is a call of a kernel. Affine targets may have as many as they need."""

MANY_BOXES = 1 << 14

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
                    self.factor, self.axis, self.reach = place, number, _reach(axis, ranges)
                    return


def leaves(
    statement: Statement, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> bool:
    """Whether a statement is more than one box: it leaves a factor, or its target is affine."""
    if not statement.target.is_plain:
        return True
    ranges = {name: (0, sizes[name]) for name in statement.indices}
    return any(not _inside(limit, ranges) for limit in _limits(statement, shapes))


def boxes(
    statement: Statement,
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    most: int = MOST_BOXES,
    whole: Callable[[Statement, Mapping[str, int]], Windows | None] | None = None,
) -> list[Box]:
    """The boxes of a statement, in the order in which they have to be computed.

    Args:
        statement: any; no extent is zero.
        shapes: of its tensors.
        sizes: the extents of its indices.
        most: so many boxes at most.
        whole: says of a statement and its extents what windows it has, if a kernel can compute it
            as it is, whether it leaves its tensors or not.

    Raises:
        NotBoxes: there are more than `most`, or sums over positions that are no box.

    >>> y, k = Affine.index("y"), Affine.index("k")
    >>> window = Affine((("y", 1), ("k", 1)), -1)
    >>> statement = Statement(Access("out", (y,)), (Access("a", (window,)), Access("b", (k,))))
    >>> shapes = {"a": (32,), "b": (3,), "out": (32,)}
    >>> for box in boxes(statement, shapes, {"y": 32, "k": 3}):
    ...     print(box.statement, dict(box.extents))
    out[y+1] = sum_k a[k+y] * b[k] {'y': 30, 'k': 3}
    out[y] = sum_k a[k+y] * b[k+1] {'y': 1, 'k': 2}
    out[y+31] = sum_k a[k+y+30] * b[k] {'y': 1, 'k': 2}
    """
    windows = whole(statement, sizes) if whole is not None else None
    if windows is not None or not leaves(statement, shapes, sizes):
        return [Box(statement, {name: sizes[name] for name in statement.indices}, windows)]
    found: list[Box] = []
    families = _gathers(statement, shapes, sizes)
    if not statement.target.is_plain:
        most = MANY_BOXES
    if families.clear:
        found.append(_clearing(statement.target.tensor, shapes))
    for family in families.members:
        own = _limits(family.statement, shapes)
        if whole is not None and {*family.limits} <= {*own}:
            windows = whole(family.statement, family.sizes)
            if windows is not None:
                extents = {name: family.sizes[name] for name in family.statement.indices}
                found.append(Box(family.statement, extents, windows))
                continue
        limits = [*own, *family.limits]
        kept = {*family.statement.kept}
        ranges = {name: (0, family.sizes[name]) for name in family.statement.indices}
        ranges |= {name: (0, family.sizes[name]) for limit in limits for name in limit[0].names}
        part: list[Box] = []
        try:
            for each, empty in _split(ranges, limits, kept, _over(statement)):
                if not empty or not families.clear:
                    part.append(_box(family.statement, each, empty))
                if len(found) + len(part) > most:
                    raise NotBoxes(max(limits, key=lambda limit: _leaving(limit, ranges)))
        except NotBoxes as error:
            error.blame(family.statement, shapes, family.sizes)
            raise
        part.sort(key=lambda box: -_volume(box))  # a stable sort, the largest first
        found += part
    return found


def _over(statement: Statement) -> frozenset[str]:
    """The indices that an epilogue sums: what it makes of parts cannot be put together."""
    return frozenset(statement.epilogue.over if statement.epilogue else ())


def _limits(statement: Statement, shapes: Mapping[str, tuple[int, ...]]) -> list[Limit]:
    """What holds for the positions at which no factor is zero for being left."""
    found = (
        limit
        for factor in statement.factors
        for limit in zip(factor.subscripts, shapes.get(factor.tensor, ()), strict=False)
    )
    return list(dict.fromkeys(found))


def _box(statement: Statement, ranges: Ranges, empty: bool) -> Box:
    """The part of a statement within these ranges, a sum of nothing if it is empty."""
    shifts = {name: Affine(((name, 1),), begin) for name, (begin, _) in ranges.items() if begin}
    part = _shifted(statement, shifts)
    if empty:
        part = replace(part, factors=(Access(ZERO, ()),))
    return Box(part, {name: ranges[name][1] - ranges[name][0] for name in part.indices})


def _shifted(statement: Statement, values: Mapping[str, Affine]) -> Statement:
    """A statement with other expressions in place of some indices."""
    if not values:
        return statement
    epilogue = statement.epilogue
    if epilogue is not None:
        formula = with_accesses(epilogue.value, lambda access: access.replaced(values))
        epilogue = Epilogue(formula, epilogue.over)
    factors = tuple(factor.replaced(values) for factor in statement.factors)
    return Statement(statement.target.replaced(values), factors, epilogue)


def _clearing(tensor: str, shapes: Mapping[str, tuple[int, ...]]) -> Box:
    """A whole tensor set to zero."""
    names = [f"axis{n}" for n in range(len(shapes[tensor]))]
    target = Access(tensor, tuple(map(Affine.index, names)))
    extents = dict(zip(names, shapes[tensor], strict=True))
    return Box(Statement(target, (Access(ZERO, ()),)), extents)


def _volume(box: Box) -> int:
    volume = 1
    for extent in box.extents.values():
        volume *= extent
    return volume


# --- ranges that stay within limits ---------------------------------------------------------------


def _reach(axis: Affine, ranges: Ranges) -> tuple[int, int]:
    """The least and the greatest value of an expression."""
    low = high = axis.constant
    for name, c in axis.terms:
        begin, end = ranges[name]
        low += c * (begin if c > 0 else end - 1)
        high += c * (end - 1 if c > 0 else begin)
    return low, high


def _inside(limit: Limit, ranges: Ranges) -> bool:
    low, high = _reach(limit[0], ranges)
    return low >= 0 and high < limit[1]


def _leaving(limit: Limit, ranges: Ranges) -> int:
    """By how many positions an expression leaves its limit, on both sides together."""
    low, high = _reach(limit[0], ranges)
    return max(0, -low) + max(0, high + 1 - limit[1])


def _split(
    ranges: Ranges, limits: Sequence[Limit], kept: set[str], over: frozenset[str]
) -> Iterator[tuple[Ranges, bool]]:
    """Ranges that part the kept positions, the summed ones cut to what is valid.

    And whether nothing is: then all kept positions in them are without a valid summed one.
    """
    for place, limit in enumerate(limits):
        if _inside(limit, ranges):
            continue
        axis, extent = limit
        low, high = _reach(axis, ranges)
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
            yield from _split(part, limits[place:], kept, over)
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
    low, high = _reach(axis, {**ranges, kept: (0, 1)})
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
    low, high = _reach(axis, {**ranges, name: (0, 1)})
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


# --- from scattering to gathering -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Family:
    """A statement whose target's axes are each a multiple of an index of its own.

    `limits` hold besides those of its factors.
    """

    statement: Statement
    sizes: Mapping[str, int]
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class _Families:
    members: tuple[_Family, ...]
    clear: bool  # whether they leave elements of the target out


def _gathers(
    statement: Statement, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> _Families:
    """The same as statements that write each element of the target once."""
    members = [_Family(statement, sizes, ())]
    clear = False
    fixed = {a.names[0] for a in statement.target.subscripts if a.is_index}
    own: set[str] = set()  # indices that an axis before has for its own
    for place, extent in enumerate(shapes[statement.target.tensor]):
        turned: list[_Family] = []
        for family in members:
            axis = family.statement.target.subscripts[place]
            others = [a for n, a in enumerate(family.statement.target.subscripts) if n != place]
            used = {name for other in others for name in other.names}
            if axis.is_index and axis.names[0] not in own:
                turned.append(family)
                continue
            free = [name for name in axis.names if name not in used]
            if not free:
                if not fixed.union(own).issuperset(axis.names):
                    raise NotBoxes((axis, extent))  # several positions are one element
                clear = True
                turned.append(
                    _Family(family.statement, family.sizes, (*family.limits, (axis, extent)))
                )
                continue
            pivot = max(free, key=lambda name: family.sizes[name])
            clear |= any(name in used for name in axis.names) and abs(dict(axis.terms)[pivot]) > 1
            turned += _turned(family, axis, extent, pivot, fixed, f"{pivot}'")
        members = turned
        for family in members:
            own.update(family.statement.target.subscripts[place].names)
    return _Families(tuple(members), clear)


def _turned(
    family: _Family, axis: Affine, extent: int, pivot: str, fixed: set[str], name: str
) -> Iterator[_Family]:
    """A family for each remainder that positions along a target's axis leave.

    `fixed` are indices that are axes of the target themselves: where they differ, so do elements.

    With `axis` = s*v + c*u + C the element at s*V + r gets the values of all u and v for which
    v = V + (r - C - c*u) / s is a whole number: those of every (s / gcd(s, c))-th u.
    """
    step = dict(axis.terms)[pivot]
    s, sign = abs(step), 1 if step > 0 else -1
    others = [(u, c) for u, c in axis.terms if u != pivot]
    periods = [s // gcd(s, c) for _, c in others]
    sizes = family.sizes
    for r in range(min(s, extent)):
        starts = [
            start
            for start in product(
                *(range(min(p, sizes[u])) for p, (u, _) in zip(periods, others, strict=True))
            )
            if (r - axis.constant - sum(c * t for t, (_, c) in zip(start, others, strict=True))) % s
            == 0
        ]
        places = Affine(((name, s),), r)
        count = -(-(extent - r) // s)
        target = family.statement.target
        if not starts:
            zero = (Affine(((name, 1),)), 0)  # never below 0: nothing is left
            written = tuple(places if a == axis else a for a in target.subscripts)
            empty = Statement(Access(target.tensor, written), (Access(ZERO, ()),))
            yield _Family(empty, {**sizes, name: count}, (*family.limits, zero))
            continue
        kept = [n for n, (u, _) in enumerate(others) if u in fixed]
        if len({tuple(start[n] for n in kept) for start in starts}) < len(starts):
            raise NotBoxes((axis, extent))  # several sums would meet in one element
        for start in starts:
            values: dict[str, Affine] = {}
            inner = {**sizes, name: count}
            terms: list[tuple[str, int]] = [(name, sign)]
            constant = r - axis.constant
            for (u, c), p, t in zip(others, periods, start, strict=True):
                values[u] = Affine(((u, p),), t)
                inner[u] = -(-(sizes[u] - t) // p)
                terms.append((u, -sign * (c * p // s)))
                constant -= c * t
            values[pivot] = Affine(tuple(terms), sign * (constant // s))
            written = tuple(places if a == axis else a.replaced(values) for a in target.subscripts)
            factors = tuple(factor.replaced(values) for factor in family.statement.factors)
            limits = tuple((a.replaced(values), n) for a, n in family.limits)
            inner.pop(pivot)
            used = {n for access in (*factors, Access("", written)) for n in access.names}
            if any(u not in used and inner[u] > 1 for u, _ in others):
                raise NotBoxes((axis, extent))  # a sum of equal products, which no factor counts
            yield _Family(
                Statement(Access(target.tensor, written), factors),
                inner,
                (*limits, (values[pivot], sizes[pivot])),
            )
