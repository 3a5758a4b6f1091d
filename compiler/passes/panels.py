"""Panels: hold a block of an operand in scratch, with the lanes beside each other.

Before, with the lanes along ``v`` and the neighbours in memory along ``r``::

    for r_block:
        for v_tile: for r: for v: acc[v] += x0[v*x0_v + r] * ...

after::

    for r_block:
        for r_tile: for v_tile:
            for r: for v: x0_panel[r, v] = x0[v*x0_v + r]
        for v_tile: for r: for v: acc[v] += x0_panel[r, v] * ...

A few positions of the group with the neighbours are moved at once and transposed in registers. The
block is meant to stay in the first cache, so that each element comes from memory once.
"""

from __future__ import annotations

from ..affine import Affine
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
    with_body,
)
from ..records import replace
from ..schedule import Panel, Schedule, vector_lanes


def panels(nest: Nest, schedule: Schedule) -> Nest:
    """Carry out every panel of the schedule."""
    for panel in schedule.panels:
        nest = _hold(nest, schedule, panel)
    return nest


def _hold(nest: Nest, schedule: Schedule, panel: Panel) -> Nest:
    accesses = [f for s in walk(nest.body) if isinstance(s, Assign) for f in s.factors]
    access = next(f for f in accesses if f.buffer == panel.operand)
    lanes = schedule.lanes
    sizes = [_block(g) for g in (*panel.groups, lanes)]
    terms = [
        Term(at(group, f"-{group}_block"), "*".join(sizes[i + 1 :]))
        for i, group in enumerate(panel.groups)
    ]
    place = Ref(f"{panel.operand}_panel", (*terms, Term(at(lanes, f"-{lanes}_block"), 1)))
    width = vector_lanes(schedule.accumulator, schedule.vector_bytes)
    *others, rows = panel.groups
    row_tile, row = _cut(nest, rows, panel.rows)
    lane_tile, lane = _cut(nest, lanes, width)
    loops = [*(_whole(nest, group) for group in others), row_tile, lane_tile, row, lane]
    copy = nested(loops, (Assign(place, (access,)),))
    buffer = Buffer(place.buffer, schedule.accumulator, Scope.SCRATCH, tuple(sizes))
    inside = [index for index in schedule.outer if index.endswith("_block")][-1]
    body = tuple(_rewrite(s, inside, copy, access, place) for s in nest.body)
    return replace(nest, body=body, buffers=(*nest.buffers, buffer))


def _rewrite(
    statement: Statement, inside: str, copy: tuple[Statement, ...], access: Ref, place: Ref
) -> Statement:
    """Put ``copy`` first in the loop ``inside`` and read ``place`` instead of ``access``."""
    if isinstance(statement, Assign):
        if statement.target.buffer.endswith("_panel"):
            return statement
        factors = tuple(place if f == access else f for f in statement.factors)
        return replace(statement, factors=factors)
    if not isinstance(statement, Loop):
        return statement
    body = tuple(_rewrite(s, inside, copy, access, place) for s in statement.body)
    return with_body(statement, (*copy, *body) if statement.index == inside else body)


def _block(group: str) -> str:
    """The run-time size of a group's blocks."""
    return f"{group.upper()}_BLOCK"


def _whole(nest: Nest, group: str) -> Loop:
    """A loop over a block of a group."""
    end = Affine(((_block(group), 1), (f"{group}_block", 1)))
    stop = (end, at(nest.group(group).extent))
    return Loop(group, at(f"{group}_block"), stop, 1, Kind.SERIAL, ())


def _cut(nest: Nest, group: str, step: int) -> tuple[Loop, Loop]:
    """The same in tiles: the loop over tiles, and the one within a tile."""
    whole, tile = _whole(nest, group), f"{group}_tile"
    stop = (Affine(((tile, 1),), step), *whole.stop)
    return replace(whole, index=tile, step=step), replace(whole, start=at(tile), stop=stop)
