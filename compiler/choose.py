"""Choose a schedule for a step, and the block sizes for one call of it.

There are two recipes:

``packed``
    A contraction with long m, n and k groups: both operands are packed into panels, and a
    register-tiled microkernel runs over them (Goto's algorithm, as in BLIS and TBLIS).
``streamed``
    Everything else: a register tile whose operands are read where they are. The lanes run along
    one index, kept or reduced; the rows, if any, along another one that saves loads or makes a
    transposition possible in registers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, prod

from .geometry import Geometry
from .loopnest import Group
from .machine import Machine
from .schedule import Pack, Schedule, Split, vector_lanes


@dataclass(frozen=True, slots=True)
class Choice:
    """A schedule, and which of the step's indices form each of its groups, outermost first."""

    schedule: Schedule
    members: Mapping[str, tuple[str, ...]]
    operands: tuple[int, ...]  # the step's operands in the kernel's order


def choose(step: Geometry, machine: Machine) -> Choice:
    """The schedule for a step in canonical form."""
    packed = _packed(step, machine)
    return packed if packed is not None else _streamed(step, machine)


# --- packed --------------------------------------------------------------------------------------


def _packed(step: Geometry, machine: Machine) -> Choice | None:
    """The packed recipe, where the step is a contraction that is large enough for it."""
    if len(step.elements) != 3:
        return None
    out = step.strides[-1]
    order = (0, 1)
    last = next((i for i in step.kept if out[i] == 1), None)
    if last is not None and last in step.strides[0] and last not in step.strides[1]:
        order = (1, 0)  # the lanes run along n, where the output has neighbours
    x, y = (step.strides[i] for i in order)
    members = {
        "b": tuple(i for i in step.kept if (i in x) == (i in y)),
        "m": tuple(i for i in step.kept if i in x and i not in y),
        "n": tuple(i for i in step.kept if i in y and i not in x),
        "k": step.reduced,
    }
    size = {group: step.volume(indices) for group, indices in members.items()}
    lanes = vector_lanes(step.accumulator, machine.target.vector_bytes)
    if min(size["m"], size["n"], size["k"]) < 4 or size["n"] < lanes // 2:
        return None
    if size["m"] * size["n"] * size["k"] < machine.worth_packing:
        return None
    rows, vectors = _register_tile(step.accumulator, machine.target.registers)
    width = vectors * lanes
    batch = (Group("b", True, False),) if members["b"] else ()
    groups = (
        *batch,
        *(Group(g, len(members[g]) > 1, g == "k") for g in ("m", "n", "k")),
    )
    outer = (*(g.name for g in batch), "m_task", "n_task", "k_block", "m_block", "n_tile", "m_tile")
    strides = _strides(step, order, groups, members, ("m", "n", "k"))
    unit = {(tensor, group) for tensor, group, stride in strides if stride == 1}
    square = min(lanes, 1 << (rows - 1).bit_length())  # what m and k are transposed in
    depth = {
        (tensor, group): side if (tensor, "k") in unit and (tensor, group) not in unit else 1
        for tensor, group, side in (("x0", "m", square), ("x1", "n", lanes))
    }
    schedule = Schedule(
        recipe="packed",
        elements=(*(step.elements[i] for i in order), step.elements[-1]),
        accumulator=step.accumulator,
        groups=groups,
        strides=strides,
        splits=(
            Split("m", "task", "M_TASK"),
            Split("m", "block", "M_BLOCK"),
            Split("m", "tile", rows),
            Split("n", "task", "N_TASK"),
            Split("n", "tile", width),
            Split("k", "block", "K_BLOCK"),
        ),
        outer=outer,
        inner=("k",),
        parallel=len(batch) + 2,
        rows="m",
        lanes="n",
        row_tile=rows,
        lane_tile=width,
        vector_bytes=machine.target.vector_bytes,
        packs=(
            Pack("x1", "k_block", "n", width, depth["x1", "n"]),
            Pack("x0", "m_block", "m", rows, depth["x0", "m"]),
        ),
    )
    return Choice(schedule, {g.name: members[g.name] for g in groups}, order)


