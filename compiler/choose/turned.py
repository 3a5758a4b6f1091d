"""The turned recipe: a large output, made in scratch block by block and written in whole lines.

For steps without a sum whose output is larger than the caches: transpositions, and products of
operands element by element. They take as long as their memory traffic, so the schedule is about
that: operands are read along their own neighbours, and the output is written in cache lines that
were not read before.

A block's columns ``w`` (after ``u``, if there is one) are neighbours in the output and its rows
``v`` are neighbours in an operand, as far as there are such. Both may consist of several indices
of the step, so that short axes (15 elements, or 5) make long runs all the same. A tensor that is
read or written along several indices at once needs no table for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import ceil

from ..geometry import Geometry
from ..machine import Machine
from ..records import replace
from ..schedule import Group, Schedule, Split, Stage, vector_lanes
from .choice import Choice, layout_class, rounded

LINE = 64  # bytes of a cache line
RUN = 1024  # bytes that a block should have along its rows and columns, where it can


def turned(step: Geometry, machine: Machine) -> Choice | None:
    """The turned recipe, where the step sums nothing and its output is too large for the caches."""
    out = step.strides[-1]
    size = int(step.elements[-1][1:])
    if step.finish is not None:
        return None
    if step.reduced or step.volume(step.kept) * size < machine.l3_bytes // 2:
        return None
    step = as_bits(step)
    neighbours = _neighbours(step, out)
    if not neighbours:
        return None
    groups = _moved(step, neighbours) if len(step.strides) == 2 else _combined(step, neighbours)
    if groups is None:
        return None
    lanes = vector_lanes(step.accumulator, machine.target.vector_bytes)
    return _choice(step, groups, lanes, machine)


def as_bits(step: Geometry) -> Geometry:
    """The same step with unsigned integers for elements that are moved and nothing else.

    They are neither converted, as f2 would be, nor taken apart, as complex ones would be, and
    elements of one size share their kernels.
    """
    first, *others = set(step.elements)
    if (
        step.finish is not None
        or len(step.elements) != 2
        or others
        or step.reduced
        or int(first[1:]) > 8
    ):
        return step
    bits = f"u{first[1:]}"
    return replace(step, elements=(bits, bits), accumulator=bits)


def _neighbours(step: Geometry, strides: Mapping[str, int]) -> list[str]:
    """The indices along which a tensor's elements are neighbours, the fastest first."""
    found: list[str] = []
    length = 1
    while index := next(
        (i for i in step.kept if i not in found and strides.get(i) == length), None
    ):
        found.append(index)
        length *= step.extents[index]
    return found


def _enough(step: Geometry, indices: list[str], begin: int = 1) -> tuple[str, ...]:
    """The fastest of some indices, outermost first, as many as make a run long enough."""
    taken: list[str] = []
    length = begin * int(step.elements[-1][1:])
    for index in indices:
        if length >= RUN:
            break
        taken.insert(0, index)
        length *= step.extents[index]
    return tuple(taken)


def _moved(step: Geometry, neighbours: list[str]) -> dict[str, tuple[str, ...]] | None:
    """The groups for one operand."""
    source = step.strides[0]
    first = neighbours[0]
    theirs = _neighbours(step, source)
    if not theirs:
        return None
    if theirs[0] != first:
        w = _enough(step, _before(neighbours, theirs[:1]))
        short = step.volume(w) * int(step.elements[-1][1:]) < RUN
        if short and theirs[0] == next((i for i in neighbours if i not in w), None):
            # The run goes on along the operand's own neighbours: they become a part of it.
            others = [i for i in theirs[1:] if i not in w]
            r = _enough(step, others, step.extents[theirs[0]]) or tuple(others[:1])
            return {"r": r, "v": (theirs[0],), "w": w}
        v = _enough(step, _before(theirs, w))
        return {"v": v, "w": tuple(reversed(_before(neighbours, v)))}
    if RUN // 2 <= step.extents[first] * int(step.elements[-1][1:]) < 4 * RUN:
        return None  # such runs are read in order and written where they belong
    u = _enough(step, neighbours[1:], step.extents[first])
    others = sorted(
        (i for i in step.kept if i not in (first, *u)), key=lambda i: abs(source.get(i, 0))
    )
    v = _enough(step, others, step.extents[first])[-1:] or tuple(others[:1])
    return {"v": v, "u": u, "w": (first,)}


def _before(indices: list[str], ends: Sequence[str]) -> list[str]:
    """The indices in front of the first that is one of ``ends``."""
    return list(takewhile(lambda index: index not in ends, indices))


