"""Rewrites of an equation that come before its factorization: `PASSES`, in order.

They take a program of one statement and keep that statement last, with its factors at the places
that they had, so that a contraction path still means the same. A diagonal such as `a[i,i]` needs no
rewrite: a kernel walks it with the sum of the strides.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from .affine import Affine
from .cost import statement_cost
from .machine import Machine
from .program import Access, Program, Statement

__all__ = ["PASSES", "simplify", "sum_lonely_indices"]


def simplify(program: Program, machine: Machine, element: str) -> Program:
    """Run every pass on a program of one statement.

    Args:
        program: an equation.
        machine: what the costs are for.
        element: type of all elements, such as ``f4``.
    """
    for rewrite in PASSES:
        program = rewrite(program, machine, element)
    return program


def sum_lonely_indices(program: Program, machine: Machine, element: str) -> Program:
    """Sum what only one factor depends on before that factor is multiplied, if it is cheaper.

    Before:

        out[k] = sum_{i,j} a[i,j] * b[j,k]

    After:

        t0[j] = sum_i a[i,j]
        out[k] = sum_j t0[j] * b[j,k]
    """
    *sums, statement = program.statements
    uses = Counter(index for factor in statement.factors for index in factor.names)
    reduced, extents, fresh = {*statement.reduced}, program.sizes, program.fresh_names()
    name = next(fresh)
    cost = statement_cost(statement, extents, element, machine)
    for place, factor in enumerate(statement.factors):
        lonely = {index for index in factor.names if index in reduced and uses[index] == 1}
        if not lonely or len(statement.factors) == 1:
            continue
        kept = (Affine.index(index) for index in factor.names if index not in lonely)
        partial = Statement(Access(name, tuple(kept)), (factor,))
        factors = list(statement.factors)
        factors[place] = partial.target
        rest = replace(statement, factors=tuple(factors))
        rest_cost = statement_cost(rest, extents, element, machine)
        partial_cost = statement_cost(partial, extents, element, machine)
        if (partial_cost + rest_cost).seconds < cost.seconds:
            sums.append(partial)
            statement, cost, name = rest, rest_cost, next(fresh)
    return program.with_statements([*sums, statement])


PASSES: tuple[Callable[[Program, Machine, str], Program], ...] = (sum_lonely_indices,)
