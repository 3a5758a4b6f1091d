"""Inline: put the product that makes an intermediate in the place of the intermediate.

Before:

    t0[n,i,j] = sum_t b[n,t,i] * a[n,t,j]
    out[n] = sum_{i,j} t0[n,i,j] * t0[n,i,j]

After inlining `t0`, with a name of its own for the summed index of every copy:

    out[n] = sum_{t,i,j,u} b[n,t,i] * a[n,t,j] * b[n,u,i] * a[n,u,j]

Of a sum of squares what is left when it is inlined, such as a sum over pairs, may come out slightly
below zero by rounding. So its statement says that it is not, by an epilogue: `maximum(sum, 0)`.
Factors beside the squares that have no summed index are weights, and go to the epilogue as well:
`maximum(sum, 0) * w[n]`, since of what sign these are nobody knows.

Then the factorizer has all ways of contracting these factors to choose from, that of the program
before among them. It is done for statements without an epilogue, whose target is no result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count

from ..access import Access
from ..affine import Affine
from ..formula import CONTRACTED, Apply, Constant, Read, Value, replaced
from ..program import Epilogue, Program, Statement
from ..records import replace
from .common import without_unused

__all__ = ["inlinable", "inlined"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def inlinable(program: Program) -> list[str]:
    """The intermediates that may be inlined everywhere: plain products, read as factors alone.

    And read inside of them: what a factor reads outside is zero, which their factors need not be.

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
    shapes, sizes = program.shapes, program.sizes
    for statement in program.statements:
        for place, access in enumerate(statement.accesses):
            plain = all(axis.is_index for axis in access.subscripts)
            inside = plain and access.ends_within(shapes.get(access.tensor, ()), sizes)
            if not inside or place >= len(statement.factors):
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
    squares: dict[str, tuple[Access, ...]] = {}  # of what was inlined, sums of squares: weights
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
        weights: tuple[Access, ...] | None = None
        if len(statement.factors) == 1 and statement.factors[0].tensor in squares:
            (factor,) = statement.factors
            axes = dict(zip(bodies[factor.tensor].kept, factor.subscripts, strict=True))
            weights = tuple(each.replaced(axes) for each in squares[factor.tensor])
        elif real and len(factors) > len(statement.factors):
            weights = _beside_squares(statement, bodies)
        statement = replace(statement, factors=tuple(factors))
        if weights is not None and _are_apart(weights, statement):
            if statement.epilogue is None and statement.target.tensor in names:
                squares[statement.target.tensor] = weights
            else:
                statement = _guarded(statement, weights)
        if statement.target.tensor in names:
            bodies[statement.target.tensor] = statement
        else:
            statements.append(statement)
    program = replace(program, extents=tuple(extents.items()))
    return without_unused(program.with_statements(statements))


_NOT_NEGATIVE: Value = Apply("maximum", (CONTRACTED, Constant(0)))


def _guarded(statement: Statement, weights: Sequence[Access]) -> Statement:
    """The statement with a sum of products that is not negative, times weights of any sign."""
    factors = [*statement.factors]
    value = _NOT_NEGATIVE
    for weight in weights:
        factors.remove(weight)
        value = Apply("multiply", (value, Read(weight)))
    epilogue = statement.epilogue or Epilogue(CONTRACTED)
    whole = replaced(epilogue.value, lambda leaf: value if leaf == CONTRACTED else leaf)
    return replace(statement, factors=tuple(factors), epilogue=replace(epilogue, value=whole))


def _beside_squares(
    statement: Statement, bodies: Mapping[str, Statement]
) -> tuple[Access, ...] | None:
    """What a sum of squares is multiplied by, as it is written; None if it is no such sum."""
    pairs = Counter(statement.factors)
    odd = tuple(factor for factor, number in pairs.items() if number % 2)
    if statement.epilogue is not None or not statement.target.is_plain:
        return None
    if len(odd) == len(pairs) or any(factor.tensor in bodies for factor in odd):
        return None
    return odd


def _are_apart(weights: Sequence[Access], statement: Statement) -> bool:
    """Whether nothing is summed over an index of a weight, and no index is a weight's alone."""
    if not weights:
        return True
    rest = Counter(statement.factors) - Counter(weights)
    named = {name for factor in rest for name in factor.names}
    return {*statement.kept} <= named and all(
        {*weight.names} <= {*statement.kept} for weight in weights
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
