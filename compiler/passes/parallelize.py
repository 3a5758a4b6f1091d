"""Parallelize: flatten the outermost loops into one loop over numbered tiles.

Before::

    for b in 0..B by 1:
        for m_task in 0..M by M_TASK:
            ...

after: tile number ``t`` stands for one (b, m_task), and a call of the kernel runs a range of them::

    tiles b in 0..B by 1, m_task in 0..M by M_TASK:
        ...

Every tile writes a part of the output that no other tile touches, in an order of operations that
does not depend on the range, so results are the same bits for any number of threads.
"""

from __future__ import annotations

from ..loopnest import Loop, Nest, Tiles
from ..records import replace
from ..schedule import Schedule


def parallelize(nest: Nest, schedule: Schedule) -> Nest:
    """Make the first ``schedule.parallel`` loops the parallel one."""
    axes, body = [], nest.body
    for _ in range(schedule.parallel):
        (loop,) = body
        assert isinstance(loop, Loop)
        (extent,) = loop.stop
        axes.append((loop.index, extent.names[0], loop.step))
        body = loop.body
    return replace(nest, body=(Tiles(tuple(axes), body),))
