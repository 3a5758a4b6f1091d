"""What a packed product asks for before it is read, and the blocks that go with it.

An operand that is larger than the second cache comes from memory. If it is used a few times only,
to copy it into panels takes as long as to multiply them: 10 ms and 14 ms for 240 x 59520 times
59520 x 20 in f8, one after the other. So the panels are small blocks, multiplied as soon as they
are filled, and while one is, the lines of the next one are asked for (:mod:`..pack_source`).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from ..geometry import Geometry
from ..schedule import Ahead, Schedule

__all__ = ["ahead_blocks", "ahead_of"]

LONG_SIDE = 4 << 20
"""Bytes of an operand from which on it comes from memory when it is packed."""

FEW = 64
"""Positions of the other operand's side up to which packing takes much of the time.

Measured with 12 to 64 of them, and long sides of 6 to 120 MiB: 1/1.1 of the time in the mean."""

HELD = 24 << 10
"""Bytes of a block's panels that are read from the first cache."""

ABREAST = 8
"""Panels that are filled together, where lanes are neighbours: so many lines are read in a row.

Measured on the contractions of TCCG: one panel at a time took up to 1.4 times as long as eight, and
sixteen as long as eight."""

SOON = 256
"""Positions of a sum that are added in the time that a line takes to come from memory."""


def ahead_of(
    step: Geometry, members: Mapping[str, tuple[str, ...]], order: tuple[int, int]
) -> Ahead | None:
    """What is asked for while tiles are summed, if that pays.

    Namely an operand that comes from memory and is multiplied with a few positions of the other
    one, whose panels stay at hand. Where it has no neighbours, it has too many lines. Complex
    products are no such thing: they have four times as many operations for each line.

    Args:
        step: a product.
        members: the indices of its groups.
        order: the operands that have the rows and the lanes.
    """
    if step.accumulator[0] == "c":
        return None
    for place, (long, short) in enumerate((("m", "n"), ("n", "m"))):
        strides = step.strides[order[place]]
        read = step.volume((*members[long], *members["k"]))
        size = int(step.accumulator[1:])
        if step.volume(members[short]) <= FEW and read * size >= LONG_SIDE:
            along = (group for group in (long, "k") if strides.get(members[group][-1]) == 1)
            return next((Ahead(f"x{place}", group) for group in along), None)
    return None


def ahead_blocks(
    schedule: Schedule, sizes: Mapping[str, int], task: tuple[int, int]
) -> dict[str, int]:
    """How far ahead is asked, for how many lines by each tile, and the size of the blocks.

    Args:
        schedule: a product that asks ahead.
        sizes: the block sizes without.
        task: positions of m and of n of a task.
    """
    ahead = schedule.ahead
    assert ahead is not None
    rows, width = schedule.row_tile, schedule.lane_tile
    of_rows = ahead.group == "m"
    tile, others = (rows, ceil(task[1] / width)) if of_rows else (width, ceil(task[0] / rows))
    if schedule.in_place is not None:
        return {"AHEAD": ceil(SOON / sizes["K_BLOCK"]) * tile, "ASKED": schedule.asked_lines}
    panels = HELD // (sizes["K_BLOCK"] * tile * int(schedule.accumulator[1:]))
    block = max(panels, 1 if ahead.along == "k" else ABREAST) * tile
    if of_rows:
        block = min(block, sizes["M_BLOCK"])
    blocks = {"M_BLOCK" if of_rows else "N_BLOCK": block}
    return blocks | {"AHEAD": block, "ASKED": ceil(schedule.asked_lines / others)}
