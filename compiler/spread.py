"""Spread: a sum of much into few elements becomes partial sums, and the sum of these.

Before::

    out = sum_{n,i,j} square(sum_t b[n,t,i] * a[n,t,j])         an epilogue's values are summed
    out[i,j] = sum_k a[i,k] * b[j,k]                            k is long, i and j are short

after::

    t0[n] = sum_{i,j} square(sum_t b[n,t,i] * a[n,t,j])
    out = sum_n t0[n]

    t1[p,i,j] = sum_q a[i,1000*p+q] * b[j,1000*p+q]
    out[i,j] = sum_p t1[p,i,j]

So there is work for several threads. How many parts there are depends on extents alone, and so do
the result's bits. Parts of a half-precision sum are kept in f4 for as long as they are parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from .access import Access
from .affine import Affine
from .cost import statement_cost
from .machine import Machine
from .program import Epilogue, Program, Statement, Tensor
from .records import replace

if TYPE_CHECKING:
    from .formula import Leaf, Value

__all__ = ["PIECES", "in_registers", "spread"]

PIECES = 16
"""So many elements of a result, or partial sums of it, keep all threads busy."""

_WORTH_SPREADING = 1e-4
"""Seconds that a statement takes at least if its sum is cut into partial ones."""

_LENGTH = 1024
"""Products that a part of a sum has at least: to add it to the others must cost little."""

_MOST_PARTS = 1 << 18
"""Elements that all parts of a sum have at most, which is 1 MiB in f4."""

_LONGEST_HALF = 1 << 16
"""Products of a sum in half precision that are added up in one go, if there are few outputs."""

_LINE = 16
"""Elements of a cache line in f4: parts of so many use whole lines where they are neighbours."""

_RUN = 64
"""Neighbours in memory that a cut leaves together at least, where an operand has any."""

_ALONE = 192
"""Positions along an output's side that are work for a thread of its own."""


def in_registers(
    program: Program, element: str, machine: Machine, *, uneven: bool = True
) -> Program:
    """The program hoisted, merged and spread: what is done to all steps once they are known.

    Args:
        program: steps, of which intermediates of the type `element` have none of their own.
        element: type of the elements, such as ``f4``.
        machine: what the costs are for.
        uneven: whether the last part of a sum may be shorter than the others.
    """
    if len(program.statements) > 1:  # one alone has nothing to be merged with
        from .hoist import hoisted
        from .merge import merged

        program = merged(hoisted(program), element, machine)
    return spread(program, element, machine, uneven=uneven)


def spread(program: Program, element: str, machine: Machine, *, uneven: bool = True) -> Program:
    """The program with partial sums where a statement sums much into few elements.

    An index of both factors makes one partial sum each; else a long one is cut into pieces.

    Args:
        program: steps, of which intermediates of the type `element` have none of their own.
        element: type of the elements, such as ``f4``.
        machine: what the costs are for.
        uneven: whether the last part of a sum may be shorter than the others.
    """
    sizes, names = program.sizes, program.fresh_names()
    types = {tensor.name: tensor.element for tensor in program.tensors}
    statements: list[Statement] = []
    made: list[Tensor] = []
    for statement in program.statements:
        cost = statement_cost(statement, sizes, element, machine)
        half = (types.get(statement.target.tensor) or element) == "f2"
        outer = None
        if cost.seconds > _WORTH_SPREADING:
            outer = _outer(statement, sizes, half, uneven)
        if outer is None:
            statements.append(statement)
            continue
        part, extents = outer
        sizes |= extents
        target = replace(part.target, tensor=next(names))
        kind = types.get(statement.target.tensor)
        shape = tuple(sizes[i] for i in target.names)
        made.append(Tensor(target.tensor, shape, None if kind == "f2" else kind))
        statements += [replace(part, target=target), Statement(statement.target, (target,))]
    return replace(
        program,
        tensors=(*program.tensors, *made),
        statements=tuple(statements),
        extents=tuple(sizes.items()),
    )


_Part = tuple[Statement, dict[str, int]]  # with one more kept index, and the extents of new ones


def _outer(
    statement: Statement, sizes: Mapping[str, int], half: bool, uneven: bool
) -> _Part | None:
    """A statement that makes partial sums along one more index, and extents of new indices."""
    if not statement.contracted or len(statement.factors) > 2:
        return None
    epilogue = statement.epilogue
    if epilogue is None:
        return _long_sum(statement, sizes, half, uneven)
    if not epilogue.over or len(statement.factors) != 2 or epilogue.symmetric:
        return None  # half of a symmetric matrix would be cut to what is none
    missing = PIECES // max(1, prod(sizes[i] for i in statement.kept))
    if missing < 2:
        return None
    shared = [i for i in epilogue.over if all(i in f.names for f in statement.factors)]
    if shared:
        over = tuple(i for i in epilogue.over if i not in shared)
        target = _parts(statement.target, *shared)
        return replace(statement, target=target, epilogue=replace(epilogue, over=over)), {}
    index = max(epilogue.over, key=lambda i: sizes[i])
    return _cut(statement, sizes, index, missing, 2 * missing, 32)


