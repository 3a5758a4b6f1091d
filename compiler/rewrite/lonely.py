"""Sum what only one factor depends on before that factor is multiplied, if it is cheaper.

Before:

    out[k] = sum_{i,j} a[i,j] * b[j,k]

After:

    t0[j] = sum_i a[i,j]
    out[k] = sum_j t0[j] * b[j,k]
"""

from __future__ import annotations

from collections import Counter

from ..access import Access
from ..affine import Affine
from ..cost import statement_cost
from ..machine import Machine
from ..program import Program, Statement
from ..records import replace
from .common import equal, replaced

__all__ = ["sum_lonely_indices"]


def sum_lonely_indices(program: Program, machine: Machine, element: str) -> Program:
    """Rewrite the last statement; its factors keep their places. Equal sums are one."""
    *sums, statement = program.statements
    uses = Counter(index for factor in statement.factors for index in factor.names)
    reduced, extents, fresh = {*statement.contracted}, program.sizes, program.fresh_names()
    name = next(fresh)
    cost = statement_cost(statement, extents, element, machine)
    for place, factor in enumerate(statement.factors):
        lonely = {index for index in factor.names if index in reduced and uses[index] == 1}
        if not lonely or len(statement.factors) == 1:
            continue
        kept = (Affine.index(index) for index in factor.names if index not in lonely)
        partial = Statement(Access(name, tuple(kept)), (factor,))
        there = next((e for e in (equal(s, partial, extents) for s in sums) if e), None)
        factors = list(statement.factors)
        factors[place] = replaced(partial.target, {name: there}) if there else partial.target
        rest = replace(statement, factors=tuple(factors))
        seconds = statement_cost(rest, extents, element, machine).seconds
        if there is None:
            seconds += statement_cost(partial, extents, element, machine).seconds
        if seconds < cost.seconds:
            statement, cost = rest, statement_cost(rest, extents, element, machine)
            if there is None:
                sums.append(partial)
                name = next(fresh)
    return program.with_statements([*sums, statement])
