"""Arithmetic on tiles, element by element and summed; sides of length 1 stretch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from .emitter import Emitter, picks
from .registry import literals, operation
from .tiles import I32, Element, Tile, planes, scalar_bytes


@operation
def zeros(element: Any, rows: Any, columns: Any, lanes: Any) -> Any:
    """A tile of zeros."""
    sizes = literals(rows, columns, lanes)
    if sizes is None or not isinstance(element, Element):
        return None
    kind = Tile(element.element, *sizes)
    count = kind.rows * kind.vectors * planes(kind.element)
    return kind, lambda e, v: e.pack(kind, [e.zero(kind.unit)] * count)


def _stretched(x: Tile, y: Tile) -> Tile:
    """The shape that two tiles have together when sides of length 1 stretch."""
    wide = x if x.columns >= y.columns else y
    return Tile(x.element, max(x.rows, y.rows), wide.columns, wide.lanes)


def _units(e: Emitter, kind: Tile, value: Any, shape: Tile) -> list[list[Any]]:
    """A tile's registers stretched to ``shape``: a list of planes for each row and vector."""
    registers = e.unpack(kind, value)
    per_plane = kind.rows * kind.vectors
    stretched: dict[tuple[int, int], Any] = {}

    def register(plane: int, row: int, vector: int) -> Any:
        index = plane * per_plane + (row % kind.rows) * kind.vectors + vector % kind.vectors
        if kind.columns == shape.columns:
            return registers[index]
        if (plane, index) not in stretched:
            stretched[plane, index] = e.splat(registers[index], shape.lanes)
        return stretched[plane, index]

    return [
        [register(plane, row, vector) for plane in range(planes(kind.element))]
        for row in range(shape.rows)
        for vector in range(shape.vectors)
    ]


def _pack_units(e: Emitter, shape: Tile, units: list[list[Any]]) -> Any:
    return e.pack(shape, [unit[p] for p in range(planes(shape.element)) for unit in units])


def _binary(combine: str) -> Callable[..., Any]:
    def declare(x: Any, y: Any) -> Any:
        if not (isinstance(x, Tile) and isinstance(y, Tile) and x.element == y.element):
            return None
        shape = _stretched(x, y)

        def lowering(e: Emitter, values: Sequence[Any]) -> Any:
            pairs = zip(_units(e, x, values[0], shape), _units(e, y, values[1], shape), strict=True)
            return _pack_units(e, shape, [getattr(e, combine)(x.element, a, b) for a, b in pairs])

        return shape, lowering

    declare.__name__ = combine
    declare.__doc__ = f"{combine.capitalize()} two tiles element by element."
    return operation(declare)


multiply = _binary("multiply")
add = _binary("add")


@operation
def multiply_add(acc: Any, x: Any, y: Any, *part: Any) -> Any:
    """``acc + x * y``; with counts, only inside of ``rows x columns``."""
    if not (isinstance(acc, Tile) and isinstance(x, Tile) and isinstance(y, Tile)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        inside = values[3:]
        triples = zip(
            _units(e, acc, values[0], acc),
            _units(e, x, values[1], acc),
            _units(e, y, values[2], acc),
            strict=True,
        )
        results = []
        for i, (a, b, c) in enumerate(triples):
            result = e.multiply_add(acc.element, a, b, c)
            results.append(_inside(e, acc, i, inside, result, a))
        return _pack_units(e, acc, results)

    return acc, lowering


@operation
def accumulate(acc: Any, x: Any, *part: Any) -> Any:
    """``acc + x``; with counts, only inside of ``rows x columns``."""
    if not (isinstance(acc, Tile) and isinstance(x, Tile)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        inside = values[2:]
        pairs = zip(_units(e, acc, values[0], acc), _units(e, x, values[1], acc), strict=True)
        results = [
            _inside(e, acc, i, inside, e.add(acc.element, a, b), a)
            for i, (a, b) in enumerate(pairs)
        ]
        return _pack_units(e, acc, results)

    return acc, lowering


def _inside(
    e: Emitter, kind: Tile, index: int, inside: Sequence[Any], new: list[Any], old: list[Any]
) -> list[Any]:
    """``new`` in the columns that are inside and ``old`` in the others, for one vector.

    Rows outside may hold anything: they are never stored, and no row reaches another one.
    """
    if not inside:
        return new
    mask = e.lanes_below(inside[1], index % kind.vectors * kind.lanes, kind.lanes)
    return [e.builder.select(mask, n, o) for n, o in zip(new, old, strict=True)]


@operation
def convert(tile: Any, element: Any) -> Any:
    """The same values as another element type (real floating-point types and equal ones)."""
    if not (isinstance(tile, Tile) and isinstance(element, Element)):
        return None
    kind = Tile(element.element, tile.rows, tile.columns, tile.lanes)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        wider = scalar_bytes(kind.element) > scalar_bytes(tile.element)
        change = e.builder.fpext if wider else e.builder.fptrunc
        if kind.element == tile.element:
            return values[0]
        return e.pack(kind, [change(u, kind.unit) for u in e.unpack(tile, values[0])])

    return kind, lowering


@operation
def total_rows(tile: Any) -> Any:
    """The sum of every row's values, as a tile of one column; always in the same order."""
    if not isinstance(tile, Tile):
        return None
    kind = Tile(tile.element, tile.rows, 1, 1)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        units = _units(e, tile, values[0], tile)
        rows = [units[r * tile.vectors : (r + 1) * tile.vectors] for r in range(tile.rows)]
        return _pack_units(e, kind, [_sum_units(e, tile, row) for row in rows])

    return kind, lowering


def _sum_units(e: Emitter, kind: Tile, units: list[list[Any]]) -> list[Any]:
    """Add registers pairwise, then the lanes of what remains, into one scalar a plane."""
    while len(units) > 1:
        odd = units[len(units) // 2 * 2 :]
        pairs = zip(units[0::2], units[1::2], strict=False)
        units = [e.add(kind.element, x, y) for x, y in pairs] + odd
    (unit,) = units
    lanes = kind.lanes
    while lanes > 1:
        lanes //= 2
        halves = [
            [e.builder.shuffle_vector(p, p, picks(range(h, h + lanes))) for p in unit]
            for h in (0, lanes)
        ]
        unit = e.add(kind.element, halves[0], halves[1])
    if kind.lanes > 1:
        unit = [e.builder.extract_element(p, ir.Constant(I32, 0)) for p in unit]
    return unit


@operation
def stretch(tile: Any, rows: Any, columns: Any, lanes: Any) -> Any:
    """The same tile with sides of length 1 stretched to ``rows x columns``."""
    sizes = literals(rows, columns, lanes)
    if sizes is None or not isinstance(tile, Tile):
        return None
    kind = Tile(tile.element, *sizes)
    return kind, lambda e, v: _pack_units(e, kind, _units(e, tile, v[0], kind))
