"""The general recipe: one kernel for every step with operands of these types.

It is slower than the others, and assumes nothing: any number of indices, of any extents, with any
strides. All groups are composite, so that all offsets come from tables, and whatever happens to lie
in a run is loaded in vectors. There are three kinds that stream, and one with panels for
products that are worth packing; so few kernels can be compiled beforehand for whatever may come: a
signature's store has them for calls that it has no better kernel for.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from ..geometry import Geometry
from ..machine import Machine
from ..schedule import Group, Pack, Schedule, Split, vector_lanes
from .choice import Choice
from .packed import LONG, packed, splits, tile_for
from .streamed import lane_index
from .turned import as_bits


class Kind(StrEnum):
    """What a general kernel does."""

    MAP = "map"  # nothing is summed
    KEPT = "kept"  # sums beside each other: the lanes run along the output
    SUMMED = "summed"  # one sum after the other: the lanes run along what is summed


ENOUGH = 8
"""Vectors that a row of lanes should have at least, where there are as many positions."""


def general(step: Geometry, machine: Machine) -> Choice:
    """The general kernel for a step."""
    step = as_bits(step)
    lanes = vector_lanes(step.accumulator, machine.target.vector_bytes)
    along = lane_index(step, lanes, machine)
    kind = Kind.MAP if not step.reduced else Kind.SUMMED if along in step.reduced else Kind.KEPT
    order = tuple(sorted(range(len(step.elements) - 1), key=lambda t: step.elements[t]))
    elements = (*(step.elements[t] for t in order), step.elements[-1])
    schedule = general_schedule(elements, step.accumulator, kind, machine)
    inner = step.reduced if kind is Kind.SUMMED else step.kept
    ordered = [*(i for i in inner if i != along), *(i for i in inner if i == along)]
    taken: list[str] = []
    while ordered and (kind is Kind.SUMMED or step.volume(taken) < ENOUGH * lanes):
        taken.insert(0, ordered.pop())
    members = {"o": tuple(i for i in step.kept if i not in taken), "v": tuple(taken)}
    if kind is Kind.KEPT:
        members["r"] = step.reduced
    return Choice(schedule, members, order)


def general_schedule(
    elements: Sequence[str], accumulator: str, kind: Kind, machine: Machine
) -> Schedule:
    """The schedule of one kind for operands and an output of these element types."""
    lanes = vector_lanes(accumulator, machine.target.vector_bytes)
    summed = kind is Kind.SUMMED
    groups = (
        Group("o", True, False),
        Group("v", True, summed),
        *([Group("r", True, True)] if kind is Kind.KEPT else []),
    )
    names = [*(f"x{i}" for i in range(len(elements) - 1)), "out"]
    return Schedule(
        recipe="general",
        elements=tuple(elements),
        accumulator=accumulator,
        groups=groups,
        strides=tuple(
            (name, group.name, None)
            for name in names
            for group in groups
            if not (name == "out" and group.reduced)
        ),
        splits=(
            Split("o", "block", "O_BLOCK"),
            Split("v", "block", "V_BLOCK"),
            Split("v", "tile", lanes),
            *([Split("r", "block", "R_BLOCK")] if kind is Kind.KEPT else []),
        ),
        outer=("o_block", "o") if summed else ("o_block", "v_block", "o", "v_tile"),
        inner={Kind.MAP: (), Kind.KEPT: ("r_block", "r"), Kind.SUMMED: ("v_block", "v_tile")}[kind],
        parallel=1 if summed else 2,
        rows=None,
        lanes="v",
        row_tile=1,
        lane_tile=lanes,
        vector_bytes=machine.target.vector_bytes,
        partial={Kind.MAP: None, Kind.KEPT: "r_block", Kind.SUMMED: "v_block"}[kind],
    )


def general_packed(step: Geometry, machine: Machine) -> Choice | None:
    """The packed recipe for a step of any layout: one kernel for all that have these types.

    All groups are composite, and no stride is known, so panels are filled and results written
    element by element: a general kernel for products that are long enough for panels.
    """
    choice = packed(step, machine)
    if choice is None or step.finish is not None or len({*step.elements, step.accumulator}) > 1:
        return None
    members = {"b": (), **choice.members}
    if members.keys() != {"b", "m", "n", "k"}:
        return None
    return Choice(general_packed_schedule(step.accumulator, machine), members, choice.operands)


def general_packed_schedule(element: str, machine: Machine) -> Schedule:
    """Its schedule for elements of one type."""
    rows, width = tile_for(LONG, element, machine)
    reads = {"x0": "bmk", "x1": "bnk", "out": "bmn"}
    return Schedule(
        recipe="packed",
        elements=(element,) * 3,
        accumulator=element,
        groups=tuple(Group(g, True, g == "k") for g in "bmnk"),
        strides=tuple((name, group, None) for name, groups in reads.items() for group in groups),
        splits=splits(rows, width),
        outer=("b", "m_task", "n_task", "k_block", "m_block", "n_tile", "m_tile"),
        inner=("k",),
        parallel=3,
        rows="m",
        lanes="n",
        row_tile=rows,
        lane_tile=width,
        vector_bytes=machine.target.vector_bytes,
        packs=(Pack("x1", "k_block", "n", width, 1), Pack("x0", "m_block", "m", rows, 1)),
    )