def _combined(step: Geometry, neighbours: list[str]) -> dict[str, tuple[str, ...]] | None:
    """The groups for several operands, each read along rows or columns or constant there."""
    first = neighbours[0]
    turned = [t for t in step.strides[:-1] if t.get(first, 0) not in (0, 1)]
    rows = {next((i for i in step.kept if t.get(i) == 1), None) for t in turned}
    if len(rows) > 1 or None in rows:
        return None
    if step.extents[first] * int(step.elements[-1][1:]) < RUN // 4:
        return None  # runs so short are mostly ends
    return {"v": tuple(filter(None, rows)), "w": (first,)}


def _choice(
    step: Geometry, members: Mapping[str, tuple[str, ...]], lanes: int, machine: Machine
) -> Choice | None:
    r, u, v, w = (members.get(group, ()) for group in "ruvw")
    continued = "r" in members  # the run goes on along v
    width = step.volume(w)
    order = tuple(range(len(step.elements) - 1))
    turned = any(t.get(w[-1], 0) not in (0, 1) for t in step.strides[:-1])
    if turned:
        if width < lanes or step.volume(v) < lanes or lanes == 1:
            return None
        rows, columns = lanes, lanes
    else:
        columns = 4 * lanes
        while columns > max(width, 1):
            columns //= 2
        rows = 1 if not v else min(8, 1 << (step.volume(v).bit_length() - 1))
        if not u:
            rows = 1
    taken = (*r, *u, *v, *w)
    rest = tuple(i for i in step.kept if i not in taken)
    largest = max(step.strides[:-1], key=lambda t: step.volume(tuple(t)))
    found = {
        "o": tuple(sorted(rest, key=lambda i: -abs(largest.get(i, 0)))),
        "r": r,
        "u": u,
        "v": v,
        "w": w,
    }
    found = {group: indices for group, indices in found.items() if indices}
    groups = tuple(Group(g, g == "o" or len(indices) > 1, False) for g, indices in found.items())
    blocks = [f"{g}_block" for g in "uwvr" if g in found and not (g == "w" and u)]
    linear: list[tuple[str, str, int | str]] = [("out", "u", "W")] if len(u) > 1 else []
    linear += [("out", "w", 1)] if len(w) > 1 else []
    linear += [("x0", "v", 1)] if len(v) > 1 else []
    tiles = ["u"] if u else []
    if turned:
        tiles += ["w_tile", *(["r"] if r else []), "v_tile"]
    else:
        tiles += [*(["v_tile"] if v else []), "w_tile"]
    splits = (
        Split("r", "block", "R_BLOCK"),
        Split("u", "block", "U_BLOCK"),
        Split("v", "block", "V_BLOCK"),
        Split("v", "tile", rows),
        *(() if u else (Split("w", "block", "W_BLOCK"),)),
        Split("w", "tile", columns),
    )
    outer = [*(["o"] if "o" in found else []), *blocks]
    run = ("v", "w") if continued else ("u", "w") if u else ("w",)
    schedule = Schedule(
        recipe="turned",
        elements=step.elements,
        accumulator=step.accumulator,
        groups=groups,
        strides=layout_class(
            step, order, groups, found, lambda _, group: group == "w" or (turned and group == "v")
        ),
        splits=tuple(split for split in splits if split.group in found),
        outer=(*outer, *tiles),
        inner=(),
        parallel=len(outer),
        rows="v" if v else None,
        lanes="w",
        row_tile=rows,
        lane_tile=columns,
        vector_bytes=machine.target.vector_bytes,
        stage=Stage(outer[-1], run, ("r" if r else None) if continued else "v" if v else None),
        linear=tuple(linear),
    )
    return Choice(schedule, found, order)


def turned_blocks(
    schedule: Schedule, extents: Mapping[str, int], machine: Machine, threads: int
) -> dict[str, int]:
    """The block sizes of one call."""
    assert schedule.stage is not None
    size = int(schedule.elements[-1][1:])
    line = max(1, LINE // size)
    rows, (first, *inner) = schedule.stage.rows, schedule.stage.run
    unit = extents[inner[0]] if inner else 1  # elements of one position along the run
    lead = ceil(line / unit)
    aim = RUN if schedule.rows == rows and not inner else 4 * RUN
    if rows is None or schedule.row_tile == 1:
        aim = 8 * RUN
    block = max(8 * lead, aim // (size * unit))
    if extents[first] <= block * 3 // 2:
        block, lead = extents[first], 0
    pitch = (block + lead) * unit
    sizes = {f"{first.upper()}_BLOCK": block, "LEAD": lead}
    if inner and "W_BLOCK" in schedule.blocks:
        sizes["W_BLOCK"] = unit
    if rows is not None:
        room = machine.l2_bytes // 4 // (pitch * size)
        tile = schedule.row_tile if rows == schedule.rows else 1
        sizes[f"{rows.upper()}_BLOCK"] = rounded(min(extents[rows], max(room, 1)), tile)
    sizes["PITCH"] = pitch
    return sizes
