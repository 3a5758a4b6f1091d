"""The streamed recipe: a register tile whose operands are read where they are.

For everything that is not worth packing, with any number of operands. The lanes run along one
index, kept or reduced; the rows, if any, along another one that saves loads or makes a
transposition possible in registers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, lcm, prod

from ..geometry import Geometry
from ..machine import Machine
from ..records import replace
from ..schedule import Group, Panel, Schedule, Split, vector_lanes
from .choice import Choice, finish_fields, layout_class, rounded, twice_summed


def streamed(step: Geometry, machine: Machine) -> Choice:
    """The streamed recipe: any number of operands, any indices."""
    lanes = vector_lanes(step.accumulator, machine.target.vector_bytes)
    v = lane_index(step, lanes, machine)
    u, row_tile = _row_index(step, v, lanes)
    square = not step.reduced and row_tile == lanes  # to be transposed in registers
    vectors, rows = 1, _rows(step, u, v)
    if v is not None and not square:
        shapes = _shapes(step, v, u, row_tile, lanes)
        if len(rows) > 1:
            shapes = [*shapes, *TALL]
        sides = step.volume(rows), step.extents[v]
        if u is not None and row_tile == 1 and v in (*step.contracted, *step.over):
            row_tile, vectors = _sum_tile(*sides, lanes, shapes)
        else:
            row_tile, vectors = _tile(*sides, lanes, shapes)
    order = _operand_order(step, v, u)
    step = replace(
        step,
        elements=(*(step.elements[t] for t in order), step.elements[-1]),
        strides=(*(step.strides[t] for t in order), step.strides[-1]),
    )
    again = twice_summed(step)
    summed = step.contracted or step.over
    reduced_lanes = v in summed
    outer = _outer_order(step, tuple(i for i in step.kept if i not in (*rows, v)))
    members = {
        "o": outer,
        "u": rows,
        "v": (v,) if v is not None else (),
        "w": tuple(i for i in again if i not in (*rows, v)),
        "q": _late_indices(step, v, u, (row_tile, vectors * lanes), machine),
    }
    members["r"] = tuple(i for i in summed if i != v and i not in members["q"])
    members = {g: indices for g, indices in members.items() if indices or g == "v"}
    panels = () if square else _panels(step, members, lanes, machine)
    if panels and row_tile * vectors > 1:  # from panels, all tiles are read as fast
        row_tile, vectors = _panel_tile(step, str(v), u, lanes)
    groups = tuple(
        Group(
            g,
            g == "o" or len(members[g]) != 1,
            any(i in step.reduced for i in members[g]),
            over=any(i in step.over for i in members[g]),
        )
        for g in members
    )
    splits = [
        Split("o", "block", "O_BLOCK"),
        Split("u", "block", "U_BLOCK"),
        Split("u", "tile", row_tile),
        Split("v", "block", "V_BLOCK"),
        Split("v", "tile", vectors * lanes),
        Split("w", "block", "W_BLOCK"),
        Split("q", "block", "Q_BLOCK"),
        Split("r", "block", "R_BLOCK"),
    ]
    blocks = [f"{g}_block" for g in ("o", "u", "v") if g in members]
    tiles = ["v_tile"]
    if u is not None:
        # Innermost goes the index that the largest operand lacks, so that it is in L1 by then.
        large = _largest(step)
        far = step.volume(tuple(step.strides[large])) * int(step.elements[large][1:])
        outside = u in step.strides[large] and far > machine.l2_bytes
        tiles.insert(0 if outside else 1, "u_tile")
    late = ["q_block"] if "q" in members else []
    if "o" in members:
        inside = late and _walks_inside(step, outer, members["q"])
        tiles = [*late, "o", *tiles] if not inside else ["o", *late, *tiles]
    else:
        tiles = [*late, *tiles]
    inner = ["q"] if late else []
    inner += ["r_block", "r"] if "r" in members else []
    if reduced_lanes:
        for loops, loop in ((blocks, "v_block"), (tiles, "v_tile")):
            loops.remove(loop)
            inner.append(loop)
    around = ["w_block", "w"] if "w" in members else []
    for group, index in (("u", u), ("v", v)):
        if index in again:
            blocks.remove(f"{group}_block")
            tiles.remove(f"{group}_tile")
            around += [f"{group}_block", f"{group}_tile"]
    inner = [*around, *inner]
    parallel = len(blocks)
    for loop in ("r_block", "v_block"):
        if panels and loop in inner:  # a panel holds one block of what is summed
            inner.remove(loop)
            blocks.append(loop)
    rowwise = not panels and _is_rowwise(step, members, (row_tile, vectors * lanes), machine)
    if rowwise:
        inner.remove("r_block")
        tiles.insert(
            min(tiles.index(tile) for tile in ("u_tile", "v_tile") if tile in tiles), "r_block"
        )
    partial = None
    early = [i for i in summed if i not in members.get("q", ())]
    if early and not rowwise and step.volume(early) > 2 * machine.partial_sum and not panels:
        long_lanes = reduced_lanes and step.extents[str(v)] > machine.partial_sum
        partial = "v_block" if long_lanes else "r_block"
    neighbours = {(int(panel.operand[1:]), panel.groups[-1]) for panel in panels}

    def matters(tensor: int, group: str) -> bool:
        """Whether rows are neighbours is asked where lanes are not: they are transposed then."""
        turned = step.strides[tensor].get(str(v), 1) != 1
        return group == "v" or (tensor, group) in neighbours or (group == "u" and turned)

    schedule = Schedule(
        recipe="streamed",
        elements=step.elements,
        accumulator=step.accumulator,
        groups=groups,
        strides=layout_class(step, range(len(order)), groups, members, matters),
        splits=tuple(split for split in splits if split.group in members),
        outer=(*blocks, *tiles),
        inner=tuple(inner),
        parallel=parallel,
        rows="u" if u is not None else None,
        lanes="v",
        row_tile=row_tile,
        lane_tile=vectors * lanes,
        vector_bytes=machine.target.vector_bytes,
        partial=partial,
        panels=panels,
        **finish_fields(step),
    )
    return Choice(schedule, members, order)


def _operand_order(step: Geometry, v: str | None, u: str | None) -> tuple[int, ...]:
    """The operands' order in the kernel: by the part that they play, so that ``ij,jk`` and
    ``jk,ij`` share their kernels.
    """

    def part(tensor: int) -> tuple[str | int, ...]:
        strides = step.strides[tensor]
        roles = (v, u), (strides.get(str(v)) == 1, strides.get(str(u)) == 1)
        others = [i in strides for group in (step.kept, step.reduced) for i in group]
        depends = (index in strides for index in roles[0])
        return (step.elements[tensor], *depends, *roles[1], *others)

    reads = range(step.factors, len(step.elements) - 1)
    return (*sorted(range(step.factors), key=part), *reads)


def lane_index(step: Geometry, lanes: int, machine: Machine) -> str | None:
    """The index along which most elements are neighbours; None for a step on scalars."""
    work = step.volume(tuple(step.extents))

    def cost(index: str) -> float:
        moved, gathered, overlap = 0.0, 0.0, False
        for tensor, strides in enumerate(step.strides):
            elements = step.volume(tuple(strides))
            span = 1 + sum((step.extents[i] - 1) * abs(by) for i, by in strides.items())
            if span < elements:  # windows overlap: what one has loaded is there for the others
                elements, overlap = span, True
            output = tensor == len(step.strides) - 1
            turned = any(strides.get(i) == 1 for i in strides if i != index)
            if strides.get(index, 0) in (0, 1):
                moved += elements
            elif strides[index] == 2 and not output and index in step.contracted:
                moved, gathered = moved + 2 * elements, gathered + 0.3  # vectors, of which half
            elif turned or (not output and is_small(step, tensor, machine)):
                moved += _turning(step, tensor, index) * elements  # transposed, or copied before
            else:
                near = abs(strides[index]) * int(step.elements[tensor][1:]) <= CACHE_LINE
                moved += (2 if near else 8) * elements
                gathered += not output
        extent = step.extents[index]
        waste = ceil(extent / lanes) * lanes / extent
        if overlap and extent < lanes and index not in step.contracted:
            waste *= SHORT  # every step of every sum is under masks
        # Summing the lanes of one register tile costs about as much as a few dozen elements, and
        # so does masking those of its last vector.
        again = twice_summed(step)
        tiles = step.kept if index in again else (*step.kept, *again)
        masked = sum(index in strides for strides in step.strides) if extent % lanes else 0
        if index in step.kept and extent > lanes:
            masked = 0  # tiles are wider than a vector, and most are whole
        ends = 3 * masked * lanes * step.volume(tuple(i for i in tiles if i != index))
        totals = 0 if index in step.kept else 6 * lanes * step.volume(tiles)
        if len(tiles) > 1:  # rows are totalled and masked together
            totals, ends = totals // 2, ends // 2
        return (moved + work * (1 + 1.5 * gathered)) * waste + totals + ends

    return min(step.extents, key=cost, default=None)


def _turning(step: Geometry, tensor: int, lanes: str) -> int:
    """What an element costs that is brought beside the other lanes' ones, in elements moved."""
    strides = step.strides[tensor]
    if not step.reduced:
        return 2
    if step.volume(tuple(strides)) > 128 * step.extents[lanes]:
        return 8
    run = next((step.extents[i] for i, s in strides.items() if s == 1 and i != lanes), 0)
    if tensor == len(step.strides) - 1 and run > 4:
        return 6  # stored one by one
    if strides[lanes] == run and run <= 8:
        return 2  # whole vectors, whose lanes are sorted
    return 3 if _depth(run) == run or run % 8 == 0 else 5


