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

from collections.abc import Callable, Iterator

from .affine import Affine
from .anonymous import form_of
from .choose import LINE, WORTH_COPYING, Choice, is_held, is_small
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
        if (badly and not is_held(choice, place)) or _is_scattered(step, choice, place, machine):
            yield place


def _is_scattered(step: Geometry, choice: Choice, place: int, machine: Machine) -> bool:
    """Whether a factor's elements are read one by one, each from a line that is gone by the time
    that the outer loops come to its neighbours; and often enough that a copy pays.
    """
    strides, outer = step.strides[place], choice.members.get("o", ())
    inner = [i for i in strides if i not in outer]
    alone = not any(i in inner for i in choice.members["v"])
    alone = alone and all(abs(strides[i]) * int(step.elements[place][1:]) >= LINE for i in inner)
    near = any(strides[i] == 1 for i in strides if i in outer)
    size = step.volume(tuple(strides)) * int(step.elements[place][1:])
    fits = size <= machine.l3_bytes // 4
    used = step.volume(tuple(step.extents)) // step.volume(tuple(strides))
    gone = step.volume(inner) * LINE > machine.l1_bytes
    return alone and near and gone and fits and used >= WORTH_COPYING


def _order(access: Access, step: Geometry, choice: Choice) -> tuple[Affine, ...] | None:
    """The access's indices in the step's order, the lanes last; None if they are not plain."""
    if not all(axis.is_index or not axis.names for axis in access.subscripts):
        return None
    order = [i for index in step.extents for i in step.merged.get(index, (index,))]
    lanes = [i for index in choice.members["v"] for i in step.merged.get(index, (index,))]
    names = [i for i in order if i in access.names and i not in lanes]
    return tuple(Affine.index(i) for i in (*names, *(i for i in lanes if i in access.names)))
