"""The contraction path of least work where factors are read at windows.

opt_einsum counts a factor `a[c,y+k]` as one that has `c`, `y` and `k`: as if it were unfolded. But
until `k` is summed, or `y` met elsewhere, it is only as long as its axis. So the paths of
convolutions with several factors are searched here, by what the steps really are
(`follow.py`). The best path to a set of factors is made of the best paths to two parts of
it, since what a part leaves does not depend on how it was computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod

from .affine import Affine
from .program import Statement

__all__ = ["EXHAUSTIVE", "windows_path"]

EXHAUSTIVE = 8
"""Factors up to which all trees are looked at: 3 to the power of their number of steps."""

TRAFFIC = 8
"""Multiply-adds in the time that it takes to write and read an element."""


def windows_path(
    statement: Statement, extents: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[int, ...], ...]:
    """The path with the fewest operations and the least traffic of intermediates.

    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> shapes = [(8, 64, 34, 34), (64, 16), (16, 16, 3, 3), (16, 64)]
    >>> text = "n c h+k w+l, c r, r s k l, s o -> n o h w"
    >>> program = from_expression(resolve(parse(text), shapes))
    >>> windows_path(program.statements[0], program.sizes, program.shapes)
    ((0, 1), (0, 2), (0, 1))
    """
    factors = statement.factors
    every = (1 << len(factors)) - 1
    kept = frozenset(statement.kept)
    axes = [
        (1 << n, axis, extent)
        for n, factor in enumerate(factors)
        for axis, extent in zip(factor.subscripts, shapes[factor.tensor], strict=True)
    ]

    def names(members: int) -> frozenset[str]:
        return frozenset(i for owner, axis, _ in axes if owner & members for i in axis.names)

    @cache
    def left(members: int) -> frozenset[tuple[Affine, int]]:
        """The axes of what some factors leave, and their extents."""
        if members == every:
            return frozenset((Affine.index(i), extents[i]) for i in kept)
        needed = names(every & ~members) | kept
        mine = [(axis, extent) for owner, axis, extent in axes if owner & members]
        whole: list[tuple[Affine, int]] = []
        closed: set[str] = set()
        for place, (axis, extent) in enumerate(mine):
            others = {i for n, (other, _) in enumerate(mine) if n != place for i in other.names}
            alone = others.isdisjoint(axis.names) and not needed.isdisjoint(axis.names)
            if not axis.is_index and alone and extent < prod(extents[i] for i in axis.names):
                whole.append((axis, extent))
            else:
                closed.update(axis.names)
        return frozenset(whole) | {(Affine.index(i), extents[i]) for i in closed & needed}

    def given(members: int) -> frozenset[tuple[Affine, int]]:
        """The axes of a factor as it is, or of what several leave."""
        if members & (members - 1):
            return left(members)
        return frozenset((axis, extent) for owner, axis, extent in axes if owner == members)

    def volume(members: int, *parts: int) -> int:
        """Positions of all indices of a step."""
        open_axes = {axis for axis, _ in left(members) if not axis.is_index}
        indices = dict.fromkeys(
            i
            for part in parts
            for axis, _ in given(part)
            if axis not in open_axes
            for i in axis.names
        )
        whole = prod(extent for axis, extent in left(members) if axis in open_axes)
        return whole * prod(extents[i] for i in indices)

    @cache
    def best(members: int) -> tuple[int, tuple[int, int] | None]:
        """The least cost of a set, and the two parts that lead to it."""
        if not members & (members - 1):
            return 0, None
        lowest = members & -members
        found: tuple[int, tuple[int, int] | None] | None = None
        part = (members - 1) & members
        written = 0 if members == every else TRAFFIC * prod(n for _, n in left(members))
        while part:
            if part & lowest:
                rest = members & ~part
                cost = best(part)[0] + best(rest)[0] + volume(members, part, rest) + written
                if found is None or cost < found[0]:
                    found = cost, (part, rest)
            part = (part - 1) & members
        assert found is not None
        return found

    waiting = [1 << n for n in range(len(factors))]
    path: list[tuple[int, ...]] = []

    def walk(members: int) -> None:
        parts = best(members)[1]
        if parts is None:
            return
        for part in parts:
            walk(part)
        places = sorted(waiting.index(part) for part in parts)
        for place in reversed(places):
            del waiting[place]
        waiting.append(members)
        path.append(tuple(places))

    walk(every)
    return tuple(path)
