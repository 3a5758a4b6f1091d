"""The streamed recipe: a register tile whose operands are read where they are.

For everything that is not worth packing, with any number of operands. The lanes run along one
index, kept or reduced; the rows, if any, along another one that saves loads or makes a
transposition possible in registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod

from ..geometry import Geometry
from ..loopnest import Group
from ..machine import Machine
from ..schedule import Schedule, Split, vector_lanes
from .choice import Choice, layout_class, rounded


def streamed(step: Geometry, machine: Machine) -> Choice:
    """The streamed recipe: any number of operands, any indices."""
    lanes = vector_lanes(step.accumulator, machine.target.vector_bytes)
    v = _lane_index(step, lanes, machine)
    u, row_tile = _row_index(step, v, lanes)
    reduced_lanes = v in step.reduced
    members = {
        "o": _outer_order(step, tuple(i for i in step.kept if i not in (u, v))),
        "u": (u,) if u is not None else (),
        "v": (v,) if v is not None else (),
        "q": _late_indices(step, v, machine),
    }
    members["r"] = tuple(i for i in step.reduced if i != v and i not in members["q"])
    members = {g: indices for g, indices in members.items() if indices or g == "v"}
    most = 1 if row_tile >= lanes > 1 else 2 if row_tile > 1 else 4
    vectors = most if v is not None and step.extents[v] >= most * lanes else 1
    groups = tuple(
        Group(g, g == "o" or len(members[g]) != 1, g in "qr" or (g == "v" and reduced_lanes))
        for g in members
    )
    splits = [
        Split("o", "block", "O_BLOCK"),
        Split("u", "block", "U_BLOCK"),
        Split("u", "tile", row_tile),
        Split("v", "block", "V_BLOCK"),
        Split("v", "tile", vectors * lanes),
        Split("r", "block", "R_BLOCK"),
    ]
    blocks = [f"{g}_block" for g in ("o", "u", "v") if g in members]
    tiles = [*(["o"] if "o" in members else []), *(["u_tile"] if u is not None else []), "v_tile"]
    inner = ["r_block", "r"] if "r" in members else []
    if reduced_lanes:
        for loops, loop in ((blocks, "v_block"), (tiles, "v_tile")):
            loops.remove(loop)
            inner.append(loop)
    partial = None
    early = [i for i in step.reduced if i not in members.get("q", ())]
    if early and step.volume(early) > 2 * machine.partial_sum:
        long_lanes = reduced_lanes and step.extents[str(v)] > machine.partial_sum
        partial = "v_block" if long_lanes else "r_block"
    order = tuple(range(len(step.elements) - 1))
    schedule = Schedule(
        recipe="streamed",
        elements=step.elements,
        accumulator=step.accumulator,
        groups=groups,
        strides=layout_class(
            step, order, groups, members, ("u", "v") if row_tile % lanes == 0 else ("v",)
        ),
        splits=tuple(split for split in splits if split.group in members),
        outer=(*blocks, *(["q"] if "q" in members else []), *tiles),
        inner=tuple(inner),
        parallel=len(blocks),
        rows="u" if u is not None else None,
        lanes="v",
        row_tile=row_tile,
        lane_tile=vectors * lanes,
        vector_bytes=machine.target.vector_bytes,
        partial=partial,
    )
    return Choice(schedule, members, order)


def _lane_index(step: Geometry, lanes: int, machine: Machine) -> str | None:
    """The index along which most elements are neighbours; None for a step on scalars."""
    work = step.volume(tuple(step.extents))

    def cost(index: str) -> float:
        moved, gathered = 0.0, 0
        for tensor, strides in enumerate(step.strides):
            elements = step.volume(tuple(strides))
            output = tensor == len(step.strides) - 1
            turned = index in step.kept and any(
                strides.get(i) == 1 for i in step.kept if i != index
            )
            if strides.get(index, 0) in (0, 1):
                moved += elements
            elif turned or (not output and is_small(step, tensor, machine)):
                moved += 2 * elements  # transposed in registers, or copied before
            else:
                near = abs(strides[index]) * int(step.elements[tensor][1:]) <= CACHE_LINE
                moved += (2 if near else 8) * elements
                gathered += not output
        extent = step.extents[index]
        waste = ceil(extent / lanes) * lanes / extent
        # Summing the lanes of one register tile costs about as much as a few dozen elements.
        totals = 0 if index in step.kept else 2 * lanes * step.volume(step.kept)
        return (moved + work * (1 + 1.5 * gathered)) * waste + totals

    return min(step.extents, key=cost, default=None)


CACHE_LINE = 64  # bytes

WORTH_COPYING = 8
"""How often each element of an operand must be used at least for a copy of it to pay."""


def is_small(step: Geometry, operand: int, machine: Machine) -> bool:
    """Whether an operand that is badly laid out may be copied first: it stays in cache."""
    size = step.volume(tuple(step.strides[operand]))
    fits = size * int(step.elements[operand][1:]) <= machine.l2_bytes
    return fits and step.volume(tuple(step.extents)) >= WORTH_COPYING * size


def _outer_order(step: Geometry, indices: tuple[str, ...]) -> tuple[str, ...]:
    """The outer indices, outermost first: in the output's order, or in that of a copied operand.

    Where nothing is summed, reading in order and writing out of order is the faster way round: a
    load that misses the cache is waited for, a store is not.
    """
    if step.reduced:
        return indices
    largest = max(step.strides[:-1], key=lambda strides: step.volume(tuple(strides)))
    return tuple(sorted(indices, key=lambda i: -abs(largest.get(i, 0))))


def _late_indices(step: Geometry, v: str | None, machine: Machine) -> tuple[str, ...]:
    """Reduced indices to walk outside the kept ones, collecting their sums in the output.

    A large operand should be streamed in the order in which it lies in memory. A reduced index
    whose stride there is larger than that of kept indices then belongs outside of them.
    """
    large = max(range(len(step.strides) - 1), key=lambda t: step.volume(list(step.strides[t])))
    strides = step.strides[large]
    size = step.volume(list(strides)) * int(step.elements[large][1:])
    if size <= machine.l2_bytes or step.elements[-1] != step.accumulator or v is None:
        return ()
    if step.volume(tuple(step.extents)) > 4 * step.volume(tuple(strides)):
        return ()  # elements are used often: registers are a better place for the sums
    kept = [strides[i] for i in step.kept if i in strides and i != v]
    if not kept and v in step.kept:
        kept = [strides.get(v, 0)]
    if not kept:
        return ()
    least = min(abs(stride) for stride in kept)
    return tuple(i for i in step.reduced if i != v and abs(strides.get(i, 0)) > least)


def _row_index(step: Geometry, v: str | None, lanes: int) -> tuple[str | None, int]:
    """The index of the register tile's rows and their number; None and 1 for a single row."""
    if v is None:
        return None, 1
    for strides in step.strides:
        if strides.get(v, 0) not in (0, 1):
            for index in step.kept:
                if index != v and strides.get(index) == 1 and step.extents[index] >= lanes // 2:
                    return (index, lanes) if lanes > 1 else (None, 1)
    largest = max(step.volume(list(strides)) for strides in step.strides[:-1])
    if not step.reduced or step.volume(list(step.extents)) < 2 * largest:
        return None, 1  # every element is used once: nothing to save by loading it less often
    best, saved = None, 0
    for index in step.kept:
        reuse = sum(index not in strides for strides in step.strides[:-1])
        if index != v and reuse and step.extents[index] >= 2 and step.extents[index] > saved:
            best, saved = index, step.extents[index]
    return (best, 4) if best is not None else (None, 1)


