"""Loads and stores of tiles.

The step from one row (or lane) to the next is either a stride or a pointer into a table of
offsets. Every load and store takes two optional counts at its end, ``rows`` and ``columns`` that
lie inside the tensor: nothing outside them is touched, and what is not loaded is zero. A partial
tile goes through the stack, row by row: edges are rare, and the code for them stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import gcd
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import for_range

from .emitter import Emitter
from .pairs import pairs_or
from .registry import literals, operation
from .runs import Spill, each_element, load_clamped, load_runs, step_to, store_runs
from .tables import steps_by
from .tiles import I64, Pointer, Tile, planes, scalar_bytes, scalar_type
from .transpose import transposed

CACHE_LINE = 64  # bytes

AT_ONCE = 32
"""Elements up to which code for each of them is short enough."""

PIECE = 4
"""Elements that a partial tile moves at once: even of short runs, most are in whole pieces."""


@operation
def load_rows(
    p: Any, offset: Any, step: Any, rows: Any, columns: Any, lanes: Any, *part: Any
) -> Any:
    """A tile whose rows are runs of neighbouring elements, ``step`` apart."""
    kind = _tile(p, rows, columns, lanes)
    if kind is None:
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        return e.pack(kind, load_runs(e, kind, values[:2], (step, values[2]), values[6:]))

    return kind, lowering


@operation
def load_near(
    p: Any, offset: Any, step: Any, rows: Any, columns: Any, lanes: Any, inside: Any, *part: Any
) -> Any:
    """The same where ``inside`` rows are: those outside repeat the last of them.

    With one more count, of columns, those outside are zero. It is for sums along the rows, of which
    the ones outside are for nobody to see, so that edges are read as fast as all else.
    """
    kind = _tile(p, rows, columns, lanes)
    if kind is None:
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        return e.pack(kind, load_clamped(e, kind, values[:2], (step, values[2]), *values[6:]))

    return kind, lowering


@operation
def fetch_rows(p: Any, offset: Any, step: Any, rows: Any, columns: Any) -> Any:
    """Begin to bring ``rows`` runs of ``columns`` elements, ``step`` apart, into the first cache.

    Nothing need be there: an address outside of any tensor is passed over.
    """
    sizes = literals(rows, columns)
    if sizes is None or not isinstance(p, Pointer):
        return None
    count, width = sizes
    line = max(1, CACHE_LINE // int(p.element[1:]))

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        for row in range(count):
            begin = e.builder.add(values[1], step_to(e, (step, values[2]), row))
            for column in range(0, width, line):
                at = e.address(p.element, values[0], e.builder.add(begin, e.integer(column)))
                e.prefetch(at)

    return types.void, lowering


@operation
def load_columns(
    p: Any, offset: Any, step: Any, rows: Any, columns: Any, lanes: Any, *part: Any
) -> Any:
    """A tile whose columns are runs of neighbouring elements: loaded as rows, then transposed."""
    kind = _tile(p, rows, columns, lanes)
    if kind is None:
        return None
    turned = Tile(kind.element, kind.columns, kind.rows, kind.lanes)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        runs = load_runs(e, turned, values[:2], (step, values[2]), values[:5:-1])
        return e.pack(kind, transposed(e, turned, runs))

    return kind, lowering


@operation
def load_panel(p: Any, offset: Any, step: Any, columns: Any, lanes: Any, inside: Any) -> Any:
    """``lanes`` rows of ``columns`` values whose columns are runs, filled up to whole vectors.

    Like :func:`load_columns` for what becomes a panel. Columns outside the tensor repeat the last
    one inside, as nothing of them is ever stored, and those that fill up the first one.
    """
    sizes = literals(columns, lanes)
    if sizes is None or not isinstance(p, Pointer):
        return None
    width, size = sizes
    runs = Tile(p.element, width, size, size)
    whole = Tile(p.element, -(-width // size) * size, size, size)
    kind = Tile(p.element, size, whole.rows, size)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        loaded = load_clamped(e, runs, values[:2], (step, values[2]), values[5])
        filled = []
        for plane in range(planes(p.element)):
            part = loaded[plane * width : (plane + 1) * width]
            filled += part + part[:1] * (whole.rows - width)
        return e.pack(kind, transposed(e, whole, filled))

    return kind, lowering


@operation
def load_splat(p: Any, offset: Any, step: Any, rows: Any, *part: Any) -> Any:
    """One value a row, a column of the tile: it stretches over all columns.

    Of rows outside it repeats the last one inside: nothing of them is ever stored.
    """
    sizes = literals(rows)
    if sizes is None or not isinstance(p, Pointer):
        return None
    kind = Tile(p.element, sizes[0], 1, 1)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        if part and kind.rows > 1:
            return e.pack(kind, load_clamped(e, kind, values[:2], (step, values[2]), values[4]))
        return e.pack(kind, load_runs(e, kind, values[:2], (step, values[2]), ()))

    return kind, lowering


@operation
def load_any(
    p: Any,
    offset: Any,
    row_step: Any,
    lane_step: Any,
    rows: Any,
    columns: Any,
    lanes: Any,
    *part: Any,
) -> Any:
    """A tile of elements that lie anywhere, gathered one by one.

    A whole tile of few goes to registers at once: what was stored in pieces is slow to load. Lanes
    that are two elements apart are loaded as vectors.
    """
    kind = _tile(p, rows, columns, lanes)
    if kind is None:
        return None

    def gathered(e: Emitter, values: Sequence[Any]) -> list[Any]:
        b, count = e.builder, planes(kind.element)
        units: list[list[Any]] = [[] for _ in range(count)]
        for row in range(kind.rows):
            begin = b.add(values[1], step_to(e, (row_step, values[2]), row))
            for first in range(0, kind.columns, kind.lanes):
                vectors: list[Any] = [ir.Constant(kind.unit, ir.Undefined)] * count
                for lane in range(kind.lanes):
                    at = b.add(begin, step_to(e, (lane_step, values[3]), first + lane))
                    found = e.load(kind.element, e.address(kind.element, values[0], at), 1, None)
                    place = ir.Constant(ir.IntType(32), lane)
                    vectors = (
                        [b.insert_element(v, x, place) for v, x in zip(vectors, found, strict=True)]
                        if kind.lanes > 1
                        else list(found)
                    )
                for plane, vector in zip(units, vectors, strict=True):
                    plane.append(vector)
        return [unit for plane in units for unit in plane]

    def anywhere(e: Emitter, values: Sequence[Any]) -> list[Any]:
        if not part and kind.rows * kind.columns <= AT_ONCE:
            return gathered(e, values)
        spill = Spill(e, kind)
        if part:
            spill.clear()
        for at, places in each_element(e, kind, values, (row_step, lane_step), spill, values[7:]):
            for value, place in zip(e.load(kind.element, at, 1, None), places, strict=True):
                e.builder.store(value, place)
        return spill.registers()

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        steps = (row_step, values[2]), (lane_step, values[3])
        other = partial(anywhere, e, values)
        return e.pack(kind, pairs_or(e, kind, values[:2], *steps, values[7:], other))

    return kind, lowering


def _tile(pointer: Any, rows: Any, columns: Any, lanes: Any) -> Tile | None:
    sizes = literals(rows, columns, lanes)
    if sizes is None or not isinstance(pointer, Pointer):
        return None
    return Tile(pointer.element, *sizes)


@operation
def store_rows(p: Any, offset: Any, step: Any, tile: Any, *part: Any) -> Any:
    """Store every row of a tile as a run of neighbouring elements, ``step`` apart."""
    if not (isinstance(p, Pointer) and isinstance(tile, Tile)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        registers = e.unpack(tile, values[3])
        store_runs(e, tile, registers, values[:2], (step, values[2]), values[4:])

    return types.void, lowering


@operation
def store_columns(p: Any, offset: Any, step: Any, tile: Any, *part: Any) -> Any:
    """Store every column of a tile as a run of neighbouring elements: transposed, then stored."""
    if not (isinstance(p, Pointer) and isinstance(tile, Tile)):
        return None
    turned = Tile(tile.element, tile.columns, tile.rows, tile.lanes)

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        registers = transposed(e, tile, e.unpack(tile, values[3]))
        store_runs(e, turned, registers, values[:2], (step, values[2]), values[:3:-1])

    return types.void, lowering


@operation
def store_any(p: Any, offset: Any, row_step: Any, lane_step: Any, tile: Any, *part: Any) -> Any:
    """Store a tile's elements anywhere, one by one."""
    if not (isinstance(p, Pointer) and isinstance(tile, Tile)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        spill = Spill(e, tile)
        spill.fill(e.unpack(tile, values[4]))
        for at, places in each_element(e, tile, values, (row_step, lane_step), spill, values[5:]):
            e.store(tile.element, at, [e.builder.load(place) for place in places], 1, None)

    return types.void, lowering


@operation
def copy_part(
    panel: Any,
    place: Any,
    pitch: Any,
    p: Any,
    offset: Any,
    row_step: Any,
    lane_step: Any,
    rows: Any,
    columns: Any,
    width: Any,
) -> Any:
    """Copy ``rows x columns`` elements that lie anywhere into a panel.

    A row of the panel is ``width`` long and ``pitch`` from the next; the rest of it is zero. What
    lies inside is moved in pieces of a few columns: as a vector where they are neighbours.
    """
    sizes = literals(width)
    if sizes is None or not (isinstance(panel, Pointer) and isinstance(p, Pointer)):
        return None
    piece = gcd(sizes[0], PIECE)
    count = sizes[0] // piece
    scalar = scalar_type(panel.element)

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        b = e.builder
        rows_, columns_ = values[7:9]

        def move(to: Any, at: Any, lanes: int, inside: Any = None) -> None:
            found = e.load(p.element, e.address(p.element, values[3], at), lanes, None)
            unit = scalar if lanes == 1 else ir.VectorType(scalar, lanes)
            if scalar_bytes(panel.element) > scalar_bytes(p.element):
                found = [b.fpext(value, unit) for value in found]
            if inside is not None:
                found = [b.select(inside, value, e.zero(unit)) for value in found]
            e.store(panel.element, e.address(panel.element, values[0], to), found, lanes, None)

        with for_range(b, rows_, intp=I64) as row:
            source = b.add(values[4], step_to(e, (row_step, values[5]), row.index))
            target = b.add(values[1], b.mul(values[2], row.index))
            with for_range(b, e.integer(count), intp=I64) as number:
                first = b.mul(number.index, e.integer(piece))

                def apart(first: Any = first, source: Any = source, target: Any = target) -> None:
                    with for_range(b, e.integer(piece), intp=I64) as each:
                        lane = b.add(first, each.index)
                        inside = b.icmp_signed("<", lane, columns_)
                        index = b.select(inside, lane, e.integer(0))
                        at = b.add(source, step_to(e, (lane_step, values[6]), index))
                        move(b.add(target, lane), at, 1, inside)

                if isinstance(lane_step, Pointer) and piece > 1:
                    whole = b.icmp_signed("<=", b.add(first, e.integer(piece)), columns_)
                    looked = b.select(whole, first, e.integer(0))  # no table ends before a piece
                    near = steps_by(e, b.gep(values[6], [looked]), piece, 1)
                    with b.if_else(b.and_(whole, near)) as (together, otherwise):
                        with together:
                            at = b.add(source, step_to(e, (lane_step, values[6]), first))
                            move(b.add(target, first), at, piece)
                        with otherwise:
                            apart()
                else:
                    apart()

    return types.void, lowering
