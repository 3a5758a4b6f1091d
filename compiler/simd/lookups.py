"""Rows of elements wherever a table of offsets says, of any layout.

Which layout it is shows when the kernel runs: neighbours are moved as vectors, the same element for
all lanes is loaded once, and anything else is moved element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numba.core import types

from .emitter import Emitter
from .registry import literals, operation
from .runs import Spill, each_element, load_runs, store_runs
from .tables import steps_by
from .tiles import Pointer, Tile


@operation
def load_found(p: Any, offset: Any, table: Any, columns: Any, lanes: Any, *part: Any) -> Any:
    """A row of ``columns`` elements at the offsets in a table."""
    sizes = literals(columns, lanes)
    if sizes is None or not (isinstance(p, Pointer) and isinstance(table, Pointer)):
        return None
    kind = Tile(p.element, 1, *sizes)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        place, inside = values[:2], values[5:]

        def gather() -> list[Any]:
            spill = Spill(e, kind)
            if inside:
                spill.clear()
            where = [*place, e.integer(0), values[2]]
            for at, places in each_element(e, kind, where, (None, table), spill, inside):
                for value, to in zip(e.load(kind.element, at, 1, None), places, strict=True):
                    e.builder.store(value, to)
            return spill.registers()

        if inside or kind.lanes == 1:
            return e.pack(kind, gather())
        first = [place[0], e.builder.add(place[1], e.builder.load(values[2]))]

        def run() -> list[Any]:
            return load_runs(e, kind, first, (None, e.integer(0)), ())

        def constant() -> list[Any]:
            at = e.address(kind.element, *first)
            planes = e.load(kind.element, at, 1, None)
            return [e.splat(value, kind.lanes) for value in planes for _ in range(kind.vectors)]

        def others() -> list[Any]:
            return _either(e, steps_by(e, values[2], kind.columns, 0), constant, gather)

        return e.pack(kind, _either(e, steps_by(e, values[2], kind.columns, 1), run, others))

    return kind, lowering


@operation
def store_found(p: Any, offset: Any, table: Any, tile: Any, *part: Any) -> Any:
    """Store a tile of one row at the offsets in a table."""
    if not (isinstance(p, Pointer) and isinstance(tile, Tile) and tile.rows == 1):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        place, registers, inside = values[:2], e.unpack(tile, values[3]), values[4:]

        def scatter() -> list[Any]:
            spill = Spill(e, tile)
            spill.fill(registers)
            where = [*place, e.integer(0), values[2]]
            for at, places in each_element(e, tile, where, (None, table), spill, inside):
                found = [e.builder.load(each) for each in places]
                e.store(tile.element, at, found, 1, None)
            return []

        def run() -> list[Any]:
            first = [place[0], e.builder.add(place[1], e.builder.load(values[2]))]
            store_runs(e, tile, registers, first, (None, e.integer(0)), ())
            return []

        if inside or tile.lanes == 1:
            scatter()
        else:
            _either(e, steps_by(e, values[2], tile.columns, 1), run, scatter)

    return types.void, lowering


def _either(
    e: Emitter, test: Any, yes: Callable[[], list[Any]], no: Callable[[], list[Any]]
) -> list[Any]:
    """The values of one of two pieces of code, by a test made when the kernel runs."""
    b = e.builder
    ends = []
    with b.if_else(test) as branches:
        for branch, code in zip(branches, (yes, no), strict=True):
            with branch:
                ends.append((code(), b.block))
    (left, one), (right, other) = ends
    values = []
    for first, second in zip(left, right, strict=True):
        phi = b.phi(first.type)
        phi.add_incoming(first, one)
        phi.add_incoming(second, other)
        values.append(phi)
    return values
