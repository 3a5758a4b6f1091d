"""Vectorize: mark the innermost loops that become one operation on a register tile.

Before::

    for m in m_tile..min(m_tile+6, M):
        for n in n_tile..min(n_tile+16, N):
            acc[m, n] += x0_panel[k, m] * x1_panel[k, n]

after: the same loops, whose kinds say that ``m`` are the tile's rows and ``n`` its columns::

    rows m in m_tile..min(m_tile+6, M):
        lanes n in n_tile..min(n_tile+16, N):
            acc[m, n] += x0_panel[k, m] * x1_panel[k, n]

What remains at an edge is the same tile with fewer rows or columns inside (masked, no scalar loop).
The inner two loops of a packing copy are a tile of their own: rows along ``k``.
"""

from __future__ import annotations

from ..loopnest import Assign, Kind, Loop, Nest, Statement, with_body
from ..records import replace
from ..schedule import Schedule


def vectorize(nest: Nest, schedule: Schedule) -> Nest:
    """Mark rows and lanes wherever the two innermost loops enclose nothing but an assignment."""
    return replace(nest, body=tuple(_vectorize(s, schedule) for s in nest.body))


def _vectorize(statement: Statement, schedule: Schedule) -> Statement:
    if not isinstance(statement, Loop):
        return statement
    inner = statement.body[0]
    if len(statement.body) == 1 and isinstance(inner, Assign):
        lanes = statement.index in _lane_loops(schedule) and not inner.total
        return replace(statement, kind=Kind.VECTOR if lanes else Kind.UNROLLED)
    loop = with_body(statement, tuple(_vectorize(s, schedule) for s in statement.body))
    assert isinstance(loop, Loop)
    first = loop.body[0]
    if len(loop.body) == 1 and isinstance(first, Loop) and first.kind is Kind.VECTOR:
        copy = first.body[0]
        deep = isinstance(copy, Assign) and copy.target.buffer in _deep_panels(schedule)
        if loop.index == schedule.rows or deep:
            return replace(loop, kind=Kind.UNROLLED)
    return loop


def _lane_loops(schedule: Schedule) -> set[str]:
    """The loops that run along a register tile's columns: the step's own, and those of packs."""
    return {schedule.lanes, *(pack.group for pack in schedule.packs)}


def _deep_panels(schedule: Schedule) -> set[str]:
    """The panels that several positions are moved into at once, as the rows of a tile."""
    deep = {pack.operand for pack in schedule.packs if pack.depth > 1}
    deep |= {panel.operand for panel in schedule.panels if panel.rows > 1}
    return {f"{operand}_panel" for operand in deep}
