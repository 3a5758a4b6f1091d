"""Stage: collect a block of the output in scratch, and write it from there in whole cache lines.

Before (``v`` are the rows of a block and ``w`` its columns, neighbours in the output)::

    for w_block: for v_block:
        for w_tile: for v_tile:
            for v: for w: out[v, w] = x0[v, w]

after::

    for w_block: for v_block:
        for w_tile from LEAD earlier: for v_tile:
            for v: for w: out_stage[v - v_block, w - w_block] = x0[v, w]
        run v: run w: out[v, w] = out_stage[v - v_block, w - w_block]

The register tiles of a transposition would write short pieces of many distant cache lines. Each of
them would first be read from memory, and most be written to it half finished. Once a whole line is
in scratch, it can be written without being read. Where a line belongs to two blocks, the later one
writes all of it: it computes the last ``LEAD`` positions of the one before again.
"""

from __future__ import annotations

from ..loopnest import (
    Assign,
    Buffer,
    Kind,
    Loop,
    Nest,
    Ref,
    Scope,
    Statement,
    Term,
    at,
    nested,
    walk,
)
from ..records import replace
from ..schedule import Schedule, Stage

BUFFER = "out_stage"


def stage(nest: Nest, schedule: Schedule) -> Nest:
    """Carry out the stage of a schedule that has one."""
    if schedule.stage is None:
        return nest
    job = schedule.stage
    (store,) = (s for s in walk(nest.body) if isinstance(s, Assign))
    slot = Ref(BUFFER, tuple(_terms(nest, schedule, job)))
    copy = nested(_runs(nest, schedule, job), (Assign(store.target, (slot,)),))
    size = ("PITCH",) if job.rows is None else (_block(schedule, job.rows)[1], "PITCH")
    buffer = Buffer(BUFFER, nest.output.element, Scope.SCRATCH, size)
    body = tuple(_rewrite(s, schedule, job, slot, copy) for s in nest.body)
    return replace(nest, body=body, buffers=(*nest.buffers, buffer))


def _terms(nest: Nest, schedule: Schedule, job: Stage) -> list[Term]:
    """The place of an element in the buffer."""
    terms = []
    if job.rows is not None:
        terms.append(Term(at(job.rows, f"-{_block(schedule, job.rows)[0]}"), "PITCH"))
    for number, group in enumerate(job.run):
        names = [group]
        if number == 0:
            names += [f"-{_block(schedule, group)[0]}", "LEAD"]
        inner = job.run[number + 1 :]
        terms.append(Term(at(*names), nest.group(inner[0]).extent if inner else 1))
    return terms


def _runs(nest: Nest, schedule: Schedule, job: Stage) -> list[Loop]:
    """The loops that write a block."""
    loops = []
    for group in (*filter(None, (job.rows,)), *job.run):
        stop = at(nest.group(group).extent)
        if group == job.rows or group == job.run[0]:
            block, step = _block(schedule, group)
            loops.append(Loop(group, at(block), (at(block, str(step)), stop), 1, Kind.RUN, ()))
        else:
            loops.append(Loop(group, at(), (stop,), 1, Kind.RUN, ()))
    return loops


def _rewrite(
    statement: Statement, schedule: Schedule, job: Stage, slot: Ref, copy: tuple[Statement, ...]
) -> Statement:
    """Write ``slot`` instead of the output, and ``copy`` last in the loop ``job.inside``."""
    if isinstance(statement, Assign):
        return replace(statement, target=slot)
    if not isinstance(statement, Loop):
        return statement
    body = tuple(_rewrite(s, schedule, job, slot, copy) for s in statement.body)
    if statement.index == job.inside:
        body = (*body, *copy)
    first = schedule.group_of(statement.index) == job.run[0]
    inside = schedule.outer.index(job.inside) < _depth(schedule, statement.index)
    lead = "LEAD" if first and inside and statement.kind is Kind.SERIAL else None
    return replace(statement, body=body, lead=lead)


def _depth(schedule: Schedule, index: str) -> int:
    """How many loops are around one; those of the register tile count as innermost."""
    return schedule.outer.index(index) if index in schedule.outer else len(schedule.outer)


def _block(schedule: Schedule, group: str) -> tuple[str, int | str]:
    """The loop over blocks of a group, and its step."""
    return next((s.index, s.step) for s in schedule.split_of(group) if s.suffix == "block")
