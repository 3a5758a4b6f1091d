"""Inline: put the product that makes an intermediate in the place of the intermediate.

Before:

    t0[n,i,j] = sum_t b[n,t,i] * a[n,t,j]
    out[n] = sum_{i,j} t0[n,i,j] * t0[n,i,j]

After inlining `t0`, with a name of its own for the summed index of every copy:

    out[n] = sum_{t,i,j,u} b[n,t,i] * a[n,t,j] * b[n,u,i] * a[n,u,j]

Of a sum of squares what is left when it is inlined, such as a sum over pairs, may come out slightly
below zero by rounding. So its statement says that it is not, by an epilogue: `maximum(sum, 0)`.

Then the factorizer has all ways of contracting these factors to choose from, that of the program
before among them. It is done for statements without an epilogue, whose target is no result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import count

from ..access import Access
from ..affine import Affine
from ..formula import CONTRACTED, Apply, Constant, replaced
from ..program import Epilogue, Program, Statement
from ..records import replace
from .common import without_unused

__all__ = ["inlinable", "inlined"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def inlinable(program: Program) -> list[str]:
    """The intermediates that may be inlined everywhere: plain products, read as factors alone.

    >>> from ..resolve import resolve
    >>> from ..subscripts import parse
    >>> from ..program import from_expression
    >>> program = from_expression(resolve(parse("ij,jk,kl->il"), [(2, 2)] * 3))
    >>> from ..follow import follow
    >>> inlinable(program), inlinable(follow(program, ((0, 1), (0, 1))))
    ([], ['t0'])
    """
    names = {
        statement.target.tensor: None
        for statement in program.statements
        if statement.epilogue is None
        and statement.target.is_plain
        and statement.target.tensor not in program.results
    }
    elements = {tensor.name for tensor in program.tensors if tensor.element}
    for statement in program.statements:
        for place, access in enumerate(statement.accesses):
            plain = all(axis.is_index for axis in access.subscripts)
            if not plain or place >= len(statement.factors):
                names.pop(access.tensor, None)
    return [name for name in names if name not in elements]


def inlined(program: Program, names: Collection[str], real: bool = False) -> Program:
    """The program without some of its intermediates.

    Args:
        program: any program.
        names: some of what `inlinable` lists.
        real: whether it computes with real floating-point numbers, whose squares are not negative.

    >>> from ..follow import follow
    >>> from ..resolve import resolve
    >>> from ..subscripts import parse
    >>> from ..program import from_expression
    >>> program = from_expression(resolve(parse("ij,jk,kl->il"), [(2, 2)] * 3))
    >>> print(inlined(follow(program, ((0, 1), (0, 1))), ["t0"]))
    out[i,l] = sum_{j,k} a[i,j] * b[j,k] * c[k,l]
    """
    bodies: dict[str, Statement] = {}
    not_negative: set[str] = set()  # of what was inlined, sums of squares
    extents = program.sizes
    statements = []
    for statement in program.statements:
        factors: list[Access] = []
        taken = {*statement.indices}
        for factor in statement.factors:
            if factor.tensor in bodies:
                factors += _copy(bodies[factor.tensor], factor, taken, extents)
            else:
                factors.append(factor)
        known = [factor.tensor for factor in statement.factors]
        squares = real and _is_of_squares(statement) and len(factors) > len(known)
        squares = squares or (len(known) == 1 and known[0] in not_negative)
        statement = replace(statement, factors=tuple(factors))
        if squares and statement.epilogue is None and statement.target.tensor in names:
            not_negative.add(statement.target.tensor)
        elif squares:
            statement = _guarded(statement)
        if statement.target.tensor in names:
            bodies[statement.target.tensor] = statement
        else:
            statements.append(statement)
    program = replace(program, extents=tuple(extents.items()))
    return without_unused(program.with_statements(statements))


_NOT_NEGATIVE = Apply("maximum", (CONTRACTED, Constant(0)))


def _guarded(statement: Statement) -> Statement:
    """The statement with a sum of products that is not negative, whatever becomes of it."""
    epilogue = statement.epilogue or Epilogue(CONTRACTED)
    value = replaced(epilogue.value, lambda leaf: _NOT_NEGATIVE if leaf == CONTRACTED else leaf)
    return replace(statement, epilogue=replace(epilogue, value=value))


def _is_of_squares(statement: Statement) -> bool:
    """Whether a statement is a sum of squares as it is written, and of nothing else."""
    pairs = Counter(statement.factors).values()
    return (
        statement.epilogue is None
        and statement.target.is_plain
        and all(number % 2 == 0 for number in pairs)
    )


def _copy(
    body: Statement, read: Access, taken: set[str], extents: dict[str, int]
) -> Iterator[Access]:
    """The factors of a product, where it is read; summed indices get names that are not taken.

    What is made up is added to `taken` and to `extents`.
    """
    axes = dict(zip(body.kept, read.subscripts, strict=True))
    for index in body.reduced:
        name = index
        if index in taken:
            name = next(
                name for name in _others(index) if name not in taken and name not in extents
            )
        taken.add(name)
        extents[name] = extents[index]
        axes[index] = Affine.index(name)
    for factor in body.factors:
        yield factor.replaced(axes)


def _others(index: str) -> Iterator[str]:
    """Other names for an index: the letters after it, or else numbers behind it."""
    if index in _LETTERS:
        yield from _LETTERS[_LETTERS.index(index) + 1 :]
    yield from map(f"{index}{{}}".format, count())
