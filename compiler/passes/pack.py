"""Pack: copy a block of an operand into a panel that the microkernel reads in order.

Before::

    for m_block:
        for n_tile: for m_tile:
            for k: for m: for n: acc[m, n] += x0[m, k] * x1[k, n]

after packing ``x0`` inside ``m_block``, panels being 6 positions of ``m`` wide::

    for m_block:
        for m_tile:
            for k: for m: x0_panel[m_tile, k, m] = x0[m, k]
        for n_tile: for m_tile:
            for k: for m: for n: acc[m, n] += x0_panel[m_tile, k, m] * x1[k, n]

The copy reads the operand with whatever strides it has, so no operand is ever transposed first
(as in GETT and TBLIS). Where neighbours lie along ``k``, several positions of it are moved at once,
so that they can be transposed in registers. Panels live in the thread's scratch memory.

Both sides of a symmetric product (:mod:`.mirror`) are one tensor, and may read the same panels.
These are so wide that they hold whole tiles of either side, 48 positions for tiles of 6 by 16, and
loops over panels are around those over tiles::

    for n_panel in 0..: for n_tile: for k: for n: x1_panel[n_panel, k, n] = x1[k, n]
    for n_panel: for n_tile: for m_panel: for m_tile:
        for k: for m: for n: acc[m, n] += x1_panel[m_panel, k, m] * x1_panel[n_panel, k, n]
"""

from __future__ import annotations

from collections.abc import Mapping

from ..affine import Affine
from ..loopnest import (
    Assign,
    Buffer,
    Loop,
    Nest,
    Ref,
    Scope,
    Statement,
    Term,
    at,
    nested,
    walk,
    with_body,
)
from ..records import replace
from ..schedule import STRIP, Pack, Schedule


def pack(nest: Nest, schedule: Schedule) -> Nest:
    """Carry out every pack of the schedule."""
    for job in schedule.packs:
        nest = _pack(nest, schedule, job)
    return nest


def _pack(nest: Nest, schedule: Schedule, job: Pack) -> Nest:
    loops = {s.index: s for s in walk(nest.body) if isinstance(s, Loop)}
    accesses = [f for s in walk(nest.body) if isinstance(s, Assign) for f in s.factors]
    panel = Buffer(
        f"{job.operand}_panel",
        schedule.accumulator,
        Scope.SCRATCH,
        (_block(schedule, "m" if job.also else job.group), _block(schedule, "k")),
    )
    group = job.group
    sides = {job.operand: group} | ({job.also: schedule.rows} if job.also else {})
    slots = {
        next(f for f in accesses if f.buffer == operand): _slot(panel.name, schedule, job, side)
        for operand, side in sides.items()
        if side is not None
    }
    access, slot = next(iter(slots.items()))
    step = job.depth if job.depth > 1 else STRIP
    k_stop = Affine((("k_tile", 1),), step)
    k_tile = replace(loops["k"], index="k_tile", step=step)
    k = replace(loops["k"], start=at("k_tile"), stop=(k_stop, *loops["k"].stop))
    names = [s.index for s in schedule.split_of(group) if isinstance(s.step, int)]
    *tiles, lanes = (_across(loops[name], group, schedule) for name in (*names, group))
    if job.also:
        tiles[0] = replace(tiles[0], start=Affine(()))
    if schedule.below and job.also:  # all that the rows need, which is more than the columns do
        *tiles, lanes = (_as_far(loop, group, schedule) for loop in (*tiles, lanes))
    around = [k_tile, *tiles] if job.strips else [*tiles, k_tile]
    copy = nested([*around, k, lanes], (Assign(slot, (access,)),))
    body = tuple(_rewrite(s, job, copy, slots) for s in nest.body)
    return replace(nest, body=body, buffers=(*nest.buffers, panel))


def _as_far(loop: Loop, group: str, schedule: Schedule) -> Loop:
    """A loop over the columns that goes as far as the rows do."""
    rows = schedule.rows or ""
    names = {f"{group}_task": f"{rows}_task", group.upper(): rows.upper()}
    names |= {f"{group.upper()}_TASK": f"{rows.upper()}_TASK"}
    positions = {name: Affine.index(other) for name, other in names.items()}
    return replace(loop, stop=tuple(stop.replaced(positions) for stop in loop.stop))


def _across(loop: Loop, group: str, schedule: Schedule) -> Loop:
    """A loop over a side of the output that does not end at the diagonal: see :mod:`.mirror`."""
    others = {f"{side}_tile" for side in (schedule.rows, schedule.lanes) if side != group}
    return replace(loop, stop=tuple(stop for stop in loop.stop if others.isdisjoint(stop.names)))


def _slot(panel: str, schedule: Schedule, job: Pack, group: str) -> Ref:
    """Where the panels hold a position of ``group`` and of ``k``."""
    first = next(s.index for s in schedule.split_of(group) if isinstance(s.step, int))
    begin = () if job.also else (f"-{_outermost(schedule, job)}",)
    terms = (
        Term(at(first, *begin), _block(schedule, "k")),
        Term(at("k", "-k_block"), job.width),
        Term(at(group, f"-{first}"), 1),
    )
    return Ref(panel, terms)


def _rewrite(
    statement: Statement, job: Pack, copy: tuple[Statement, ...], slots: Mapping[Ref, Ref]
) -> Statement:
    """Put ``copy`` first in the loop ``job.inside`` and read ``slots`` instead of accesses."""
    if isinstance(statement, Assign):
        return replace(statement, factors=tuple(slots.get(f, f) for f in statement.factors))
    if not isinstance(statement, Loop):
        return statement
    body = tuple(_rewrite(s, job, copy, slots) for s in statement.body)
    if statement.index == job.inside and body != statement.body:
        body = (*copy, *body)
    return with_body(statement, body)


def _outermost(schedule: Schedule, job: Pack) -> str:
    """The loop over ``job.group`` whose position the panel is counted from."""
    around = [s.index for s in schedule.split_of(job.group) if isinstance(s.step, str)]
    enclosing = schedule.outer[: schedule.outer.index(job.inside) + 1]
    return [index for index in around if index in enclosing][-1]


def _block(schedule: Schedule, group: str) -> str:
    """The run-time size of the innermost block that is larger than a register tile."""
    return [s.step for s in schedule.split_of(group) if isinstance(s.step, str)][-1]
