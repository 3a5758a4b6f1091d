"""Frame: hold a block of an image in scratch, with zeros around, and write sums from there in rows.

Before (``n`` are flat positions, see :mod:`..frames`; ``x1`` is as if it had them as an axis)::

    for n_task: for k_block:
        for n_tile: for m_tile:
            for k: acc[m, n] += x0_panel[m, k] * x1[n, k]
            out[m, n] += acc[m, n]

after::

    for n_task:
        for k_block:
            frame x1_frame = x1 at n_task.., k_block..
            for n_tile: for m_tile:
                for k: acc[m, n] += x0_panel[m, k] * x1_frame[n - n_task + taps[k - k_block]]
                out_stage[m - m_task, n - n_task] += acc[m, n]
        rows out = out_stage at m_task.., n_task..

A frame is filled row by row, and what an element of the output is not made of is left behind in
scratch. The table ``taps`` is the same for all blocks of ``k``.
"""

from __future__ import annotations

from ..affine import Affine
from ..loopnest import (
    Assign,
    Buffer,
    Fill,
    Loop,
    Nest,
    Ref,
    Scope,
    Statement,
    Term,
    Write,
    at,
    walk,
    with_body,
)
from ..records import replace
from ..schedule import Schedule

STAGE = "out_stage"


def frame(nest: Nest, schedule: Schedule) -> Nest:
    """Carry out the frames of a schedule that has any."""
    if schedule.framed is None:
        return nest
    name, out = schedule.framed, nest.output.name
    buffer = f"{name}_frame"
    loops = {s.index: s for s in walk(nest.body) if isinstance(s, Loop)}
    slots = {
        name: Ref(
            buffer,
            (Term(at("n", "-n_task")), Term(at("k", "-k_block"), table="taps")),
        ),
        out: Ref(STAGE, (Term(at("m", "-m_task"), "N_TASK"), Term(at("n", "-n_task")))),
    }
    ends = {group: _ends(loops, schedule, group) for group in "mnk"}
    outside = {tensor: Ref(tensor, _outside(nest, tensor)) for tensor in (name, out)}
    fill = Fill(buffer, outside[name], at("n_task"), ends["n"], at("k_block"), ends["k"])
    rows = nest.stride(out, "m") or 0
    if rows:
        terms = (*outside[out].terms, Term(at("m_task"), rows))
        outside[out] = replace(outside[out], terms=terms)
    write = Write(outside[out], STAGE, rows, at("m_task"), ends["m"], at("n_task"), ends["n"])

    def rewrite(statement: Statement) -> Statement:
        if isinstance(statement, Assign):
            target = slots.get(statement.target.buffer, statement.target)
            factors = tuple(slots.get(factor.buffer, factor) for factor in statement.factors)
            return replace(statement, target=target, factors=factors)
        if not isinstance(statement, Loop):
            return statement
        body = tuple(rewrite(inner) for inner in statement.body)
        if statement.index == "k_block":
            body = (fill, *body)
        if statement.index == "n_task":
            body = (*body, write)
        return with_body(statement, body)

    return replace(
        nest,
        body=tuple(rewrite(statement) for statement in nest.body),
        strides=tuple(each for each in nest.strides if each[:2] != (name, "k")),
        buffers=(
            *nest.buffers,
            Buffer(buffer, schedule.accumulator, Scope.SCRATCH, ("FRAME",)),
            Buffer(STAGE, schedule.accumulator, Scope.SCRATCH, ("M_TASK", "N_TASK")),
        ),
    )


def _ends(loops: dict[str, Loop], schedule: Schedule, group: str) -> tuple[Affine, ...]:
    """Where a block of a group ends: a task's, or a block's of what is summed."""
    if group == "k":
        return loops["k"].stop
    splits = schedule.split_of(group)
    task = next(n for n, split in enumerate(splits) if split.suffix == "task")
    return loops[splits[task + 1].index].stop


def _outside(nest: Nest, tensor: str) -> tuple[Term, ...]:
    """Where a tensor's part for a tile begins: what it depends on outside of frames."""
    stride = nest.stride(tensor, "b")
    return () if stride is None else (Term(at("b"), stride),)