def _long_sum(
    statement: Statement, sizes: Mapping[str, int], half: bool, uneven: bool
) -> _Part | None:
    """The parts of a long sum of products whose outputs give work to few threads.

    A sum in half precision is made in one go, with panels as long as it: a long one is cut in any
    case, so that they fit.
    """
    accesses = (statement.target, *statement.factors)
    if len(statement.factors) != 2 or not all(access.is_plain for access in accesses):
        return None
    outputs = prod(sizes[i] for i in statement.kept)
    length = prod(sizes[i] for i in statement.contracted)
    alone = 1  # so many threads have work of their own
    left, right = (factor.names for factor in statement.factors)
    for side in (left, right):
        extent = prod(
            sizes[i] for i in statement.kept if i in side and not (i in left and i in right)
        )
        alone *= max(1, extent // _ALONE)
    alone *= prod(sizes[i] for i in statement.kept if i in left and i in right)
    too_long = half and length > _LONGEST_HALF
    room = _MOST_PARTS * (PIECES if too_long else 1)
    most = min(room // max(outputs, 1), length // _LENGTH, 4 * PIECES)
    if (alone * 2 >= PIECES or most < 4) and not (too_long and most > 1):
        return None
    # The outermost index: a part is then a piece of memory of its own.
    for index in sorted(statement.contracted, key=lambda i: _place(statement, i)):
        near = any(index in f.subscripts[-1].names for f in statement.factors if f.subscripts)
        whole = sizes[index] <= min(most, 2 * PIECES) and 2 * sizes[index] > min(most, PIECES)
        if whole and not near:
            return replace(statement, target=_parts(statement.target, index)), {}
        least = _RUN if near else 1
        found = _cut(statement, sizes, index, min(most, PIECES), most, least, uneven=uneven)
        if found is not None:
            return found
    return None


def _place(statement: Statement, index: str) -> int:
    """How far inside an index is, in all factors."""
    return sum(
        place
        for factor in statement.factors
        for place, axis in enumerate(factor.subscripts)
        if index in axis.names
    )


def _cut(
    statement: Statement,
    sizes: Mapping[str, int],
    index: str,
    wanted: int,
    most: int,
    least: int,
    *,
    uneven: bool = False,
) -> _Part | None:
    """The statement with a summed index in two, of which the outer one is kept.

    There are about so many parts as are ``wanted``, of ``least`` positions or more. They are all
    alike, but if ``uneven`` for the last one, where nothing near that number divides the index: it
    reads beyond the end, where all is zero, and :mod:`.regions` cuts it there.
    """
    extent = sizes[index]
    pieces = [p for p in range(2, most + 1) if extent % p == 0 and extent // p >= least]
    if wanted < 2:
        return None
    near = [p for p in pieces if wanted <= 2 * p and extent // p % _LINE == 0]
    count = min(near or pieces, key=lambda p: abs(p - wanted), default=1)
    length = extent // count
    if uneven and wanted > 2 * count:
        # The last part is shorter: what it would read behind the end counts as zero.
        shorter = -(-extent // wanted // _LINE) * _LINE
        if shorter >= _LENGTH:
            count, length = -(-extent // shorter), shorter
    if count < 2 or length < least:
        return None
    fresh = (f"{index}_{k}" for k in range(len(sizes) + 2))
    outer, inner = [name for name in fresh if name not in sizes][:2]

    def access(old: Access) -> Access:
        return Access(old.tensor, tuple(map(cut, old.subscripts)))

    def cut(axis: Affine) -> Affine:
        step = dict(axis.terms).get(index, 0)
        others = (term for term in axis.terms if term[0] != index)
        return Affine((*others, (outer, step * length), (inner, step)), axis.constant)

    epilogue = statement.epilogue
    if epilogue is not None:
        from .formula import Read, replaced

        def leaf(old: Leaf) -> Value:
            return Read(access(old.access)) if isinstance(old, Read) else old

        over = tuple(inner if i == index else i for i in epilogue.over)
        epilogue = Epilogue(replaced(epilogue.value, leaf), over)
    factors = tuple(map(access, statement.factors))
    target = _parts(statement.target, outer)
    return Statement(target, factors, epilogue), {outer: count, inner: length}


def _parts(target: Access, *indices: str) -> Access:
    """A target with more axes, outermost: each part of the sums is a piece of memory of its own."""
    return Access(target.tensor, (*map(Affine.index, indices), *target.subscripts))
