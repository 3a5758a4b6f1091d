"""What kind of program a candidate is, in the words of those who compute norms of gradients."""

from __future__ import annotations

from collections.abc import Mapping

from ..formula import Apply, Contracted, Value
from ..program import Program, Statement

__all__ = ["describe", "gram_swap"]


def describe(program: Program) -> str:
    """`instantiated`, `Gram`, `mixed` or `pairwise`.

    A program is instantiated where an intermediate, or a sum, is multiplied by itself, element by
    element: that intermediate is a gradient of each example, say. It is a Gram form where products
    of a tensor with itself are taken, for all pairs of some index: the "ghost" norm is one of two
    such matrices. Where it is both it is mixed, and else nothing but steps of two factors each.
    """
    made = {statement.target.tensor for statement in program.statements}
    squares = any(map(_squares, program.statements)) or any(
        statement.factors.count(factor) > 1
        for statement in program.statements
        for factor in statement.factors
        if factor.tensor in made
    )
    sizes = program.sizes
    grams = any(gram_swap(statement, sizes) for statement in program.statements)
    if squares:
        return "mixed" if grams else "instantiated"
    return "Gram" if grams else "pairwise"


def gram_swap(statement: Statement, sizes: Mapping[str, int]) -> dict[str, str] | None:
    """The indices that the two factors of a symmetric product exchange; None for other statements.

    >>> from ..resolve import resolve
    >>> from ..subscripts import parse
    >>> from ..program import from_expression
    >>> expression = resolve(parse("nti,nsi->nts"), [(2, 3, 4), (2, 3, 4)])
    >>> gram_swap(from_expression(expression, same=[0, 0]).statements[0], expression.sizes)
    {'t': 's'}
    >>> gram_swap(from_expression(expression).statements[0], expression.sizes)
    """
    if len(statement.factors) != 2:
        return None
    first, second = statement.factors
    if first.tensor != second.tensor or first == second:
        return None
    swap = {}
    for one, other in zip(first.subscripts, second.subscripts, strict=True):
        if one != other:
            if not (one.is_index and other.is_index):
                return None
            swap[one.terms[0][0]] = other.terms[0][0]
    kept = statement.kept if statement.epilogue is None else statement.indices
    if not swap.keys() <= {*kept} or not {*swap.values()} <= {*kept}:
        return None
    if swap.keys() & {*swap.values()}:
        return None
    return swap


def _squares(statement: Statement) -> bool:
    """Whether a statement's epilogue squares its sum."""

    def found(value: Value) -> bool:
        match value:
            case Apply("multiply", (Contracted(), Contracted())):
                return True
            case Apply(_, arguments):
                return any(map(found, arguments))
        return False

    return statement.epilogue is not None and found(statement.epilogue.value)
