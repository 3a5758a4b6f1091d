"""Which operands a streamed step reads so badly that a copy of them pays: see :mod:`..relayout`."""

from __future__ import annotations

from collections.abc import Iterator

from ..geometry import Geometry
from ..machine import Machine
from .choice import Choice
from .streamed import WORTH_COPYING, is_held, is_small
from .turned import LINE


def badly_read(step: Geometry, choice: Choice, machine: Machine) -> Iterator[int]:
    """The factors that a streamed step would gather element by element, many times each."""
    lanes = choice.members.get("v", ())
    if not lanes:
        return
    for place, strides in enumerate(step.strides[: step.factors]):
        badly = strides.get(lanes[-1], 0) not in (0, 1) and is_small(step, place, machine)
        if (badly and not is_held(choice, place)) or _is_scattered(step, choice, place, machine):
            yield place


def _is_scattered(step: Geometry, choice: Choice, place: int, machine: Machine) -> bool:
    """Whether a factor's elements are read one by one, each from a line that is gone by the time
    that the outer loops come to its neighbours; and often enough that a copy pays.
    """
    strides, outer = step.strides[place], choice.members.get("o", ())
    inner = [i for i in strides if i not in outer]
    alone = not any(i in inner for i in choice.members["v"])
    alone = alone and all(abs(strides[i]) * int(step.elements[place][1:]) >= LINE for i in inner)
    near = any(strides[i] == 1 for i in strides if i in outer)
    size = step.volume(tuple(strides)) * int(step.elements[place][1:])
    fits = size <= machine.l3_bytes // 4
    used = step.volume(tuple(step.extents)) // step.volume(tuple(strides))
    gone = step.volume(inner) * LINE > machine.l1_bytes
    return alone and near and gone and fits and used >= WORTH_COPYING
