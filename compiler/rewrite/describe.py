"""What kind of program a candidate is, in the words of those who compute norms of gradients."""

from __future__ import annotations

from ..formula import Apply, Contracted, Value
from ..program import Program, Statement
from ..symmetry import gram_swap

__all__ = ["describe"]


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
    grams = any(map(gram_swap, program.statements))
    if squares:
        return "mixed" if grams else "instantiated"
    return "Gram" if grams else "pairwise"


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
