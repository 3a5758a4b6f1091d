"""Tile: cut loops into loops over blocks and loops within a block (Halide and TVM: split).

Before::

    for m in 0..M:
        ...

after splitting ``m`` by ``M_BLOCK`` and then by 6::

    for m_block in 0..M by M_BLOCK:
        for m_tile in m_block..min(m_block+M_BLOCK, M) by 6:
            for m in m_tile..min(m_tile+6, m_block+M_BLOCK, M):
                ...

``m`` is still the position in its group, so that no access changes.
"""

from __future__ import annotations

from ..affine import Affine
from ..loopnest import Loop, Nest, Statement, children, nested, with_body
from ..records import replace
from ..schedule import Schedule


def tile(nest: Nest, schedule: Schedule) -> Nest:
    """Apply every split of the schedule."""
    return replace(nest, body=tuple(_tile(s, schedule) for s in nest.body))


def _tile(statement: Statement, schedule: Schedule) -> Statement:
    if not isinstance(statement, Loop):
        return statement
    loop = with_body(statement, tuple(_tile(s, schedule) for s in children(statement)))
    assert isinstance(loop, Loop)
    headers, start, stop = [], loop.start, loop.stop
    for split in schedule.split_of(loop.index):
        headers.append(replace(loop, index=split.index, start=start, stop=stop, step=split.step))
        start = Affine(((split.index, 1),))
        stop = (_plus(start, split.step), *stop)
    return nested([*headers, replace(loop, start=start, stop=stop)], loop.body)[0]


def _plus(position: Affine, step: int | str) -> Affine:
    if isinstance(step, int):
        return replace(position, constant=position.constant + step)
    return Affine((*position.terms, (step, 1)), position.constant)
