"""Relayout: copy a small operand into the order in which a step reads it.

Before, with ``b`` small and its ``k`` strided, in a step that runs along ``k``::

    out[i] = sum_jk a[i,j,k] * b[k,j]

after::

    t0[j,k] = b[k,j]
    out[i] = sum_jk a[i,j,k] * t0[j,k]

Reading ``b`` element by element would cost more than all the rest, and its copy stays in cache.
The same is done where single elements are read whose neighbours come in later rounds of the outer
loops, when their cache lines are gone: ``b[k,j,i]`` in ``out[i,k,l] = sum_j a[i,j,l] * b[k,j,i]``.
Steps that pack their operands (:mod:`.choose`) need no copy and get none, nor do operands that
would not stay in the last cache.
"""

from __future__ import annotations

from collections.abc import Callable

from .affine import Affine
from .anonymous import form_of
from .choose.choice import Choice
from .geometry import Geometry
from .machine import Machine
from .program import Access, Program, Statement
from .records import replace


def relayout(
    program: Program, geometry: Callable[[Statement], Geometry], machine: Machine
) -> Program:
    """The program with copies of the operands that its steps would read badly.

    ``geometry`` gives a statement's sizes and strides.
    """
    names = program.fresh_names()
    statements: list[Statement] = []
    for statement in program.statements:
        form = form_of(geometry(statement), machine)
        if form.numbered_choice.schedule.recipe != "streamed":
            statements.append(statement)
            continue
        from .choose.gathered import badly_read

        factors = list(statement.factors)
        for place in badly_read(form.numbered_step, form.numbered_choice, machine):
            axes = _order(factors[place], form.step, form.choice)
            if axes is not None:
                copy = Access(next(names), axes)
                statements.append(Statement(copy, (factors[place],)))
                factors[place] = copy
        statements.append(replace(statement, factors=tuple(factors)))
    return program.with_statements(statements)


def _order(access: Access, step: Geometry, choice: Choice) -> tuple[Affine, ...] | None:
    """The access's indices in the step's order, the lanes last; None if they are not plain.

    First come those that the step does not have, being one position long. They are axes too: a
    piece of a sliced program has one position of an index that the program has more of.
    """
    if not all(axis.is_index or not axis.names for axis in access.subscripts):
        return None
    order = [i for index in step.extents for i in step.merged.get(index, (index,))]
    lanes = [i for index in choice.members["v"] for i in step.merged.get(index, (index,))]
    names = [i for i in order if i in access.names and i not in lanes]
    unit = [i for i in dict.fromkeys(access.names) if i not in order]
    return tuple(Affine.index(i) for i in (*unit, *names, *(i for i in lanes if i in access.names)))