def streamed_blocks(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The block sizes of one call."""
    lanes = schedule.lane_tile
    blocks = {
        "R_BLOCK": min(256, machine.partial_sum),
        "O_BLOCK": 1,
        "U_BLOCK": schedule.row_tile,
        "V_BLOCK": lanes,
    }
    aim = 1 << 15  # elements a tile
    if "v_block" in schedule.inner:
        blocks["V_BLOCK"] = rounded(machine.partial_sum, lanes)
        aim //= max(1, extents["v"])
        extents = {**extents, "v": 1}
    inner = extents.get("r", 1)
    v, u, o = extents["v"], extents.get("u", 1), extents.get("o", 1)
    room = max(1, aim // max(1, inner))
    if "q" in schedule.outer:
        aim = machine.l1_bytes // 2 // int(schedule.elements[-1][1:])  # sums that stay in cache
        room = max(1, aim)
    if "v_block" in schedule.outer:
        blocks["V_BLOCK"] = rounded(min(v, max(lanes, room)), lanes)
        room //= min(v, blocks["V_BLOCK"])
    blocks["U_BLOCK"] = rounded(min(u, max(1, room)), schedule.row_tile)
    room //= min(u, blocks["U_BLOCK"])
    blocks["O_BLOCK"] = max(1, min(o, room, 2048))
    blocks = {name: size for name, size in blocks.items() if name in schedule.blocks}
    units = {"O_BLOCK": 1, "U_BLOCK": schedule.row_tile, "V_BLOCK": lanes}
    axes = [s for s in schedule.splits if s.index in schedule.outer[: schedule.parallel]]
    _share(blocks, {str(s.step): (extents[s.group], units[str(s.step)]) for s in axes}, threads)
    return blocks


def _share(blocks: dict[str, int], axes: Mapping[str, tuple[int, int]], threads: int) -> None:
    """Halve the largest block until there are two tiles a thread, or no block can be halved.

    ``axes`` gives for every block the extent that it cuts and the unit that it is a multiple of.
    """
    while threads > 1 and prod(-(-n // blocks[b]) for b, (n, _) in axes.items()) < 2 * threads:
        name = max(axes, key=lambda b: min(blocks[b], axes[b][0]) / axes[b][1], default="")
        if not name or min(blocks[name], axes[name][0]) <= axes[name][1]:
            return
        extent, unit = axes[name]
        blocks[name] = rounded(min(blocks[name], extent) // 2, unit)
