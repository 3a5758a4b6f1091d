"""Families: statements whose targets are affine, turned round so that elements gather.

    out[2*y+k] = sum a[y] * b[k]

adds to an element as often as positions of y and k lead there. For the elements at even places,
and for those at odd ones, it is an equation that writes each once: every other k, and for each the
one y with which it leads there. There is one family for each remainder that places leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import gcd

from .access import Access
from .affine import Affine
from .inside import ZERO
from .limits import Limit, NotBoxes
from .program import Statement
from .records import dataclass

__all__ = ["Families", "Family", "gathers"]


@dataclass(frozen=True, slots=True)
class Family:
    """A statement whose target's axes are each a multiple of an index of its own.

    `limits` hold besides those of its factors.
    """

    statement: Statement
    sizes: Mapping[str, int]
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class Families:
    """What a statement becomes.

    Attributes:
        members: they write different elements.
        clear: whether they leave elements of the target out.
    """

    members: tuple[Family, ...]
    clear: bool


def gathers(
    statement: Statement, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> Families:
    """The same as statements that write each element of the target once."""
    members = [Family(statement, sizes, ())]
    clear = False
    fixed = {a.names[0] for a in statement.target.subscripts if a.is_index}
    own: set[str] = set()  # indices that an axis before has for its own
    for place, extent in enumerate(shapes[statement.target.tensor]):
        turned: list[Family] = []
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
                    Family(family.statement, family.sizes, (*family.limits, (axis, extent)))
                )
                continue
            pivot = max(free, key=lambda name: family.sizes[name])
            clear |= any(name in used for name in axis.names) and abs(dict(axis.terms)[pivot]) > 1
            turned += _turned(family, axis, extent, pivot, fixed, f"{pivot}'")
        members = turned
        for family in members:
            own.update(family.statement.target.subscripts[place].names)
    return Families(tuple(members), clear)


def _turned(
    family: Family, axis: Affine, extent: int, pivot: str, fixed: set[str], name: str
) -> Iterator[Family]:
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
            yield Family(empty, {**sizes, name: count}, (*family.limits, zero))
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
            yield Family(
                Statement(Access(target.tensor, written), factors),
                inner,
                (*limits, (values[pivot], sizes[pivot])),
            )
