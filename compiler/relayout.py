"""Relayout: copy a small operand into the order in which a step reads it.

Before, with ``b`` small and its ``k`` strided, in a step that runs along ``k``::

    out[i] = sum_jk a[i,j,k] * b[k,j]

after::

    t0[j,k] = b[k,j]
    out[i] = sum_jk a[i,j,k] * t0[j,k]

Reading ``b`` element by element would cost more than all the rest, and its copy stays in cache.
Steps that pack their operands (:mod:`.choose`) need no copy and get none, nor do large operands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .affine import Affine
from .anonymous import form_of
from .choose import Choice, is_held, is_small
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
        factors = list(statement.factors)
        for place in _badly_read(form.numbered_step, form.numbered_choice, machine):
            axes = _order(factors[place], form.step, form.choice)
            if axes is not None:
                copy = Access(next(names), axes)
                statements.append(Statement(copy, (factors[place],)))
                factors[place] = copy
        statements.append(replace(statement, factors=tuple(factors)))
    return program.with_statements(statements)


def _badly_read(step: Geometry, choice: Choice, machine: Machine) -> Iterator[int]:
    """The factors that a streamed step would gather element by element, many times each."""
    schedule = choice.schedule
    lanes = choice.members.get("v", ())
    if schedule.recipe != "streamed" or not lanes:
        return
    for place, strides in enumerate(step.strides[: step.factors]):
        badly = strides.get(lanes[-1], 0) not in (0, 1) and is_small(step, place, machine)
        if badly and not is_held(choice, place):
            yield place


def _order(access: Access, step: Geometry, choice: Choice) -> tuple[Affine, ...] | None:
    """The access's indices in the step's order, the lanes last; None if they are not plain."""
    if not all(axis.is_index or not axis.names for axis in access.subscripts):
        return None
    order = [i for index in step.extents for i in step.merged.get(index, (index,))]
    lanes = [i for index in choice.members["v"] for i in step.merged.get(index, (index,))]
    names = [i for i in order if i in access.names and i not in lanes]
    return tuple(Affine.index(i) for i in (*names, *(i for i in lanes if i in access.names)))
