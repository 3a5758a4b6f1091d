"""Split an index in two, so that whole cache lines of an operand are used while they are near.

Where the output has its neighbours along ``a`` and the operand that brings ``a`` has its own along
another of its kept indices, ``d``, a panel of positions along ``a`` takes one element of each of
the operand's cache lines. They are used up only if the panels for the next ``d`` follow at once:

    out[.., d, a], lanes along a      ->  a/8, d, a%8       panels of 8 along a%8, d after d

The same where both operands have their neighbours along summed indices, but not along the same:

    x0[.., p], x1[.., q], sums over q, p   ->  q/16, p, q%16    both use up the lines they load

Positions of a group may come in any order, as long as all tensors agree. So this is a matter of
the group's description alone: kernels know nothing of it.
"""

from __future__ import annotations

from .choose.packed import LARGER, packed
from .geometry import Geometry
from .machine import Machine
from .records import replace
from .schedule import vector_lanes

RUN = 16
"""Neighbours of a summed index that are added up before the other operand's next ones."""


def in_lines(step: Geometry, machine: Machine) -> Geometry:
    """The same step with indices split in two, where operands' cache lines ask for it."""
    width = 2 * vector_lanes(step.accumulator, machine.target.vector_bytes)
    found = _crossed(step)
    if found is not None:
        last, near = found
        extent = step.extents[last]
        part = next((p for p in range(width, extent, width) if extent % p == 0), None)
        if part is not None and step.extents[near] >= width // 2:
            step = _split(step, last, part)
    summed = _crossed_sums(step)
    if summed is not None and packed(step, machine) is not None:
        extent = step.extents[summed]
        part = next((p for p in (RUN, 2 * RUN, RUN // 2) if p < extent and extent % p == 0), None)
        if part is not None:
            step = _split(step, summed, part)
    return step


def _split(step: Geometry, index: str, part: int) -> Geometry:
    """The same step with an index as whole parts, and the positions in each."""
    outer, inner = f"{index}/{part}", f"{index}%{part}"
    extents: dict[str, int] = {}
    for name, count in step.extents.items():
        extents |= {outer: count // part, inner: part} if name == index else {name: count}
    strides = tuple(
        {
            name: stride * factor
            for old, stride in tensor.items()
            for name, factor in (((outer, part), (inner, 1)) if old == index else ((old, 1),))
        }
        for tensor in step.strides
    )
    return replace(step, extents=extents, strides=strides)


def _crossed(step: Geometry) -> tuple[str, str] | None:
    """The output's and an operand's index of neighbours, if both are that operand's alone."""
    *operands, out = step.strides
    last = next((i for i in step.kept if out[i] == 1), None)
    if last is None or len(operands) != 2:
        return None
    for one, other in (operands, reversed(operands)):
        near = next((i for i in step.kept if one.get(i) == 1), None)
        if near not in (None, last) and last in one and not {near, last} & other.keys():
            return last, str(near)
    return None


def _crossed_sums(step: Geometry) -> str | None:
    """Of two summed indices along which one operand each has its neighbours, the one to cut."""
    if step.factors != 2:
        return None
    near = [next((i for i in step.contracted if t.get(i) == 1), "") for t in step.strides[:2]]
    sizes = sorted(step.volume(tuple(t)) for t in step.strides[:2])
    if "" in near or near[0] == near[1] or sizes[1] >= LARGER * sizes[0]:
        return None
    return max(near, key=lambda i: step.extents[i])
