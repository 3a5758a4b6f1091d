"""Gather: cut a sum into an affine axis in two, where boxes cannot turn it round at once.

Before, where the `k` and `m` that meet in an element are no box for any choice of `y`:

    out[2*y+k+m] = a[y] * b[k,m]

after:

    t0[m,2*y+k] = a[y] * b[k,m]
    out[t0.1+m] = t0[m,t0.1]

One index after the other is taken out of the axes, the shortest first, until in each statement at
most one besides the longest is left in an axis, and the longest in none but that: those are what
:mod:`.regions` can turn round. Where it is a factor that is left at two summed positions, the
products come first and the sums then:

    out[y+k] = sum_m a[y+m-1] * b[k,m]      ->      t0[y,k] = sum_m a[y+m-1] * b[k,m]
                                                    out[y+k] = t0[y,k]
"""

from __future__ import annotations

from collections.abc import Mapping

from .access import Access
from .affine import Affine, axis_index
from .program import Statement, bounds
from .records import dataclass

__all__ = ["Cut", "cut"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Two statements in place of one.

    `shape` is that of the tensor between them, `extents` are those of new indices.
    """

    first: Statement
    second: Statement
    shape: tuple[int, ...]
    extents: Mapping[str, int]


def cut(
    statement: Statement, name: str, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> Cut | None:
    """A statement with an affine target as two; None if there is no way to make it simpler.

    Args:
        statement: without an epilogue.
        name: of the tensor between the two.
        shape: of the target's tensor.
        sizes: the extents of the statement's indices.

    >>> y, k, m = map(Affine.index, "ykm")
    >>> target = Access("out", (Affine((("y", 2), ("k", 1), ("m", 1))),))
    >>> scattered = Statement(target, (Access("a", (y,)), Access("b", (k, m))))
    >>> found = cut(scattered, "t0", (12,), {"y": 4, "k": 3, "m": 2})
    >>> print(found.first, found.second, found.shape, sep=chr(10))
    t0[m,2*y+k] = a[y] * b[k,m]
    out[m+t0.1] = t0[m,t0.1]
    (2, 9)
    """
    axes = statement.target.subscripts
    fixed = {axis.names[0] for axis in axes if axis.is_index}
    moving = [{*axis.names} - fixed for axis in axes]
    many = [names for names in moving if len(names) > 2]
    is_copy = len(statement.factors) == 1 and statement.factors[0].is_plain
    if many or is_copy:
        free = sorted({name for names in many or moving for name in names})
        if not free:
            return None
        index = min(free, key=lambda name: sizes[name])
        return _without(statement, index, name, shape, sizes)
    between = Access(name, tuple(map(Affine.index, statement.target.names)))
    return Cut(
        Statement(between, statement.factors),
        Statement(statement.target, (between,)),
        tuple(sizes[index] for index in statement.target.names),
        {},
    )


def _without(
    statement: Statement, index: str, name: str, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> Cut:
    """Cut so that the target's axes are summed without one of their indices first."""
    own = Affine.index(index)
    axes: list[Affine] = [own]
    target: list[Affine] = []
    extents: list[int] = []
    between: list[Affine] = [own]
    for number, (axis, there) in enumerate(zip(statement.target.subscripts, shape, strict=True), 1):
        step = dict(axis.terms).get(index)
        new = Affine.index(axis_index(name, number))
        if axis.is_index and axis not in between:  # it keeps its name, so that slices cut it
            axes.append(axis)
            between.append(axis)
            target.append(axis)
            extents.append(there)
        elif step is None:
            axes.append(axis)
            between.append(new)
            target.append(new)
            extents.append(there)
        else:
            rest = Affine(tuple(term for term in axis.terms if term[0] != index))
            low, high = bounds(rest, sizes)
            axes.append(rest.plus(-low))
            between.append(new)
            target.append(Affine((*new.terms, (index, step)), axis.constant + low))
            extents.append(high - low + 1)
    made = zip(between[1:], extents, strict=True)
    return Cut(
        Statement(Access(name, tuple(axes)), statement.factors),
        Statement(Access(statement.target.tensor, tuple(target)), (Access(name, tuple(between)),)),
        (sizes[index], *extents),
        {each.names[0]: extent for each, extent in made if each.names[0] not in sizes},
    )
