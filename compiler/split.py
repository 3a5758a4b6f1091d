"""Split an index in two, so that whole cache lines of an operand are used while they are near.

Where the output has its neighbours along ``a`` and the operand that brings ``a`` has its own along
another of its kept indices, ``d``, a panel of positions along ``a`` takes one element of each of
the operand's cache lines. They are used up only if the panels for the next ``d`` follow at once:

    out[.., d, a], lanes along a      ->  a/8, d, a%8       panels of 8 along a%8, d after d

Positions of a group may come in any order, as long as all tensors agree. So this is a matter of
the group's description alone: kernels know nothing of it.
"""

from __future__ import annotations

from .geometry import Geometry
from .machine import Machine
from .records import replace
from .schedule import vector_lanes


def in_lines(step: Geometry, machine: Machine) -> Geometry:
    """The same step with the output's last index split, where an operand's lines ask for it."""
    found = _crossed(step)
    if found is None:
        return step
    last, near = found
    width = 2 * vector_lanes(step.accumulator, machine.target.vector_bytes)
    extent = step.extents[last]
    part = next((p for p in range(width, extent, width) if extent % p == 0), None)
    if part is None or step.extents[near] < width // 2:
        return step
    outer, inner = f"{last}/{part}", f"{last}%{part}"
    extents: dict[str, int] = {}
    for index, count in step.extents.items():
        extents |= {outer: count // part, inner: part} if index == last else {index: count}
    strides = tuple(
        {
            name: stride * factor
            for index, stride in tensor.items()
            for name, factor in (((outer, part), (inner, 1)) if index == last else ((index, 1),))
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