CACHE_LINE, PAGE = 64, 4096  # bytes
NEAR = 1024  # bytes of one operand that are read before the next operand's

FEWEST = 8
"""Rows that are added up in registers before they are added to the output."""

STREAMS = 16
"""Places of memory that are read side by side and still prefetched."""

SHORT = 1.5
"""What a step of sums beside each other costs that fill no vector. Measured on gradients of
depthwise convolutions with 5 x 5 taps and a stride of 2."""

SHORT_SUM = 128
"""Elements that a total of lanes is worth: shorter rows are added up before it."""

WORTH_COPYING = 8
"""How often each element of an operand must be used at least for a copy of it to pay."""


def is_held(choice: Choice, operand: int) -> bool:
    """Whether a step brings an operand into order by itself, block by block."""
    name = f"x{choice.operands.index(operand)}"
    return any(panel.operand == name for panel in choice.schedule.panels)


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


def _largest(step: Geometry) -> int:
    """The operand with most elements, the first one of several."""
    return max(range(len(step.strides) - 1), key=lambda t: step.volume(tuple(step.strides[t])))


TILES = (*((1, n) for n in (1, 2, 3, 4)), (2, 2), (2, 4), (3, 4), (4, 1), (4, 2), (5, 1))
"""Rows and vectors of register tiles. All up to (6, 4) of at most twelve registers, 19 of them,
would take 5 % less time in the mean of many sizes, by the cost below, and make twice the kernels.
"""


