"""The packed recipe: both operands in panels, and a register-tiled microkernel over them.

For contractions with long m, n and k groups. It is Goto's algorithm, as in BLIS, with panels that
are packed straight from tensors of any layout, as in TBLIS.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import ceil, lcm
from typing import TYPE_CHECKING

from ..geometry import Geometry
from ..machine import Machine
from ..records import replace
from ..schedule import Group, Pack, Schedule, Split, vector_lanes
from .ahead import ahead_blocks, ahead_of
from .choice import Choice, finish_fields, layout_class, rounded, twice_summed
from .in_place import (
    THIN,
    fewest_lanes,
    is_better_in_rows,
    is_gathered,
    is_of_windows,
    is_used_rarely,
)
from .symmetric import COLLECTED, exchangeable, is_better_below, may_share

if TYPE_CHECKING:
    from ..finish import Finish

LONG = 256
"""Products of a sum whose result may be written one by one."""

LONGEST_TASK = 1 << 33
"""Multiply-adds of one task times an element's bytes: about 50 ms of work in f4 and f8, until
Python looks for Ctrl-C."""

WASTE = 1.15
"""Of tiles two vectors wide, so many times the columns that narrow ones have: then they are better.

A column of one vector needs a broadcast for each multiply-add, which is more loads, not more time.
"""

TALLEST = 12
"""Rows of a tile one vector wide: with more of them, broadcasts of a round are spilled."""

ADDRESSES = 6
"""The same where rows are read where they are: each has an address, and with more of them these are
spilled. Measured: 6 rows took 1/1.2 to 1/1.4 of the time of 7, 8, 10 or 12."""

PATIENCE = 4
"""A task that takes so many times longer is cut even where its panels are used less often."""

SHORTEST = 4
"""Positions of m or k from which on an operand is used often enough to be copied."""

COPIED = SHORTEST
"""Positions of k that are copied at once, where lanes are neighbours: so many there always are.

Measured: up to 1/1.1 of the time of copies of one position, where the operand is used a few times.
Eight at once are up to 5 % faster still, and a tenth slower where there are not as many."""

SHORTEST_SIDE = 192
"""Positions of m or n from which on a task's panels are used often enough to be packed for it."""


