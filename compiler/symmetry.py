"""Gram matrices: products of a tensor with itself, for all pairs of some index.

    g[n,t,s] = sum_i b[n,t,i] * b[n,s,i]

is symmetric in `t` and `s`, so that half of it need not be computed (:mod:`.passes.mirror`).
"""

from __future__ import annotations

from collections.abc import Collection

from .access import Access
from .affine import Affine
from .program import Statement

__all__ = ["are_twins", "gram_swap"]


def gram_swap(statement: Statement) -> dict[str, str] | None:
    """The indices that the two factors of a symmetric product exchange; None for other statements.

    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> from .program import from_expression
    >>> expression = resolve(parse("nti,nsi->nts"), [(2, 3, 4), (2, 3, 4)])
    >>> gram_swap(from_expression(expression, same=[0, 0]).statements[0])
    {'t': 's'}
    >>> gram_swap(from_expression(expression).statements[0])
    >>> sizes = [(Affine.index("k"), 3)]
    >>> windows = resolve(parse("n c y+k, n c a+k -> n y a"), [(2, 3, 9)] * 2, sizes)
    >>> gram_swap(from_expression(windows, same=[0, 0]).statements[0])
    {'y': 'a'}
    >>> diagonal = resolve(parse("ii,ji->ij"), [(3, 3)] * 2)  # the exchange makes it jj,ij
    >>> gram_swap(from_expression(diagonal, same=[0, 0]).statements[0])
    """
    if len(statement.factors) != 2:
        return None
    first, second = statement.factors
    if first.tensor != second.tensor or first == second:
        return None
    swap: dict[str, str] = {}
    for one, other in zip(first.subscripts, second.subscripts, strict=True):
        if one != other:
            pairs = _exchanged(one, other)
            if pairs is None or any(swap.get(name, to) != to for name, to in pairs.items()):
                return None
            swap |= pairs
    if not {*statement.contracted}.isdisjoint((*swap, *swap.values())):
        return None
    if swap.keys() & {*swap.values()}:
        return None
    both = [*swap.items(), *((to, name) for name, to in swap.items())]
    exchange = {name: Affine.index(to) for name, to in both}
    alike = first.replaced(exchange) == second and second.replaced(exchange) == first
    return swap if alike else None


def _exchanged(one: Affine, other: Affine) -> dict[str, str] | None:
    """The index of an axis in the place of which another axis has one of its own; None if more."""
    first = [term for term in one.terms if term not in other.terms]
    second = [term for term in other.terms if term not in one.terms]
    if one.constant != other.constant or not len(first) == len(second) == 1:
        return None
    ((name, factor),), ((to, same),) = first, second
    return {name: to} if factor == same else None


def are_twins(statement: Statement, sliced: Collection[str] = ()) -> bool:
    """Whether the two factors are one tensor that all else treats alike.

    Indices that are ``sliced`` begin anywhere: blocks of `t` and of `s` are parts of `b` that have
    nothing to do with each other.

    >>> pairs = ("g", "ts"), ("b", "ti"), ("b", "si")
    >>> g, *factors = (Access(name, tuple(map(Affine.index, axes))) for name, axes in pairs)
    >>> gram = Statement(g, tuple(factors))
    >>> are_twins(gram), are_twins(gram, sliced="i"), are_twins(gram, sliced="ts")
    (True, True, False)
    """
    epilogue = statement.epilogue
    alike = len(statement.factors) == 2 and (epilogue is None or epilogue.symmetric)
    if not alike:
        return False
    first, second = statement.factors
    return _begin_together(first, second, sliced)


def _begin_together(first: Access, second: Access, sliced: Collection[str]) -> bool:
    """Whether two accesses are of one tensor, and at the same place where all indices are zero.

    That is, all but those that are sliced, wherever these are.
    """
    return first.tensor == second.tensor and all(
        _beginning(one, sliced) == _beginning(other, sliced)
        for one, other in zip(first.subscripts, second.subscripts, strict=True)
    )


def _beginning(axis: Affine, sliced: Collection[str]) -> Affine:
    return Affine(tuple(term for term in axis.terms if term[0] in sliced), axis.constant)
