"""The packed recipe: both operands in panels, and a register-tiled microkernel over them.

For contractions with long m, n and k groups. It is Goto's algorithm, as in BLIS, with panels that
are packed straight from tensors of any layout, as in TBLIS.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from ..geometry import Geometry
from ..loopnest import Group
from ..machine import Machine
from ..schedule import Pack, Schedule, Split, vector_lanes
from .choice import Choice, layout_class, rounded

THIN = 8
"""The extent of m or n up to which the other operand is better read where it is."""


def packed(step: Geometry, machine: Machine) -> Choice | None:
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
        "m": _near(tuple(i for i in step.kept if i in x and i not in y), x, None),
        "n": _near(tuple(i for i in step.kept if i in y and i not in x), y, last),
        "k": step.reduced,
    }
    size = {group: step.volume(indices) for group, indices in members.items()}
    lanes = vector_lanes(step.accumulator, machine.target.vector_bytes)
    if min(size["m"], size["n"], size["k"]) < 4 or size["n"] < lanes // 2:
        return None
    if size["n"] <= THIN or (size["m"] <= THIN and y.get(members["n"][-1]) == 1):
        return None  # the larger operand is used too rarely to be copied
    if size["m"] * size["n"] * size["k"] < machine.worth_packing:
        return None
    rows, vectors = register_tile(step.accumulator, machine.target.registers)
    width = vectors * lanes
    batch = (Group("b", True, False),) if members["b"] else ()
    groups = (
        *batch,
        *(Group(g, len(members[g]) > 1, g == "k") for g in ("m", "n", "k")),
    )
    outer = (*(g.name for g in batch), "m_task", "n_task", "k_block", "m_block", "n_tile", "m_tile")
    strides = layout_class(step, order, groups, members, lambda _, group: group != "b")
    unit = {(tensor, group) for tensor, group, stride in strides if stride == 1}
    # Positions of k that are transposed at once, in squares or in what is left of m's tile.
    side = {"m": min(lanes, 1 << (rows - 1).bit_length()), "n": min(lanes, 8)}
    depth = {
        (tensor, group): side[group] if (tensor, "k") in unit and (tensor, group) not in unit else 1
        for tensor, group in (("x0", "m"), ("x1", "n"))
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


def _near(
    indices: tuple[str, ...], operand: Mapping[str, int], last: str | None
) -> tuple[str, ...]:
    """A group's indices, outermost first, so that its operand is read line by line.

    The index along which the operand has neighbours goes to the inside, only the output's ``last``
    stays further inside: then a cache line that one panel has loaded for a single element is still
    there for the panels that follow.
    """
    inside = [i for i in indices if operand.get(i) == 1 and i != last]
    inside += [i for i in indices if i == last]
    return (*(i for i in indices if i not in inside), *inside)


def register_tile(accumulator: str, registers: int) -> tuple[int, int]:
    """Rows of the microkernel's tile, and vectors in each of them.

    Three quarters of the registers hold sums; the rest is for what is multiplied. Integers need
    registers for products too, since they have no fused multiply-add. LLVM keeps a column's values
    in registers, one a row, so that taller tiles than these would be spilled.
    """
    if accumulator[0] == "c":
        return min(registers * 3 // 8, 8), 1
    sums = min(registers * 3 // 4, 20) if accumulator[0] == "f" else registers // 2
    return sums // 2, 2


def packed_blocks(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The block sizes of one call."""
    size = int(schedule.accumulator[1:])
    rows, width = schedule.row_tile, schedule.lane_tile
    m, n, k = extents["m"], extents["n"], extents["k"]
    depth = max(8, machine.l1_bytes // 2 // (width * size))
    if schedule.elements[-1] != schedule.accumulator:
        depth = k  # the output cannot hold partial sums
    unit = max(8, *(pack.depth for pack in schedule.packs))  # no panel is cut within such a step
    k_block = rounded(ceil(k / ceil(k / depth)), unit)
    m_block = max(rows, machine.l2_bytes // 2 // (k_block * size) // rows * rows)
    n_task = max(width, min(4096, (4 << 20) // (k_block * size)) // width * width)
    m_task = rounded(m, rows)
    n_task = min(n_task, rounded(n, width))
    tasks = extents.get("b", 1) * ceil(n / n_task)
    if tasks < 2 * threads and threads > 1:
        pieces = ceil(2 * threads / tasks)
        if m >= n:
            m_task = rounded(ceil(m / pieces), rows)
        else:
            n_task = min(n_task, rounded(ceil(n / pieces), width))
    return {
        "M_TASK": m_task,
        "M_BLOCK": min(m_block, m_task),
        "N_TASK": n_task,
        "K_BLOCK": k_block,
    }
