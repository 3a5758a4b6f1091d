"""The framed recipe: a register tile over flat positions of an image that is held in scratch.

For windows: convolutions and what else reads an operand at sums of indices. The image is copied
into frames (:mod:`..frames`), block by block; there all windows have neighbours along the lanes,
and nothing is copied once for each tap. The other factor is packed as for the packed recipe. Sums
collect in scratch too, from where rows of the output are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil

from ..frames import AXES, Layout, layout
from ..geometry import Geometry
from ..machine import Machine
from ..schedule import MASKED, Group, Pack, Schedule, vector_lanes
from .choice import Choice, layout_class, rounded
from .packed import LONGEST_TASK, halved, splits

MOST_TAPS = 512

MOST_DIGITS = 1 << 30
"""Of one axis: lanes are counted in 32 bits."""

WASTE = 2.0
"""Flat positions for each element of the output, at most."""

TILES = ((1, 8), (2, 4), (3, 3), (4, 3), (6, 2))
"""Rows and vectors of register tiles, for 16 registers.

Beside the sums a column of vectors is in registers and the value of one row. With (3, 4) that is
one too many, and took twice as long as (4, 3).
"""

LONGEST = 2048
"""Flat positions of a task, at most."""


def framed(step: Geometry, machine: Machine, tile: tuple[int, int] | None = None) -> Choice | None:
    """The framed recipe, where the step is a product with windows that it can hold.

    ``tile`` are the register tile's rows and vectors, by default the best ones.
    """
    windows = step.windows
    if windows is None or step.finish is not None or step.over or step.factors != 2:
        return None
    if {*step.elements, step.accumulator} - {step.accumulator} or step.accumulator not in MASKED:
        return None
    image, other = step.strides[windows.operand], step.strides[1 - windows.operand]
    out = step.strides[-1]
    taps = [i for i in step.reduced if i in windows.taps]
    rest = [i for i in step.reduced if i not in windows.taps]
    flat = [i for i in step.kept if i in image and i not in other]
    members = {
        "b": tuple(i for i in step.kept if i in image and i in other),
        "m": tuple(i for i in step.kept if i not in image),
        "n": tuple(sorted(flat, key=lambda i: -abs(image[i]))),
        "k": (*rest, *sorted(taps, key=lambda i: -abs(other.get(i, 0)))),
    }
    if len(rest) > 1 or len(members["m"]) > 1 or not 1 <= len(flat) <= AXES:
        return None
    if not members["k"]:
        return None  # no sum: each element of a frame would be read once
    if any(i not in image for i in rest) or any(i in other for i in windows.kept):
        return None
    if step.volume(taps) > MOST_TAPS or any(abs(out.get(i, 0)) == 0 for i in step.kept):
        return None
    if any(image[i] == 1 and step.extents[i] > 4 for i in members["b"]):
        return None  # the neighbours are lanes as they are: channels last, depthwise
    found = layout(step, members["n"], members["k"])
    if found.positions > WASTE * found.valid + 64 or found.counts[-1] > MOST_DIGITS:
        return None
    lanes = vector_lanes(step.accumulator, machine.target.vector_bytes)
    rows, vectors = tile or _tile(step.volume(members["m"]))
    width = vectors * lanes
    operands = (1 - windows.operand, windows.operand)
    members = {group: each for group, each in members.items() if each or group != "b"}
    groups = tuple(
        Group(g, len(members[g]) > 1 if g in "bm" else g == "k", g == "k") for g in members
    )
    strides = layout_class(step, operands, groups, members, lambda _, group: group in "mk")
    unit = {(tensor, group) for tensor, group, stride in strides if stride == 1}
    side = min(lanes, 1 << (rows - 1).bit_length())
    depth = side if ("x0", "k") in unit and ("x0", "m") not in unit and rows > 1 else 1
    fixed = {("x1", "n"): 1, ("out", "n"): 1, ("x1", "k"): None, ("out", "m"): None}
    strides = tuple((t, g, fixed.get((t, g), stride)) for t, g, stride in strides)
    outer = (*(["b"] if "b" in members else []), "m_task", "n_task")
    schedule = Schedule(
        recipe="framed",
        elements=step.elements,
        accumulator=step.accumulator,
        groups=groups,
        strides=strides,
        splits=splits(rows, width),
        outer=(*outer, "k_block", "m_block", "n_tile", "m_tile"),
        inner=("k",),
        parallel=len(outer),
        rows="m",
        lanes="n",
        row_tile=rows,
        lane_tile=width,
        vector_bytes=machine.target.vector_bytes,
        packs=(Pack("x0", "m_block", "m", rows, depth, strips=depth == 1),),
        framed="x1",
    )
    return Choice(schedule, members, operands)


def other_tiles(step: Geometry, machine: Machine) -> Iterator[Choice]:
    """The same with other register tiles, for want of a kernel."""
    for tile in reversed(TILES):
        choice = framed(step, machine, tile)
        if choice is not None:
            yield choice


def _tile(rows: int) -> tuple[int, int]:
    """The register tile for so many rows: few of its own that are not among them."""

    def cost(tile: tuple[int, int]) -> float:
        height, vectors = tile
        work = max(height * vectors, 1.25 * (height + vectors)) + 0.1 * (height + vectors)
        return ceil(rows / height) * work / vectors

    return min(TILES, key=cost)


def framed_blocks(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The block sizes of one call; the extents have `taps`, `phases` and `halo` too."""
    size = int(schedule.accumulator[1:])
    rows, width = schedule.row_tile, schedule.lane_tile
    m, n, k = extents["m"], extents["n"], extents["k"]
    taps, phases, halo = extents["taps"], extents["phases"], extents["halo"]
    channels = k // taps
    held = max(1, machine.l1_bytes * 3 // 4 // (width * size) // taps)
    held = ceil(channels / ceil(channels / held))
    plane = machine.l2_bytes * 5 // 16 // (held * phases * size) - halo
    stage = machine.l2_bytes * 3 // 2 // (rounded(min(m, 512), rows) * size)
    n_task = max(width, min(LONGEST, plane, stage) // width * width)
    n_task = rounded(ceil(n / ceil(n / n_task)), width)
    m_task = min(rounded(m, rows), rounded(512, rows))
    task = m_task, n_task
    tasks = ceil(m * n * k * size / LONGEST_TASK)
    task = halved((m, n), task, (rows, width), tasks, 256)
    if threads > 1:
        batch = extents.get("b", 1)
        task = halved((m, n), task, (rows, width), ceil(2 * threads / batch), 1)
    m_task, n_task = task
    k_block = held * taps
    m_block = max(rows, machine.l2_bytes // 3 // (k_block * size) // rows * rows)
    m_block = rounded(ceil(m_task / ceil(m_task / m_block)), rows)
    slack = 2 * schedule.vector_bytes // size
    plane = n_task + halo + slack
    plane += slack if plane % 1024 < slack else 0
    return {
        "M_TASK": m_task,
        "M_BLOCK": m_block,
        "N_TASK": n_task,
        "K_BLOCK": k_block,
        "FRAME": held * phases * plane,
        "plane": plane,
    }


def layout_of(choice: Choice, step: Geometry) -> Layout:
    """The layout of the frames of a step with this choice."""
    return layout(step, choice.members["n"], choice.members["k"])
