"""Adding a register tile to what the output holds, or storing it where nothing is there yet.

This is the end of a tile whose sum comes in blocks: the first block is stored, those that follow
are added. Which of the two it is is known at run time only (``again``): one operation has both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import for_range

from .emitter import Emitter
from .memory import PIECE
from .registry import literals, operation
from .runs import Spill, step_to, whole_runs
from .tables import steps_by
from .tiles import I32, I64, Pointer, Tile, planes, scalar_bytes, scalar_type


@operation
def update_rows(p: Any, offset: Any, step: Any, tile: Any, again: Any) -> Any:
    """Store every row of a tile as a run of neighbouring elements; ``again``: add it to them."""
    if not (isinstance(p, Pointer) and isinstance(tile, Tile)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        count = tile.rows * tile.vectors
        registers = e.unpack(tile, values[3])
        places = list(whole_runs(e, tile, values[:2], (step, values[2])))
        units = [registers[i::count] for i in range(count)]

        def sums() -> list[Any]:
            found = [_load(e, p.element, tile.element, at, tile.lanes) for at in places]
            added = [e.add(tile.element, x, y) for x, y in zip(units, found, strict=True)]
            return [part for unit in added for part in unit]

        flat = _either(e, values[4], sums, [part for unit in units for part in unit])
        each = planes(tile.element)
        for i, at in enumerate(places):
            _store(e, p.element, tile.element, at, flat[i * each : (i + 1) * each], tile.lanes)

    return types.void, lowering


@operation
def update_part(
    p: Any,
    offset: Any,
    row_step: Any,
    lane_step: Any,
    tile: Any,
    again: Any,
    rows: Any,
    columns: Any,
) -> Any:
    """The same for ``rows x columns`` elements that lie anywhere.

    They go through the stack in pieces of a few columns: a piece whose elements are neighbours as a
    vector for each row, others one by one. So a tile across the ends of runs is mostly vectors.
    """
    if not (isinstance(p, Pointer) and isinstance(tile, Tile)):
        return None
    piece = min(PIECE, tile.lanes)

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        b = e.builder
        pointer, base, row_, lane_, registers, again_, rows_, columns_ = values
        spill = Spill(e, tile)
        spill.fill(e.unpack(tile, registers))

        def move(row: Any, column: Any, lanes: int) -> None:
            along = b.add(step_to(e, (row_step, row_), row), step_to(e, (lane_step, lane_), column))
            at = e.address(p.element, pointer, b.add(base, along))
            new = []
            for plane in range(planes(tile.element)):
                place = spill.element(plane, row, column)
                if lanes > 1:
                    vector = ir.VectorType(scalar_type(tile.element), lanes)
                    place = b.bitcast(place, vector.as_pointer())
                value = b.load(place)
                value.align = scalar_bytes(tile.element)
                new.append(value)

            def sums() -> list[Any]:
                found = _load(e, p.element, tile.element, at, lanes)
                return list(e.add(tile.element, new, found))

            _store(e, p.element, tile.element, at, _either(e, again_, sums, new), lanes)

        pieces = b.sdiv(b.add(columns_, e.integer(piece - 1)), e.integer(piece))
        with for_range(b, pieces, intp=I64) as number:
            first = b.mul(number.index, e.integer(piece))
            left = b.sub(columns_, first)
            whole = b.icmp_signed(">=", left, e.integer(piece))
            if isinstance(lane_step, Pointer):
                # A piece that is not whole may reach behind the table's end.
                looked = b.select(whole, first, e.integer(0))
                whole = b.and_(whole, steps_by(e, b.gep(lane_, [looked]), piece, 1))
            else:
                whole = b.and_(whole, b.icmp_signed("==", lane_, e.integer(1)))
            with b.if_else(whole) as (together, apart):
                with together, for_range(b, rows_, intp=I64) as row:
                    move(row.index, first, piece)
                with apart:
                    some = b.select(
                        b.icmp_signed("<", left, e.integer(piece)), left, e.integer(piece)
                    )
                    with for_range(b, rows_, intp=I64) as row, for_range(b, some, intp=I64) as lane:
                        move(row.index, b.add(first, lane.index), 1)

    return types.void, lowering


@operation
def prefetch_rows(p: Any, offset: Any, step: Any, rows: Any, columns: Any) -> Any:
    """Ask for the cache lines of ``rows`` runs of ``columns`` elements, which are soon written."""
    sizes = literals(rows, columns)
    if sizes is None or not isinstance(p, Pointer):
        return None
    count, width = sizes

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        b = e.builder
        flags = [ir.Constant(I32, flag) for flag in (1, 3, 1)]  # to write, to keep, data
        for row in range(count):
            begin = b.add(values[1], step_to(e, (step, values[2]), row))
            for ahead in (0, width - 1):
                at = e.address(p.element, values[0], b.add(begin, e.integer(ahead)))
                byte = b.bitcast(at, ir.IntType(8).as_pointer())
                e.intrinsic("llvm.prefetch.p0", ir.VoidType(), [byte, *flags])

    return types.void, lowering


def _either(e: Emitter, again: Any, sums: Any, new: list[Any]) -> list[Any]:
    """What ``sums`` computes, but only where ``again`` holds; elsewhere ``new``."""
    before = e.builder.block
    with e.builder.if_then(again):
        added = sums()
        inside = e.builder.block
    merged = []
    for value, total in zip(new, added, strict=True):
        phi = e.builder.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(total, inside)
        merged.append(phi)
    return merged


def _load(e: Emitter, stored: str, element: str, at: Any, lanes: int) -> list[Any]:
    found = e.load(stored, at, lanes, None)
    if stored == element:
        return found
    return [e.builder.fpext(part, _unit(element, lanes)) for part in found]


def _store(
    e: Emitter, stored: str, element: str, at: Any, value: Sequence[Any], lanes: int
) -> None:
    if stored != element:
        value = [e.builder.fptrunc(part, _unit(stored, lanes)) for part in value]
    e.store(stored, at, list(value), lanes, None)


def _unit(element: str, lanes: int) -> ir.Type:
    scalar = scalar_type(element)
    return scalar if lanes == 1 else ir.VectorType(scalar, lanes)
