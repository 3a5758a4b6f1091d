"""Runs: what it costs a packed step that its groups lie in memory in pieces.

Panels are copied, and tiles of the output written, a few positions of a group at a time. Where
these are neighbours in memory, a vector is moved at once; where a run of neighbours ends within
them, they are moved one by one. How often it does follows from the run's length and the tile's:

    runs of 400, tiles of 16     none is broken, 400 is a multiple of 16
    runs of 20,  tiles of 16     three in five are
    runs of 10,  tiles of 16     all are

What is measured: cycles for an element of a broken tile, on a Zen 3 in f4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import ceil, gcd, prod

from .choose import Choice, block_sizes
from .geometry import Geometry
from .machine import Machine

__all__ = ["broken", "packed_cycles", "run_length"]

BROKEN_READ = 3.0
BROKEN_WRITE = 1.3
SHORT_RUN = 5.5
"""An element of a tile that is cut by runs of less than a few elements."""

TURNED = 0.5
"""An element of a panel that is transposed in registers."""

GATHERED = 6.0
"""An element without neighbours: operands are large, and each is on a line of its own."""

SQUARE = 8
"""Positions of a sum that are transposed at once."""


def packed_cycles(
    step: Geometry, choice: Choice, machine: Machine, ignored: Collection[int] = ()
) -> float | None:
    """Cycles that a packed step takes besides, since its tensors lie as they do; None for others.

    Args:
        step: in canonical form.
        choice: how it is computed.
        machine: for the block sizes.
        ignored: positions of operands of which nothing is known yet.

    >>> from .anonymous import form_of
    >>> from .machine import TARGETS
    >>> machine = Machine(TARGETS["x86-64-v3"])
    >>> def product(x, y, out):
    ...     extents = dict(zip("pqkm", (40, 20, 144, 48), strict=True))
    ...     return Geometry(("f4",) * 3, "f4", extents, (x, y, out))
    >>> y, out = {"m": 144, "k": 1}, {"m": 800, "p": 20, "q": 1}
    >>> whole = form_of(product({"k": 800, "p": 20, "q": 1}, y, out), machine)
    >>> short = form_of(product({"p": 2880, "k": 20, "q": 1}, y, out), machine)
    >>> [round(packed_cycles(f.numbered_step, f.numbered_choice, machine)) for f in (whole, short)]
    [3456, 210816]
    """
    schedule, members = choice.schedule, choice.members
    if schedule.recipe != "packed":
        return None
    extents = {group: step.volume(indices) for group, indices in members.items()}
    blocks = block_sizes(schedule, extents, machine, 1)
    tile = {"m": schedule.row_tile, "n": schedule.lane_tile}
    again = {"m": ceil(extents["n"] / blocks["N_TASK"]), "n": ceil(extents["m"] / blocks["M_TASK"])}
    cycles = 0.0
    for place, (operand, group) in enumerate(zip(choice.operands, "mn", strict=False)):
        if operand in ignored or schedule.in_place == f"x{place}":
            continue
        strides = step.strides[operand]
        each = _copied(strides, members[group], members["k"], tile[group], step.extents)
        cycles += each * step.volume(tuple(strides)) * again[group]
    out = step.strides[-1]
    sums = ceil(extents["k"] / blocks["K_BLOCK"])
    if not any(group.over for group in schedule.groups):
        written = _written(out, members["n"], tile["n"], step.extents)
        cycles += written * step.volume(tuple(out)) * sums
    return cycles


def _copied(
    strides: Mapping[str, int],
    side: Sequence[str],
    summed: Sequence[str],
    width: int,
    extents: Mapping[str, int],
) -> float:
    """Cycles to copy an element into a panel."""
    run = run_length(side, strides, extents)
    if run:
        return _cut(run, side, width, extents) * (SHORT_RUN if _is_short(run) else BROKEN_READ)
    run = run_length(summed, strides, extents)
    return TURNED + _cut(run, summed, SQUARE, extents) * SHORT_RUN if run else GATHERED


def _written(
    strides: Mapping[str, int], side: Sequence[str], width: int, extents: Mapping[str, int]
) -> float:
    """Cycles to write an element of the output."""
    run = run_length(side, strides, extents)
    if not run:
        return SHORT_RUN
    return _cut(run, side, width, extents) * (SHORT_RUN if _is_short(run) else BROKEN_WRITE)


def _cut(run: int, group: Sequence[str], width: int, extents: Mapping[str, int]) -> float:
    """The share of tiles along a group that the ends of its runs cut."""
    return 0.0 if run == prod(extents[index] for index in group) else broken(run, width)


def _is_short(run: int) -> bool:
    """Whether a tile has many runs: those of four are moved at once."""
    return run < SQUARE and run != 4


def run_length(
    indices: Sequence[str], strides: Mapping[str, int], extents: Mapping[str, int]
) -> int:
    """How many positions of a group are neighbours; 0 if not even two are.

    >>> run_length("abc", {"a": 600, "b": 20, "c": 1}, {"a": 2, "b": 3, "c": 20})
    60
    """
    run = 1
    for index in reversed(indices):
        if strides.get(index) != run:
            break
        run *= extents[index]
    else:
        return run
    return run if run > 1 else 0


def broken(run: int, width: int) -> float:
    """The share of tiles of so many positions that a run's end cuts, runs following each other.

    >>> [broken(run, 16) for run in (400, 20, 10)]
    [0.0, 0.6, 1.0]
    """
    step = gcd(run, width)
    if step == width:
        return 0.0
    whole = (run - width) // step + 1 if run >= width else 0
    return 1 - whole * step / run