def packed(step: Geometry, machine: Machine) -> Choice | None:
    """The packed recipe, where the step is a contraction that is large enough for it."""
    if step.factors != 2:
        return None
    last = _last(step)
    over = twice_summed(step)
    tile = (*step.kept, *over)
    order = _order(step, tile, last)
    lanes = vector_lanes(step.accumulator, machine.target.vector_bytes)
    if is_better_in_rows(step, order, tile, lanes):
        order = order[1], order[0]
    x, y = (step.strides[i] for i in order)
    in_place = is_of_windows(step, order[0], tile)
    members = {
        "b": tuple(i for i in tile if (i in x) == (i in y)),
        "m": _near(tuple(i for i in tile if i in x and i not in y), x, None),
        "n": _near(tuple(i for i in tile if i in y and i not in x), y, last),
        "k": _summed(step, x, y),
    }
    for group in ("m", "n"):  # where a part of a side is summed, the rest is walked outside
        rest = tuple(i for i in members[group] if i not in over)
        if len(rest) < len(members[group]):
            members[group] = tuple(i for i in members[group] if i in over)
            members["b"] += rest
    # What is summed of the batch is walked outside of the tiles' sums: the output collects it.
    members["d"] = tuple(i for i in members["b"] if i in over)
    members["b"] = tuple(i for i in members["b"] if i not in over)
    summed = {group for group, indices in members.items() if any(i in over for i in indices)}
    if summed and step.elements[-1] == "f2":
        return None  # the output collects the sums of tiles
    if "d" in summed and step.elements[-1] != step.accumulator:
        return None
    size = {group: step.volume(indices) for group, indices in members.items()}
    if min(size["m"], size["k"]) < SHORTEST or size["n"] < fewest_lanes(step, order[0], tile):
        return None  # the larger operand is used too rarely to be copied
    if size["m"] <= THIN and y.get(members["n"][-1]) == 1:
        return None
    if size["m"] * size["n"] * size["k"] < machine.worth_packing:
        return None
    rows, width = tile_for(size["n"], step.accumulator, machine, in_place=in_place)
    sparse = step.finish is not None and _may_skip_sums(step.finish)
    reads = size["n"] / width
    in_place = in_place or is_used_rarely(step, order[0], reads)
    in_place = in_place or is_gathered(step, order[0], tile, reads)
    batch = (Group("b", True, False),) if members["b"] else ()
    late = (Group("d", True, True, over=True),) if members["d"] else ()
    groups = (
        *batch,
        *late,
        *(
            Group(g, len(members[g]) > 1, g == "k" or g in summed, over=g in summed)
            for g in ("m", "n", "k")
        ),
    )
    linear = exchangeable(step, members)
    symmetric = linear is not None
    alone, deep = (_depth(step.accumulator, width, machine, shared=s) for s in (False, True))
    shared = symmetric and not in_place and len(members["m"]) == 1
    shared = shared and may_share(size["m"], size["k"], deep, alone)
    deep = deep if shared else alone
    tasks = sorted(("m", "n"), key=lambda group: group in summed)  # those in parallel first
    outer = (*(g.name for g in batch), *(f"{g}_task" for g in tasks), *(g.name for g in late))
    below = symmetric and is_better_below(size["m"], rows, width)
    first, second = (
        (f"{group}_panel", f"{group}_tile") if shared else (f"{group}_tile",)
        for group in ("mn" if below else "nm")
    )
    plain = not symmetric and step.finish is None
    ahead = ahead_of(step, members, order) if plain else None
    if in_place and ahead is not None and (ahead.along != "k" or len(members["k"]) > 1):
        # Its lines are used up by the tiles that follow: hardware asks for them. Where k is found
        # in a table, there is no register left for more than its rows.
        ahead = None
    in_blocks = ahead is not None and ahead.operand == "x1"
    first = ("n_block", *first) if in_blocks else first
    # Where m is summed, the values of one tile after the other are added up in registers.
    around, inner = (first, second) if "m" in summed else ((*first, *second), ())
    outer, inner = (*outer, "k_block", "m_block", *around), (*inner, "k")
    operands = (*order, *range(2, len(step.elements) - 1))

    def matters(tensor: int, group: str) -> bool:
        if group in "bd" or (in_place and tensor == order[0]):
            return False
        # Of overlapping windows both may be neighbours: panels are filled along m or n.
        side = {order[0]: "m", order[1]: "n"}.get(tensor, group)
        return group != "k" or step.strides[tensor].get(members[side][-1]) != 1

    strides = layout_class(step, operands, groups, members, matters)
    unit = {(tensor, group) for tensor, group, stride in strides if stride == 1}

    def pack(place: int, inside: str) -> Pack:
        """How an operand is copied into panels."""
        tensor, group, panel = ("x0", "m", rows) if place == 0 else ("x1", "n", width)
        if (tensor, group) in unit:
            # Tiles of small elements, or of two parts each, take long to compile.
            element = step.elements[order[place]]
            quick = element[0] != "c" and int(element[1:]) >= 4
            return Pack(tensor, inside, group, panel, COPIED if quick else 1)
        if (tensor, "k") in unit:
            # They are transposed in squares, or in what is left of m's tile, and filled one after
            # the other: their vectors reach into the next one.
            side = min(lanes, 8 if place else 1 << (rows - 1).bit_length())
            return Pack(tensor, inside, group, panel, side, strips=False)
        close = nearest(step, (x, y)[place]) not in step.contracted
        return Pack(tensor, inside, group, panel, 1, strips=close)

    packs = [pack(1, "n_block" if in_blocks else "k_block")]
    if shared:
        packs = [replace(packs[0], width=lcm(rows, width), also="x0")]
    elif not in_place:
        packs.append(pack(0, "m_block"))
    waits = symmetric or step.finish is not None
    schedule = Schedule(
        recipe="packed",
        elements=(*(step.elements[i] for i in order), *step.elements[2:]),
        accumulator=step.accumulator,
        groups=groups,
        strides=strides,
        splits=splits(rows, width, shared=shared, in_blocks=in_blocks),
        outer=outer,
        inner=inner,
        parallel=len(batch) + 2 - len(summed - {"d"}),
        rows="m",
        lanes="n",
        row_tile=rows,
        lane_tile=width,
        vector_bytes=machine.target.vector_bytes,
        packs=tuple(packs),
        ahead=ahead,
        linear=linear or (),
        mirrored=symmetric,
        collected=waits and not sparse and size["k"] > 2 * deep,
        **finish_fields(step),
    )
    return Choice(schedule, {g.name: members[g.name] for g in groups}, operands)


