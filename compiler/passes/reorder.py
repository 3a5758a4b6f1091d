"""Reorder: put the loops into the schedule's order, with a register tile innermost.

Before (``m`` and ``n`` make the register tile, ``k`` is reduced)::

    for m_tile: for m: for n_tile: for n:
        acc = 0
        for k:
            acc += x0[m, k] * x1[k, n]
        out[m, n] = acc

after: the loops of the tile move inside ``k``, and the scalar ``acc`` becomes a tile of its own::

    for m_tile: for n_tile:
        for m: for n: acc[m, n] = 0
        for k:
            for m: for n: acc[m, n] += x0[m, k] * x1[k, n]
        for m: for n: out[m, n] = acc[m, n]

A long sum is cut into partial sums (blocked summation: the error grows with the number of blocks
and a block's length, not with the whole length): each round of the loop ``schedule.partial`` clears
and fills a tile ``part``, which is then added to ``acc``.

A reduced block loop may stand outside the tile; then the output collects the blocks' sums, and the
last statement is ``out[m, n] += acc[m, n]`` from that loop's second round on. Lanes may be reduced
too: then they stay in the tile until its columns are summed into the output. TVM calls the moving
of ``acc`` into an array *scalar expansion* and the loop order *reorder*.
"""

from __future__ import annotations

from dataclasses import replace

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
)
from ..schedule import Schedule


def reorder(nest: Nest, schedule: Schedule) -> Nest:
    """Rebuild the nest in the order ``schedule.outer``, then ``schedule.inner``, then the tile."""
    loops = {s.index: s for s in walk(nest.body) if isinstance(s, Loop)}
    assigns = [s for s in walk(nest.body) if isinstance(s, Assign)]
    outer = [loops[index] for index in schedule.outer]
    inner = [loops[index] for index in schedule.inner]
    registers = [loops[index] for index in (schedule.rows, schedule.lanes) if index is not None]
    reduced = {group.name for group in nest.groups if group.reduced}
    kept = [loop for loop in registers if loop.index not in reduced]
    body: tuple[Statement, ...]
    if len(assigns) == 1:
        body = nested(registers, (assigns[0],))
    else:
        clear, update, store = assigns
        tile = _expanded(clear.target, schedule)
        late = [loop.index for loop in outer if schedule.group_of(loop.index) in reduced]
        store = replace(
            store,
            factors=(tile,),
            add=late[0] if late else False,
            total=schedule.lanes in reduced,
        )
        whole = [_whole(loop, schedule) for loop in registers]
        cleared = _expanded(clear.target, schedule, whole=True)
        sums: tuple[Statement, ...]
        if schedule.partial is None:
            sums = nested([*inner, *registers], (replace(update, target=tile),))
        else:
            cut = schedule.inner.index(schedule.partial) + 1
            part = replace(cleared, buffer="part")
            rounds = (
                *nested(whole, (replace(clear, target=part),)),
                *nested([*inner[cut:], *registers], (replace(update, target=_part(tile)),)),
                *nested(whole, (Assign(cleared, (part,), add=True),)),
            )
            sums = nested(inner[:cut], rounds)
            partial = Buffer("part", nest.buffer("acc").element, Scope.REGISTERS)
            nest = replace(nest, buffers=(*nest.buffers, partial))
        body = (
            *nested(whole, (replace(clear, target=cleared),)),
            *sums,
            *nested(registers if not store.total else kept, (store,)),
        )
    return replace(nest, body=nested(outer, body))


def _part(tile: Ref) -> Ref:
    """The same place in the tile of partial sums."""
    return replace(tile, buffer="part")


def _whole(loop: Loop, schedule: Schedule) -> Loop:
    """The loop over all rows or lanes of a register tile, counted from 0."""
    size = schedule.row_tile if loop.index == schedule.rows else schedule.lane_tile
    return replace(loop, start=Affine(()), stop=(Affine((), size),))


def _expanded(acc: Ref, schedule: Schedule, *, whole: bool = False) -> Ref:
    """The accumulator as a tile: row after row, relative to the tile's first position."""

    def term(index: str, stride: int) -> Term:
        return Term(at(index) if whole else at(index, f"-{index}_tile"), stride)

    rows = () if schedule.rows is None else (term(schedule.rows, schedule.lane_tile),)
    return Ref(acc.buffer, (*rows, term(schedule.lanes, 1)))