WIDE = ((1, 6), (1, 9), (1, 12))
"""Tiles for sums of rows that are no wider than one: rows are then read whole, one by one."""

_PANEL_TILES = {2: (2, 4), 3: (3, 4)}
"""Tiles of few rows where lanes are read from panels."""


def _panel_tile(step: Geometry, v: str, u: str | None, lanes: int) -> tuple[int, int]:
    """Rows and vectors of the register tile where lanes are read from panels."""
    if u is None:
        return (1, 4)
    usual = _PANEL_TILES.get(step.extents[u], (4, 2))
    return (4, 3) if usual == (4, 2) and ceil(step.extents[v] / lanes) == 3 else usual


LATENCY = 8
"""What a step of a sum costs at least, as it waits for the one before, in instructions."""


def _shapes(step: Geometry, v: str, u: str | None, rows: int, lanes: int) -> list[tuple[int, int]]:
    """The tiles to choose from, where ``rows`` are more than one if they are to be transposed."""
    if rows > 1:
        return [(rows, 1), (rows, {2: 4, 3: 4, 4: 2}.get(rows, 1))]
    pairs = v in step.reduced and any(strides.get(v) == 2 for strides in step.strides)
    if u is None:
        single = [tile for tile in TILES if tile[0] == 1]
        if pairs:
            return single[:1]
        if not step.reduced and lanes <= step.extents[v] < single[-1][1] * lanes:
            return single[:1]  # the last one is moved back, so that none is masked
        if not step.reduced or v not in step.kept:
            return [single[0], single[-1]]
        return single + [tile for tile in WIDE if step.extents[v] <= tile[1] * lanes]
    if v in step.reduced:
        if pairs:
            return [(4, 1), (5, 1)]  # two loads a vector: the end of a wide tile takes long
        return [(2, 4)] if step.extents[u] == 2 else [(4, 1), (4, 3)]
    return [tile for tile in TILES if tile[0] > 1]


