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

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .access import Access
from .affine import Affine
from .families import gathers
from .formula import with_accesses
from .inside import ZERO, Box
from .limits import Limit, NotBoxes, Ranges, inside, leaving, split
from .program import Epilogue, Statement
from .records import replace

if TYPE_CHECKING:
    from .frames import Windows

__all__ = ["boxes", "leaves"]

MOST_BOXES = 64
"""Of one statement: each is a call of a kernel. Affine targets may have as many as they need."""

MANY_BOXES = 1 << 14


def leaves(
    statement: Statement, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> bool:
    """Whether a statement is more than one box: it leaves a factor, or its target is affine."""
    if not statement.target.is_plain:
        return True
    ranges = {name: (0, sizes[name]) for name in statement.indices}
    return any(not inside(limit, ranges) for limit in _limits(statement, shapes))


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
    families = gathers(statement, shapes, sizes)
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
            for each, empty in split(ranges, limits, kept, _over(statement)):
                if not empty or not families.clear:
                    part.append(_box(family.statement, each, empty))
                if len(found) + len(part) > most:
                    raise NotBoxes(max(limits, key=lambda limit: leaving(limit, ranges)))
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
