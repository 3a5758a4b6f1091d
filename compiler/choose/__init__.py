"""Choose a schedule for a step, and the block sizes for one call of it.

There are three recipes, each in a file of its own: :mod:`.packed` for contractions that are large
enough for it, :mod:`.turned` for large outputs that no sum leads to, and :mod:`.streamed` for
everything else.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..geometry import Geometry
from ..machine import Machine
from ..schedule import Schedule
from .choice import Choice
from .packed import packed, packed_blocks
from .streamed import is_held, is_small, streamed, streamed_blocks
from .turned import as_bits, turned, turned_blocks

__all__ = ["Choice", "block_sizes", "choose", "is_held", "is_small"]


def choose(step: Geometry, machine: Machine) -> Choice:
    """The schedule for a step in canonical form."""
    return packed(step, machine) or turned(step, machine) or streamed(as_bits(step), machine)


def block_sizes(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The run-time block sizes of one call.

    What decides the order of a sum (``K_BLOCK``, ``R_BLOCK``) does not depend on the number of
    threads, so that the result's bits do not either.
    """
    sizes = _BLOCKS[schedule.recipe]
    return sizes(schedule, extents, machine, threads)


_BLOCKS = {"packed": packed_blocks, "turned": turned_blocks, "streamed": streamed_blocks}