def _tile(u: int, v: int, lanes: int, tiles: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Rows of the register tile and vectors in each, for extents ``u`` and ``v``.

    At most twelve registers hold sums. A step of the sum costs a multiply-add for each of them and
    a load for each row and vector; tiles that are not whole cost twice as much.
    """

    def cost(tile: tuple[int, int]) -> float:
        height, vectors = tile
        width = vectors * lanes
        whole = (u // height) * (v // width)
        tiles = 2 * ceil(u / height) * ceil(v / width) - whole
        return tiles * max(height * vectors + height + vectors, LATENCY)

    return min(tiles, key=cost)


def _sum_tile(u: int, v: int, lanes: int, tiles: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The same where sums run along the lanes: in cycles, which a walk along them takes.

    A multiply-add waits for the one before for 4 cycles; two vectors are loaded in one, or fewer
    under masks. Rows outside cost as much as those inside, and so does an end of the lanes more.
    """

    def cost(tile: tuple[int, int]) -> float:
        height, vectors = tile
        whole, rest = divmod(v, vectors * lanes)
        loads = vectors * (height + 1)
        cycles = 12 + whole * max(4, loads / 2) + bool(rest) * (10 + 1.5 * loads)
        return ceil(u / height) * cycles

    return min(tiles, key=cost)


def _late_indices(
    step: Geometry, v: str | None, u: str | None, tile: tuple[int, int], machine: Machine
) -> tuple[str, ...]:
    """Reduced indices to walk outside the kept ones, collecting their sums in the output.

    A large operand should be streamed in the order in which it lies in memory. A reduced index
    whose stride there is larger than that of kept indices then belongs outside of them. It is
    walked in blocks, whose sums stay in registers.
    """
    large = _largest(step)
    strides = step.strides[large]
    size = step.volume(tuple(strides)) * int(step.elements[large][1:])
    if size <= machine.l2_bytes or step.elements[-1] != step.accumulator or v is None:
        return ()
    if step.finish is not None:
        return ()  # what its formula makes has another place and type than the sums
    if _is_reused(step, strides, u, tile):
        return ()  # elements are used often: registers are a better place for the sums
    inner = [abs(strides[i]) for i in step.kept if i in strides and i != v]
    wide = v in step.kept and v in strides and step.extents[v] > tile[1]

    def is_far(index: str) -> bool:
        """Whether what lies between is out of cache until it is read, or too much to prefetch."""
        apart = abs(strides.get(index, 0)) * int(step.elements[large][1:])
        streams = step.extents[index] > STREAMS and apart >= NEAR
        return streams or apart * step.extents[index] > machine.l2_bytes // 2

    late = tuple(
        i
        for i in step.reduced
        if i != v and (any(abs(strides.get(i, 0)) > s for s in inner) or (wide and is_far(i)))
    )
    far = [abs(strides[i]) for i in late if is_far(i)]
    return tuple(i for i in late if abs(strides[i]) >= min(far)) if far else ()


def _is_reused(
    step: Geometry, strides: Mapping[str, int], u: str | None, tile: tuple[int, int]
) -> bool:
    """Whether elements of a tensor are loaded for more than four register tiles."""
    rows = tile[0] if u not in strides else 1
    return step.volume(tuple(step.extents)) > 4 * rows * step.volume(tuple(strides))


def _is_rowwise(
    step: Geometry,
    members: Mapping[str, tuple[str, ...]],
    tile: tuple[int, int],
    machine: Machine,
) -> bool:
    """Whether a few rows at a time are added up in the output, since they are wider than a tile.

    To walk all rows for each tile would read a large operand in pieces that are not prefetched.
    """
    v, summed = next(iter(members["v"]), None), members.get("r", ())
    strides = step.strides[_largest(step)]
    item = int(step.elements[_largest(step)][1:])
    if v is None or step.elements[-1] != step.accumulator or step.finish is not None:
        return False
    if v not in step.kept or strides.get(v) != 1 or step.extents[v] <= tile[1]:
        return False
    often = _is_reused(step, strides, next(iter(members.get("u", ())), None), tile)
    alone = bool(summed) and all(i in strides for i in summed) and not step.over
    walked = step.volume((*summed, v)) * item > machine.l1_bytes // 2
    large = step.volume(tuple(strides)) * item > machine.l2_bytes
    return large and walked and alone and not often


def _walks_inside(step: Geometry, outer: tuple[str, ...], late: tuple[str, ...]) -> bool:
    """Whether late indices lie inside of all outer ones in the largest operand."""
    strides = step.strides[_largest(step)]
    most = max(abs(strides.get(i, 0)) for i in late)
    return all(abs(strides[i]) > most for i in outer if i in strides)


def _row_index(step: Geometry, v: str | None, lanes: int) -> tuple[str | None, int]:
    """The index of the register tile's rows and their number; None and 1 for a single row."""
    if v is None:
        return None, 1
    for tensor in range(len(step.strides) - 1, -1, -1):
        strides = step.strides[tensor]
        if lanes == 1 or strides.get(v, 0) in (0, 1):
            continue
        index = next((i for i in step.kept if i != v and strides.get(i) == 1), None)
        if index is None or (step.reduced and tensor < len(step.strides) - 1):
            continue
        # The neighbours of a tensor are the rows: they are transposed in registers.
        if not step.reduced and step.extents[index] >= lanes // 2:
            return index, lanes
        return index, _depth(step.extents[index])
    if not step.reduced:
        return None, 1
    # Rows want an index that an operand lacks: it is then loaded less often.
    large = step.strides[_largest(step)]
    reused = v in step.reduced or step.volume(tuple(step.extents)) >= 2 * step.volume(tuple(large))
    best, saved = None, (False, 0)
    for index in (*step.kept, *twice_summed(step)):
        if index == v or not reused or all(index in t for t in step.strides[:-1]):
            continue
        lacking = index not in large and len(large) > 1
        found = (lacking, -abs(large[index]) if index in large else step.extents[index])
        if best is None or found > saved:
            best, saved = index, found
    return best, 1


FEW = 8
"""Rows that a register tile of sums along the lanes should have: with fewer of them, what they
share is loaded often, and little is done between a sum's beginning and its total."""

TALL = ((8, 1), (9, 1))
"""Tiles for rows along several indices, such as the taps of a window, of which 9 are a square."""


def _rows(step: Geometry, u: str | None, v: str | None) -> tuple[str, ...]:
    """The indices that a tile's rows run along, outermost first.

    Where a sum runs along the lanes and the index of the rows is short, others that are to the
    operands and the output what it is stand beside it.
    """
    if u is None:
        return ()
    rows = [u]
    if v not in step.contracted:
        return (u,)
    for index in reversed((*step.kept, *twice_summed(step))):
        alike = all((index in strides) == (u in strides) for strides in step.strides)
        alike = alike and (index in step.kept) == (u in step.kept)
        if alike and index not in (u, v) and step.volume(rows) < FEW:
            rows.insert(0, index)
    return tuple(rows)


DEPTH = 8
"""Neighbours that are transposed at once."""


def _depth(extent: int) -> int:
    """How many neighbours to transpose at once: all of a few, or as many as fill a vector."""
    return min(extent, DEPTH)


def _panels(
    step: Geometry, members: Mapping[str, tuple[str, ...]], lanes: int, machine: Machine
) -> tuple[Panel, ...]:
    """The operands whose lanes are no neighbours, but some other index of theirs are."""
    if not members["v"] or lanes == 1 or step.elements[-1] != step.accumulator or "q" in members:
        return ()
    if step.finish is not None:
        return ()
    v = members["v"][0]
    if v in step.reduced and "r" in members:
        return ()
    panels: list[Panel] = []
    for tensor, strides in enumerate(step.strides[:-1]):
        if strides.get(v, 0) in (0, 1) or int(step.elements[tensor][1:]) < 4:
            continue  # narrow elements are gathered as fast
        groups = [g for g in members if g != "v" and any(i in strides for i in members[g])]
        last = next((g for g in groups if strides.get(members[g][-1]) == 1), None)
        if last is None:
            continue
        lacking = [i for i in step.extents if i not in strides]
        outer = members.get("o", ())
        if any(i in lacking for i in outer) and is_small(step, tensor, machine):
            continue  # it is copied once and for all
        if members.get("u") == (members[last][-1],) and not any(
            i in lacking for g in ("o", "r") for i in members.get(g, ())
        ):
            continue  # the tile's rows are its neighbours, and it is read once
        groups.remove(last)
        panels.append(Panel(f"x{tensor}", (*groups, last), _panel_rows(members[last], step)))
    return tuple(panels)


def _panel_rows(indices: Sequence[str], step: Geometry) -> int:
    """How many neighbours of a group a panel moves at once.

    Of a single index there may be fewer: kernels find that out, see :mod:`..simd.holding`. Of
    several, it is the last one's extent that makes a run.
    """
    return DEPTH if len(indices) == 1 else max(2, _depth(step.extents[indices[-1]]))


def streamed_blocks(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The block sizes of one call."""
    if schedule.panels:
        return _panel_blocks(schedule, extents, machine, threads)
    lanes = schedule.lane_tile
    blocks = {
        "R_BLOCK": min(256, machine.partial_sum),
        "O_BLOCK": 1,
        "U_BLOCK": schedule.row_tile,
        "V_BLOCK": lanes,
        "W_BLOCK": 256,
    }
    aim = 1 << 15  # elements a tile
    width = extents["v"]
    if "v_block" in schedule.inner:
        blocks["V_BLOCK"] = rounded(machine.partial_sum, lanes)
        aim //= max(1, extents["v"])
        extents = {**extents, "v": 1}
    if "u_block" in schedule.inner:
        blocks["U_BLOCK"] = rounded(machine.partial_sum, schedule.row_tile)
        aim //= max(1, extents["u"])
        extents = {**extents, "u": 1}
    inner = extents.get("r", 1) * extents.get("w", 1)
    v, u, o = extents["v"], extents.get("u", 1), extents.get("o", 1)
    room = max(1, aim // max(1, inner))
    if "q_block" in schedule.outer:
        size = int(schedule.elements[-1][1:])
        room = machine.l1_bytes // 2 // size  # sums that stay in cache
        walked = schedule.outer[schedule.outer.index("q_block") :]
        row = v * u * (o if "o" in walked else 1) * size
        read = sum(group == "q" for _, group, _ in schedule.strides)
        # Few positions, so that memory is read in few places at once; more of them where the
        # whole block is a few lines.
        # The sums of rows whose lanes are kept are so many times as large.
        least = 4 * (min(schedule.row_tile, 4) if "v_block" in schedule.outer else 1)
        if "r" in extents or ("v_block" in schedule.inner and row * width <= machine.l2_bytes):
            # What follows for one position lies together. Lanes are totalled once for each block.
            least = 1 if "r" in extents else max(1, SHORT_SUM // width)
        blocks["Q_BLOCK"] = max(least, min(machine.partial_sum, PAGE // (row * read)))
    if "r_block" in schedule.outer:
        blocks["R_BLOCK"] = max(FEWEST, PAGE // (v * int(schedule.elements[-1][1:])))
    if "v_block" in schedule.outer:
        blocks["V_BLOCK"] = rounded(min(v, max(lanes, room)), lanes)
        room //= min(v, blocks["V_BLOCK"])
    if "u_block" in schedule.outer:
        blocks["U_BLOCK"] = rounded(min(u, max(1, room)), schedule.row_tile)
        room //= min(u, blocks["U_BLOCK"])
    blocks["O_BLOCK"] = max(1, min(o, room, 2048))
    return _shared(schedule, blocks, extents, threads)


def _panel_blocks(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The block sizes where operands are held in panels, which all fit in half of the L1 cache."""
    units = _units(schedule, extents)
    most = {"R_BLOCK": 128, "V_BLOCK": 256, "U_BLOCK": 32, "O_BLOCK": 1}
    blocks = {
        name: rounded(min(extents.get(name[0].lower(), 1), size), units[name])
        for name, size in most.items()
    }

    def held() -> int:
        sizes = (
            prod(blocks[f"{g.upper()}_BLOCK"] for g in panel.groups) * blocks["V_BLOCK"]
            for panel in schedule.panels
        )
        return sum(sizes) * int(schedule.accumulator[1:])

    # Operands of short runs are read side by side, so that prefetchers follow all of them.
    run = blocks.get("R_BLOCK", 1) * int(schedule.accumulator[1:])
    blocks["V_BLOCK"] = min(blocks["V_BLOCK"], rounded(max(1, NEAR // run), units["V_BLOCK"]))
    room = machine.l1_bytes // 2
    for name in ("V_BLOCK", "R_BLOCK", "U_BLOCK", "V_BLOCK"):
        least = units[name] * (2 if name == "V_BLOCK" else 1)
        while held() > room and blocks[name] // 2 >= least:
            blocks[name] = rounded(blocks[name] // 2, units[name])
    work = prod(min(blocks[f"{g.upper()}_BLOCK"], n) for g, n in extents.items())
    o = extents.get("o", 1)
    while blocks["O_BLOCK"] < o and held() <= room // 2 and work < 1 << 15:
        blocks["O_BLOCK"] *= 2
        work *= 2
    return _shared(schedule, blocks, extents, threads)


def _units(schedule: Schedule, extents: Mapping[str, int]) -> dict[str, int]:
    """What each block is a multiple of."""
    units = {"O_BLOCK": 1, "R_BLOCK": 1}
    units |= {"U_BLOCK": schedule.row_tile, "V_BLOCK": schedule.lane_tile}
    for panel in schedule.panels:
        name = f"{panel.groups[-1].upper()}_BLOCK"
        units[name] = lcm(units[name], min(panel.rows, extents[panel.groups[-1]]))
    return units


def _shared(
    schedule: Schedule, blocks: dict[str, int], extents: Mapping[str, int], threads: int
) -> dict[str, int]:
    """The block sizes that the schedule has, small enough to keep all threads busy."""
    blocks = {name: size for name, size in blocks.items() if name in schedule.blocks}
    units = _units(schedule, extents)
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
