"""The half of a symmetric matrix that stands for the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types

from .elementwise import like
from .emitter import Emitter
from .registry import literals, operation
from .shapes import pack_units, units_of
from .tiles import I32, Tile


@operation
def halved(tile: Any, ahead: Any, sign: Any) -> Any:
    """A tile with twice what is above a matrix' diagonal, once what is on it, and zero below.

    The tile's first column is ``ahead`` positions to the right of its first row. With a ``sign`` of
    -1 it is so far to the left, and twice is what is below the diagonal.
    """
    signs = literals(sign)
    if signs is None or not (isinstance(tile, Tile) and isinstance(ahead, types.Integer)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        b = e.builder
        # Beyond the tile's own size it does not matter how far the diagonal is.
        ahead_, far = values[1], tile.rows + tile.columns
        for side in (-1, 1):
            limit = e.integer(side * far)
            beyond = b.icmp_signed(">" if side > 0 else "<", ahead_, limit)
            ahead_ = b.select(beyond, limit, ahead_)
        distance = e.splat(b.trunc(ahead_, I32), tile.lanes)
        made = []
        for number, unit in enumerate(units_of(e, tile, values[0], tile)):
            row, vector = divmod(number, tile.vectors)
            places = [signs[0] * (vector * tile.lanes + lane - row) for lane in range(tile.lanes)]
            kind: ir.Type = I32 if tile.lanes == 1 else ir.VectorType(I32, tile.lanes)
            steps = ir.Constant(kind, places[0] if tile.lanes == 1 else places)
            right = b.add(distance, steps)
            above = b.icmp_signed(">", right, like(right, 0))
            below = b.icmp_signed("<", right, like(right, 0))
            twice = e.add(tile.element, unit, unit)
            made.append(
                [
                    b.select(below, e.zero(x.type), b.select(above, double, x))
                    for x, double in zip(unit, twice, strict=True)
                ]
            )
        return pack_units(e, tile, made)

    return tile, lowering
