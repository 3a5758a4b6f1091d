"""What ``range`` and ``min`` stand for in generated source.

Numba's ``range`` takes steps of either sign, counts the rounds with a division, and brings ten
times the code, which is most of what a kernel's compilation used to cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import imputils, types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default

from .emitter import Emitter
from .registry import LOWERING, operation
from .tiles import I64


@operation
def least(*values: Any) -> Any:
    """The least of several integers: what ``min`` stands for in generated source."""

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        smallest = values[0]
        for value in values[1:]:
            below = e.builder.icmp_signed("<", value, smallest)
            smallest = e.builder.select(below, value, smallest)
        return smallest

    return types.int64, lowering


class Positions(types.SimpleIterableType):  # type: ignore[misc]
    """What ``range(start, stop, step)`` makes: the address of its three numbers."""

    def __init__(self) -> None:
        super().__init__("Positions", PositionsIterator())


class PositionsIterator(types.SimpleIteratorType):  # type: ignore[misc]
    """The same, on its way."""

    def __init__(self) -> None:
        super().__init__("PositionsIterator", types.int64)


@register_default(Positions)
@register_default(PositionsIterator)
class _PositionsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, I64.as_pointer())


@operation
def positions(start: Any, stop: Any, *step: Any) -> Any:
    """The integers from ``start`` up to ``stop`` in steps that are positive: ``range``."""

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        numbers = [*values, *([] if step else [e.integer(1)])]
        with e.builder.goto_entry_block():
            state = e.builder.alloca(ir.ArrayType(I64, 3))
        state = e.builder.bitcast(state, I64.as_pointer())
        for i, number in enumerate(numbers):
            e.builder.store(number, e.builder.gep(state, [e.integer(i)]))
        return state

    return Positions(), lowering


@LOWERING.lower("getiter", Positions)
def _begin(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return args[0]


@LOWERING.lower("iternext", PositionsIterator)
@imputils.iternext_impl(imputils.RefType.UNTRACKED)
def _next(context: Any, builder: Any, signature: Any, args: Any, result: Any) -> None:
    places = [builder.gep(args[0], [ir.Constant(I64, i)]) for i in range(3)]
    position, stop, step = (builder.load(place) for place in places)
    builder.store(builder.add(position, step), places[0])
    result.set_valid(builder.icmp_signed("<", position, stop))
    result.yield_(position)
