"""Tabulate: reach tensors through tables of offsets where a group has several indices.

Before (``m`` stands for several indices, so ``x0`` has no single stride along it)::

    for m_block in 0..M by M_BLOCK:
        ... x0[m * x0_m + ...]

after: the offsets of the block's positions are computed once and looked up::

    for m_block in 0..M by M_BLOCK:
        tabulate x0_m_at = offsets of x0 at m_block..min(m_block+M_BLOCK, M)
        ... x0[x0_m_at[m - m_block] + ...]

TBLIS calls such a table a *scatter vector*. It lets one kernel serve any number of indices.
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
    Tabulate,
    Term,
    Tiles,
    Write,
    at,
)
from ..records import replace
from ..schedule import Group, Schedule


def tabulate(nest: Nest, schedule: Schedule) -> Nest:
    """Give every composite group a table for every tensor that has no single stride along it."""
    for group in nest.groups:
        if group.composite:
            for slot, tensor in enumerate(nest.tensors):
                if nest.stride(tensor.name, group.name) == f"{tensor.name}_{group.name}":
                    nest = _tabulate(nest, schedule, group, slot, tensor.name)
    return nest


def _tabulate(nest: Nest, schedule: Schedule, group: Group, slot: int, tensor: str) -> Nest:
    name = f"{tensor}_{group.name}_at"
    block, size = _block(schedule, group, tensor)
    # Of a late group the next block's offsets are known too: it is fetched while this one is read.
    # So is the next block of an operand that is asked for ahead.
    ahead = schedule.ahead is not None and schedule.ahead.operand == tensor != schedule.in_place
    again = block == "q_block" or (ahead and block == f"{group.name}_block" != "k_block")
    times = 2 if again else 1
    end = (
        Affine(((block, 1), (size, times)))
        if isinstance(size, str)
        else Affine(((block, 1),), times * size)
    )
    lead = None
    if schedule.stage is not None and schedule.stage.run[0] == group.name:
        lead, size = "LEAD", "PITCH"
    room = (size,) if times == 1 else (times, size)
    fill = Tabulate(name, group.name, slot, at(block), (end, at(group.extent)), lead)

    def rewritten(ref: Ref) -> Ref:
        if ref.buffer != tensor:
            return ref
        around = (f"-{block}", lead) if lead is not None else (f"-{block}",)
        position = at(group.name, *around) if block != group.name else Affine(())
        terms = tuple(
            Term(position, table=name, runs=t.runs) if group.name in t.position.names else t
            for t in ref.terms
        )
        return replace(ref, terms=terms)

    def rewrite(statement: Statement) -> Statement:
        if isinstance(statement, Assign):
            return replace(
                statement,
                target=rewritten(statement.target),
                factors=tuple(rewritten(f) for f in statement.factors),
            )
        if isinstance(statement, Fill):
            return replace(statement, source=rewritten(statement.source))
        if isinstance(statement, Write):
            return replace(statement, target=rewritten(statement.target))
        if isinstance(statement, Loop | Tiles):
            body = tuple(rewrite(s) for s in statement.body)
            return replace(statement, body=(fill, *body) if _runs(statement, block) else body)
        return statement

    return replace(
        nest,
        body=tuple(rewrite(s) for s in nest.body),
        buffers=(*nest.buffers, Buffer(name, "i8", Scope.SCRATCH, room)),
    )


def _runs(statement: Loop | Tiles, index: str) -> bool:
    """Whether this is the loop over ``index``."""
    if isinstance(statement, Tiles):
        return any(axis == index for axis, _, _ in statement.axes)
    return statement.index == index


def _block(schedule: Schedule, group: Group, tensor: str) -> tuple[str, int | str]:
    """The innermost block loop over the group that encloses every use of the tensor, and its step.

    A group that is not split into blocks has one position at a time, and a table of one entry.
    """
    blocks = [(s.index, s.step) for s in schedule.split_of(group.name) if isinstance(s.step, str)]
    for pack in schedule.packs:
        if pack.operand == tensor:
            enclosing = schedule.outer[: schedule.outer.index(pack.inside) + 1]
            blocks = [(index, step) for index, step in blocks if index in enclosing]
    return blocks[-1] if blocks else (group.name, 1)
