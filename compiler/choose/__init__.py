"""Choose a schedule for a step, and the block sizes for one call of it.

There are two recipes, each in a file of its own: :mod:`.packed` for contractions that are large
enough for it, and :mod:`.streamed` for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..geometry import Geometry
from ..machine import Machine
from ..schedule import Schedule
from .choice import Choice
from .packed import packed, packed_blocks
from .streamed import is_small, is_staged, streamed, streamed_blocks

__all__ = ["Choice", "block_sizes", "choose", "is_small", "is_staged"]


def choose(step: Geometry, machine: Machine) -> Choice:
    """The schedule for a step in canonical form."""
    return packed(step, machine) or streamed(step, machine)


def block_sizes(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The run-time block sizes of one call.

    What decides the order of a sum (``K_BLOCK``, ``R_BLOCK``) does not depend on the number of
    threads, so that the result's bits do not either.
    """
    sizes = packed_blocks if schedule.recipe == "packed" else streamed_blocks
    return sizes(schedule, extents, machine, threads)