def _register_tile(accumulator: str, registers: int) -> tuple[int, int]:
    """Rows of the microkernel's tile, and vectors in each of them.

    Three quarters of the registers hold sums; the rest is for what is multiplied. Integers need
    registers for products too, since they have no fused multiply-add. LLVM keeps a column's values
    in registers, one a row, so that taller tiles than these would be spilled.
    """
    if accumulator[0] == "c":
        return min(registers * 3 // 8, 8), 1
    sums = min(registers * 3 // 4, 20) if accumulator[0] == "f" else registers // 2
    return sums // 2, 2


# --- streamed ------------------------------------------------------------------------------------


def _streamed(step: Geometry, machine: Machine) -> Choice:
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
        strides=_strides(
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


# --- shared ---------------------------------------------------------------------------------------


def _strides(
    step: Geometry,
    order: Iterable[int],
    groups: Iterable[Group],
    members: Mapping[str, tuple[str, ...]],
    matters: Iterable[str],
) -> tuple[tuple[str, str, int | None], ...]:
    """The layout class: for every tensor and group, whether its elements are neighbours.

    It is only told for the groups where it ``matters``, those that register tiles run along.
    """
    tensors = [*order, len(step.strides) - 1]
    names = [*(f"x{i}" for i in range(len(tensors) - 1)), "out"]
    table: list[tuple[str, str, int | None]] = []
    for name, tensor in zip(names, tensors, strict=True):
        strides = step.strides[tensor]
        for group in groups:
            indices = members[group.name]
            if not any(index in strides for index in indices):
                continue
            unit = bool(indices) and strides.get(indices[-1]) == 1
            table.append((name, group.name, 1 if unit and group.name in matters else None))
    return tuple(table)


def block_sizes(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The run-time block sizes of one call.

    What decides the order of a sum (``K_BLOCK``, ``R_BLOCK``) does not depend on the number of
    threads, so that the result's bits do not either.
    """
    if schedule.recipe == "packed":
        return _packed_blocks(schedule, extents, machine, threads)
    lanes = schedule.lane_tile
    blocks = {
        "R_BLOCK": min(256, machine.partial_sum),
        "O_BLOCK": 1,
        "U_BLOCK": schedule.row_tile,
        "V_BLOCK": lanes,
    }
    aim = 1 << 15  # elements a tile
    if "v_block" in schedule.inner:
        blocks["V_BLOCK"] = _round(machine.partial_sum, lanes)
        aim //= max(1, extents["v"])
        extents = {**extents, "v": 1}
    inner = extents.get("r", 1)
    v, u, o = extents["v"], extents.get("u", 1), extents.get("o", 1)
    room = max(1, aim // max(1, inner))
    if "q" in schedule.outer:
        aim = machine.l1_bytes // 2 // int(schedule.elements[-1][1:])  # sums that stay in cache
        room = max(1, aim)
    if "v_block" in schedule.outer:
        blocks["V_BLOCK"] = _round(min(v, max(lanes, room)), lanes)
        room //= min(v, blocks["V_BLOCK"])
    blocks["U_BLOCK"] = _round(min(u, max(1, room)), schedule.row_tile)
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
        blocks[name] = _round(min(blocks[name], extent) // 2, unit)


def _packed_blocks(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    size = int(schedule.accumulator[1:])
    rows, width = schedule.row_tile, schedule.lane_tile
    m, n, k = extents["m"], extents["n"], extents["k"]
    depth = max(8, machine.l1_bytes // 2 // (width * size))
    if schedule.elements[-1] != schedule.accumulator:
        depth = k  # the output cannot hold partial sums
    unit = max(8, *(pack.depth for pack in schedule.packs))  # no panel is cut within such a step
    k_block = _round(ceil(k / ceil(k / depth)), unit)
    m_block = max(rows, machine.l2_bytes // 2 // (k_block * size) // rows * rows)
    n_task = max(width, min(4096, (4 << 20) // (k_block * size)) // width * width)
    m_task = _round(m, rows)
    n_task = min(n_task, _round(n, width))
    tasks = extents.get("b", 1) * ceil(n / n_task)
    if tasks < 2 * threads and threads > 1:
        pieces = ceil(2 * threads / tasks)
        if m >= n:
            m_task = _round(ceil(m / pieces), rows)
        else:
            n_task = min(n_task, _round(ceil(n / pieces), width))
    return {
        "M_TASK": m_task,
        "M_BLOCK": min(m_block, m_task),
        "N_TASK": n_task,
        "K_BLOCK": k_block,
    }


def _round(value: int, multiple: int) -> int:
    """``value`` rounded up to a multiple."""
    return -(-value // multiple) * multiple