def _order(step: Geometry, tile: tuple[str, ...], last: str | None) -> tuple[int, int]:
    """The operands of m and of n: the lanes run along n, where the output has neighbours.

    Unless these are a few, and the sums so long that writing them out of order costs little.
    """
    order = (0, 1)
    if last is not None and last in step.strides[0] and last not in step.strides[1]:
        order = (1, 0)
    m, n = (
        step.volume(tuple(i for i in tile if i in step.strides[t] and i not in step.strides[1 - t]))
        for t in order
    )
    return order[::-1] if lanes_along_m(m, n, step.volume(step.contracted)) else order


def lanes_along_m(m: int, n: int, k: int) -> bool:
    """Whether n, where the output has its neighbours, is so short that lanes go along m."""
    return n <= THIN < m and k >= LONG


def _depth(accumulator: str, width: int, machine: Machine, *, shared: bool = False) -> int:
    """Positions of k of which a panel of n stays in the first cache."""
    of_cache = machine.l1_bytes // 4 if shared else machine.l1_bytes * 3 // 4
    return max(8, of_cache // (width * int(accumulator[1:])))


def _last(step: Geometry) -> str | None:
    """The index along which the output has neighbours, or else what an epilogue reads."""
    tensors = reversed(step.strides[step.factors :])
    tile = (*step.kept, *step.over)
    return next((i for t in tensors for i in tile if t.get(i) == 1), None)


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


LARGER = 4
"""So many times the other operand's elements decide alone in which order sums are walked."""


def _summed(step: Geometry, x: Mapping[str, int], y: Mapping[str, int]) -> tuple[str, ...]:
    """The summed indices, outermost first, so that both operands' lines are used up.

    The larger operand's nearest index is inside, then the other's: of the smaller one all lines
    are at hand still when their next elements are read. Operands of about one size are read as
    whole vectors along the nearest index of one that has neighbours there. Where both have, that
    is the shorter one: it may be part of an index that was cut for this, see :mod:`..split`.
    """
    if not step.contracted:
        return ()
    first, second = sorted((x, y), key=lambda t: step.volume(tuple(t)))
    inside = [nearest(step, t, step.contracted) for t in (first, second)]
    if step.volume(tuple(second)) < LARGER * step.volume(tuple(first)):
        inside.sort(key=lambda i: (1 in (x.get(i), y.get(i)), -step.extents[i]))
    last = tuple(dict.fromkeys(reversed(inside)))[::-1]
    return (*(i for i in step.contracted if i not in last), *last)


def nearest(
    step: Geometry, operand: Mapping[str, int], indices: tuple[str, ...] | None = None
) -> str:
    """The index, of some or all, along which an operand has the smallest step."""
    among = tuple(operand) if indices is None else indices
    return min(among, key=lambda i: (abs(operand.get(i, sys.maxsize)), -step.extents[i]))


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


def tile_for(
    columns: int, accumulator: str, machine: Machine, *, in_place: bool = False
) -> tuple[int, int]:
    """Rows and lanes of the microkernel's tile for so many positions of n.

    Rows that are read ``in_place`` have an address each, in a register of its own.

    >>> from ..machine import TARGETS
    >>> machine = Machine(TARGETS["x86-64-v3"])
    >>> tile_for(64, "f4", machine), tile_for(24, "f4", machine)
    ((6, 16), (12, 8))
    """
    lanes = vector_lanes(accumulator, machine.target.vector_bytes)
    rows, vectors = register_tile(accumulator, machine.target.registers)
    if vectors > 1 and rounded(columns, vectors * lanes) > WASTE * rounded(columns, lanes):
        rows, vectors = min(rows * vectors, ADDRESSES if in_place else TALLEST), 1
    return rows, vectors * lanes


def halved(
    volume: tuple[int, int], task: tuple[int, int], tile: tuple[int, int], tasks: int, least: int
) -> tuple[int, int]:
    """Positions of m and of n that a task has, so that there are so many tasks if possible.

    The longer side is halved as often as it takes, but not below ``least`` positions: the squarer
    and the larger a task, the less it has to pack.
    """
    (m, n), (m_task, n_task), (rows, width) = volume, task, tile
    while ceil(m / m_task) * ceil(n / n_task) < tasks:
        m_half, n_half = rounded(ceil(m_task / 2), rows), rounded(ceil(n_task / 2), width)
        may_halve_m = least <= m_half < m_task
        may_halve_n = least <= n_half < n_task
        if may_halve_m and (m_task >= n_task or not may_halve_n):
            m_task = m_half
        elif may_halve_n:
            n_task = n_half
        else:
            break
    return m_task, n_task


def splits(
    rows: int, width: int, *, shared: bool = False, in_blocks: bool = False
) -> tuple[Split, ...]:
    """How the loops of a product are split whose register tile has so many rows and lanes.

    Panels that are ``shared`` hold several tiles of either side. Lanes may be packed and multiplied
    ``in_blocks`` of a few tiles.
    """
    m_panel, n_panel = ((Split(group, "panel", lcm(rows, width)),) * shared for group in "mn")
    return (
        Split("m", "task", "M_TASK"),
        Split("m", "block", "M_BLOCK"),
        *m_panel,
        Split("m", "tile", rows),
        Split("n", "task", "N_TASK"),
        *([Split("n", "block", "N_BLOCK")] if in_blocks else []),
        *n_panel,
        Split("n", "tile", width),
        Split("k", "block", "K_BLOCK"),
    )


def _may_skip_sums(finish: Finish) -> bool:
    """Whether a formula needs the sums under a mask alone."""
    from ..finish import wanted_where  # an equation alone has no formula

    return wanted_where(finish.formula) is not None


def packed_blocks(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The block sizes of one call."""
    size = int(schedule.accumulator[1:])
    rows, width = schedule.row_tile, schedule.lane_tile
    m, n, k = extents["m"], extents["n"], extents["k"]
    shared = any(pack.also for pack in schedule.packs)
    depth = _depth(schedule.accumulator, width, machine, shared=shared)
    if shared:  # tasks begin where panels do
        rows = width = schedule.packs[0].width
    waits = schedule.mirrored or schedule.formula is not None
    if not schedule.collected and (waits or schedule.elements[-1] != schedule.accumulator):
        depth = k  # the output cannot hold partial sums
    unit = max(8, *(pack.depth for pack in schedule.packs))  # no panel is cut within such a step
    k_block = rounded(ceil(k / ceil(k / depth)), unit)
    n_task = max(width, min(4096, (4 << 20) // (k_block * size)) // width * width)
    m_block = max(rows, machine.l2_bytes * 2 // 3 // (k_block * size) // rows * rows)
    task = rounded(m, rows), min(n_task, rounded(n, width))
    if schedule.collected and not shared:
        task = min(task[0], COLLECTED // rows * rows), min(task[1], COLLECTED)
    if shared:
        m_block = task[0]  # the panels hold all positions up to the diagonal
    if any(group.over for group in schedule.groups if group.name != "d"):
        return _over_blocks(schedule, extents, (task[0], m_block, task[1], k_block), threads)
    batch = extents.get("b", 1)
    slow = {"c": 2, "i": size // 2, "u": size // 2}.get(schedule.accumulator[0], 1)
    volume = m * n * k * extents.get("d", 1)
    tasks = ceil(volume * size * max(slow, 1) / LONGEST_TASK)
    task = halved((m, n), task, (rows, width), tasks, SHORTEST_SIDE)
    task = halved((m, n), task, (rows, width), tasks // PATIENCE, SHORTEST_SIDE // 2)
    if threads > 1:
        task = halved((m, n), task, (rows, width), ceil(2 * threads / batch), 1)
    m_task, n_task = task
    if not shared:
        blocks = ceil(min(m, m_task) / m_block)
        m_block = rounded(ceil(min(m, m_task) / blocks), rows)  # no last block of a few rows
    found = {"M_TASK": m_task, "M_BLOCK": m_block, "N_TASK": n_task, "K_BLOCK": k_block}
    if schedule.ahead is not None:
        found |= ahead_blocks(schedule, found, (min(m, m_task), min(n, n_task)))
    return found


def _over_blocks(
    schedule: Schedule, extents: Mapping[str, int], sizes: tuple[int, int, int, int], threads: int
) -> dict[str, int]:
    """The block sizes where the values of tiles are summed along m, n, or both of them.

    How these are cut decides the order of the sum, so that it depends on no number of threads; the
    other one may be cut for them.
    """
    m_task, m_block, n_task, k_block = sizes
    over = {group.name for group in schedule.groups if group.over}
    pieces = ceil(2 * threads / extents.get("b", 1)) if threads > 1 else 1
    if "m" not in over:
        m_task = min(m_task, rounded(ceil(extents["m"] / pieces), schedule.row_tile))
    elif "n" not in over:
        n_task = min(n_task, rounded(ceil(extents["n"] / pieces), schedule.lane_tile))
    blocks = {"M_TASK": m_task, "M_BLOCK": min(m_block, m_task), "N_TASK": n_task}
    return blocks | {"K_BLOCK": k_block}
