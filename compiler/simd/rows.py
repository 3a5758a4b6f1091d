"""Rows of a register tile that are read where they are: their addresses, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from .emitter import Emitter
from .registry import literals, operation
from .runs import load_from, step_to
from .tiles import Pointer, Rows, Tile, planes, scalar_type


@operation
def find_rows(p: Any, offset: Any, step: Any, rows: Any, inside: Any) -> Any:
    """Where ``rows`` rows begin; of those that are not ``inside``, it is where the last one does.

    So all may be read, as often as need be, for one look at a table. What is computed of rows that
    are not inside is for nobody to see.
    """
    sizes = literals(rows)
    if sizes is None or not isinstance(p, Pointer):
        return None
    kind = Rows(p.element, sizes[0])

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        b = e.builder
        last = b.sub(values[4], e.integer(1))
        pointer = scalar_type(kind.element).as_pointer()
        found: Any = ir.Constant(ir.ArrayType(pointer, kind.count), ir.Undefined)
        for row in range(kind.count):
            within = b.icmp_signed("<", e.integer(row), last)
            at = step_to(e, (step, values[2]), b.select(within, e.integer(row), last))
            address = e.address(kind.element, values[0], b.add(values[1], at))
            found = b.insert_value(found, address, row)
        return found

    return kind, lowering


@operation
def load_each(rows: Any, offset: Any) -> Any:
    """One value a row, so many elements behind its beginning: a column that stretches over all."""
    if not isinstance(rows, Rows):
        return None
    kind = Tile(rows.element, rows.count, 1, 1)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        units = []
        for row in range(rows.count):
            address = e.address(rows.element, e.builder.extract_value(values[0], row), values[1])
            units.append(e.load(rows.element, address, 1, None))
        return e.pack(kind, [unit[p] for p in range(planes(rows.element)) for unit in units])

    return kind, lowering


@operation
def load_along(rows: Any, offset: Any, columns: Any, lanes: Any, *part: Any) -> Any:
    """Neighbours of each row, so many elements behind its beginning.

    With a count, columns outside are zero.
    """
    sizes = literals(columns, lanes)
    if sizes is None or not isinstance(rows, Rows):
        return None
    kind = Tile(rows.element, rows.count, *sizes)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        begins = [(e.builder.extract_value(values[0], n), values[1]) for n in range(rows.count)]
        return e.pack(kind, load_from(e, kind, begins, *values[4:]))

    return kind, lowering
