"""Choose a schedule for a step, and the block sizes for one call of it.

There are four recipes, each in a file of its own: :mod:`.framed` for products with windows,
:mod:`.packed` for contractions that are large enough for it, :mod:`.turned` for large outputs that
no sum leads to, and :mod:`.streamed` for everything else. A fifth one, :mod:`.general`, is for
steps whose kernel does not exist and may not be compiled. But for the packed one, recipes are
imported when a step may need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

from ..geometry import Geometry
from ..machine import Machine
from ..records import replace
from ..schedule import Schedule
from .choice import Choice
from .packed import packed, packed_blocks
from .symmetric import exchangeable

__all__ = ["Choice", "block_sizes", "choose", "substitutes", "usual"]


def choose(step: Geometry, machine: Machine) -> Choice:
    """The schedule for a step in canonical form."""
    if step.windows is not None:
        from .framed import framed

        found = framed(step, machine)
        if found is not None:
            return found
    return packed(step, machine) or _at_memory_speed(step, machine)


def _at_memory_speed(step: Geometry, machine: Machine) -> Choice:
    """The schedule for a step that is not worth packing."""
    from .streamed import streamed
    from .turned import as_bits, turned

    return turned(step, machine) or streamed(as_bits(step), machine)


USUAL = (8, 24, 512)
"""Extents of which one or another is like any: one vector, a few, many."""


def substitutes(
    step: Geometry, plain: Geometry, machine: Machine
) -> Iterator[tuple[Geometry, Choice]]:
    """Other forms and schedules of a step, for want of a kernel: the likeliest first.

    They are what steps of the same layout and of other sizes have. Kernels take any extents, so
    they compute this step as well, if not as fast. The last ones are the general schedules.

    Args:
        step: in canonical form.
        plain: the same before, with its axes of one element.
        machine: for which kernels are.
    """
    if step.windows is not None:
        from .framed import other_tiles

        yield from ((step, choice) for choice in other_tiles(step, machine))
        return
    from .general import general, general_packed

    yield from ((step, choice) for choice in _of_other_sizes(step, step, machine))
    if step.finish is not None:  # each formula has kernels of its own
        return
    from ..units import with_units

    for outermost, size in product((False, True), (USUAL[0], USUAL[-1])):
        longer = with_units(plain, size, outermost)
        if longer is not None:
            itself, other = longer
            yield from ((itself, choice) for choice in _of_other_sizes(itself, other, machine))
    in_panels = general_packed(step, machine)
    if in_panels is not None:
        yield step, in_panels
    yield step, general(step, machine)


def _of_other_sizes(step: Geometry, like: Geometry, machine: Machine) -> Iterator[Choice]:
    """What steps have that differ in nothing but sizes; those ``like`` has are tried first."""
    from .streamed import streamed
    from .turned import as_bits

    names = tuple(like.extents)
    nearest = tuple(_near(extent, USUAL) for extent in like.extents.values())
    sizes = [
        tuple(1 << (extent - 1).bit_length() for extent in like.extents.values()),
        nearest,
        *((*nearest[:n], u, *nearest[n + 1 :]) for n in range(len(names)) for u in USUAL),
        *((usual,) * len(names) for usual in USUAL),
    ]
    for extents in dict.fromkeys(sizes):
        other = replace(like, extents=dict(zip(names, extents, strict=True)))
        # The turned recipe is left out: what is one run in memory depends on the extents.
        yield _packed_as(step, other, machine) or streamed(as_bits(other), machine)


def usual(step: Geometry, machine: Machine) -> Choice:
    """The last of the `substitutes` for a step with a formula: what it has where all is large.

    It depends on the layout alone, so that it can be compiled for calls of any sizes.
    """
    other = replace(step, extents=dict.fromkeys(step.extents, USUAL[-1]))
    from .streamed import streamed
    from .turned import as_bits

    return _packed_as(step, other, machine) or streamed(as_bits(other), machine)


def _packed_as(step: Geometry, other: Geometry, machine: Machine) -> Choice | None:
    """What the packed recipe makes of the same step of other extents, if the step can have it.

    Half of a matrix is enough where it is symmetric, which depends on the extents.
    """
    found = packed(other, machine)
    if found is None or not found.schedule.mirrored:
        return found
    if exchangeable(step, found.members) == found.schedule.linear:
        return found
    return packed(replace(other, twins=False), machine)


def _near(extent: int, sizes: Sequence[int]) -> int:
    """The size whose ratio to an extent is nearest to one."""
    return min(sizes, key=lambda size: max(size, extent) / min(size, extent))


def block_sizes(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The run-time block sizes of one call.

    What decides the order of a sum (``K_BLOCK``, ``R_BLOCK``) does not depend on the number of
    threads, so that the result's bits do not either.
    """
    sizes = packed_blocks if schedule.recipe == "packed" else _other_blocks(schedule.recipe)
    return sizes(schedule, extents, machine, threads)


def _other_blocks(recipe: str) -> _Blocks:
    from .framed import framed_blocks
    from .streamed import streamed_blocks
    from .turned import turned_blocks

    return {"framed": framed_blocks, "turned": turned_blocks}.get(recipe, streamed_blocks)


_Blocks = Callable[[Schedule, Mapping[str, int], Machine, int], dict[str, int]]
