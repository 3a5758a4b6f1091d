"""Spread: a long sum into few elements is cut into partial sums.

Where a statement sums so much into so few elements that few threads would have work, or where half
of a symmetric product could be left out if its sums were shorter, it is cut. How many pieces there
are does not depend on the number of threads, nor do the result's bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from .access import Access
from .affine import Affine
from .cost import statement_cost
from .formula import Leaf, Read, Value, replaced
from .machine import Machine
from .program import Epilogue, Program, Statement, Tensor
from .symmetry import gram_swap

__all__ = ["spread"]

_PIECES = 16
"""So many elements of a result, or partial sums of it, keep all threads busy."""

_MOST_KEPT = 4 << 20
"""Bytes of the partial sums of a symmetric product."""

_WORTH_SPREADING = 1e-4
"""Seconds that a statement takes at least if its sum is cut into partial ones."""


def spread(program: Program, element: str, machine: Machine) -> Program:
    """The program with partial sums where a statement sums much into few elements.

    Before::

        out = sum_{n,i,j} square(sum_t b[n,t,i] * a[n,t,j])

    after::

        t0[n] = sum_{i,j} square(sum_t b[n,t,i] * a[n,t,j])
        out = sum_n t0[n]

    An index of both factors makes one partial sum each; else a long one is cut into pieces. So is
    a long sum of the products of a tensor with itself: in pieces that are summed without blocks,
    only half of them is computed (:mod:`.passes.mirror`).
    """
    sizes, names = program.sizes, program.fresh_names()
    types = {tensor.name: tensor.element for tensor in program.tensors}
    statements: list[Statement] = []
    made: list[Tensor] = []
    for statement in program.statements:
        cost = statement_cost(statement, sizes, element, machine)
        outer = None
        if cost.seconds > _WORTH_SPREADING:
            outer = _outer(statement, sizes) or _gram_pieces(statement, sizes, element, machine)
        if outer is None:
            statements.append(statement)
            continue
        part, extents = outer
        sizes |= extents
        target = replace(part.target, tensor=next(names))
        made.append(
            Tensor(
                target.tensor,
                tuple(sizes[i] for i in target.names),
                types.get(statement.target.tensor),
            )
        )
        statements += [replace(part, target=target), Statement(statement.target, (target,))]
    return replace(
        program,
        tensors=(*program.tensors, *made),
        statements=tuple(statements),
        extents=tuple(sizes.items()),
    )


def _outer(
    statement: Statement, sizes: Mapping[str, int]
) -> tuple[Statement, dict[str, int]] | None:
    """A statement that makes partial sums along one more index, and that index's extent."""
    epilogue = statement.epilogue
    if epilogue is None or not epilogue.over or not statement.contracted:
        return None
    if len(statement.factors) != 2:
        return None
    shared = [i for i in epilogue.over if all(i in f.names for f in statement.factors)]
    kept = tuple(statement.target.subscripts)
    if shared:
        over = tuple(i for i in epilogue.over if i not in shared)
        target = Access(statement.target.tensor, (*kept, *map(Affine.index, shared)))
        return replace(statement, target=target, epilogue=replace(epilogue, over=over)), {}
    missing = _PIECES // max(1, _volume(statement.kept, sizes))
    index = max(epilogue.over, key=lambda i: sizes[i])
    extent = sizes[index]
    pieces = [p for p in range(2, 2 * missing + 1) if extent % p == 0 and extent // p >= 32]
    if missing < 2 or not pieces:
        return None
    count = min(pieces, key=lambda p: abs(p - missing))
    part, outer, extents = _cut(statement, index, count, sizes)
    return replace(part, target=replace(part.target, subscripts=(*kept, outer))), extents


def _gram_pieces(
    statement: Statement, sizes: Mapping[str, int], element: str, machine: Machine
) -> tuple[Statement, dict[str, int]] | None:
    """The same for a symmetric product whose sum is too long to leave out half of it.

    Before::

        out[i,j] = sum_k a[k,i] * a[k,j]

    after::

        t0[p,i,j] = sum_q a[2500*p+q,i] * a[2500*p+q,j]
        out[i,j] = sum_p t0[p,i,j]
    """
    is_sum = statement.epilogue is None and bool(statement.contracted)
    if not is_sum or gram_swap(statement) is None:
        return None
    index = max(statement.contracted, key=lambda i: sizes[i])
    others = _volume(statement.contracted, sizes) // sizes[index]
    if others * sizes[index] <= machine.partial_sum:
        return None
    longest = machine.partial_sum // others
    fits = (p for p in range(2, _PIECES + 1) if sizes[index] % p == 0)
    count = next((p for p in fits if sizes[index] // p <= longest), None)
    made = _volume(statement.kept, sizes) * int(element[1:])
    if count is None or count * made > _MOST_KEPT:
        return None
    part, outer, extents = _cut(statement, index, count, sizes)
    target = replace(part.target, subscripts=(outer, *part.target.subscripts))
    part = replace(part, target=target)
    steps = part, Statement(statement.target, (target,))
    every = {**sizes, **extents}
    seconds = sum(statement_cost(s, every, element, machine).seconds for s in steps)
    if seconds >= statement_cost(statement, sizes, element, machine).seconds:
        return None
    return part, extents


def _cut(
    statement: Statement, index: str, count: int, sizes: Mapping[str, int]
) -> tuple[Statement, Affine, dict[str, int]]:
    """A statement on one of so many pieces of an index, the pieces' index, and new extents."""
    fresh = (f"{index}_{k}" for k in range(len(sizes) + 2))
    outer, inner = [name for name in fresh if name not in sizes][:2]
    length = sizes[index] // count

    def access(old: Access) -> Access:
        return Access(old.tensor, tuple(map(cut, old.subscripts)))

    def cut(axis: Affine) -> Affine:
        step = dict(axis.terms).get(index, 0)
        others = (term for term in axis.terms if term[0] != index)
        return Affine((*others, (outer, step * length), (inner, step)), axis.constant)

    def leaf(old: Leaf) -> Value:
        return Read(access(old.access)) if isinstance(old, Read) else old

    epilogue = statement.epilogue
    part = Statement(
        statement.target,
        tuple(map(access, statement.factors)),
        epilogue
        and Epilogue(
            replaced(epilogue.value, leaf),
            tuple(inner if i == index else i for i in epilogue.over),
        ),
    )
    return part, Affine.index(outer), {outer: count, inner: length}


def _volume(indices: Iterable[str], sizes: Mapping[str, int]) -> int:
    return prod(sizes[i] for i in indices)
