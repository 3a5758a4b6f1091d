"""Arithmetic on tiles, element by element and summed; sides of length 1 stretch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types

from .emitter import Emitter, picks
from .registry import literals, operation
from .shapes import common_shape, pack_units, units_of
from .tiles import I32, Element, Tile, planes


@operation
def zeros(element: Any, rows: Any, columns: Any, lanes: Any) -> Any:
    """A tile of zeros."""
    sizes = literals(rows, columns, lanes)
    if sizes is None or not isinstance(element, Element):
        return None
    kind = Tile(element.element, *sizes)
    count = kind.rows * kind.vectors * planes(kind.element)
    return kind, lambda e, v: e.pack(kind, [e.zero(kind.unit)] * count)


def _binary(combine: str) -> Callable[..., Any]:
    def declare(x: Any, y: Any) -> Any:
        if not (isinstance(x, Tile) and isinstance(y, Tile) and x.element == y.element):
            return None
        shape = common_shape(x, y)

        def lowering(e: Emitter, values: Sequence[Any]) -> Any:
            sides = (units_of(e, t, v, shape) for t, v in zip((x, y), values, strict=True))
            pairs = zip(*sides, strict=True)
            return pack_units(e, shape, [getattr(e, combine)(x.element, a, b) for a, b in pairs])

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
            units_of(e, acc, values[0], acc),
            units_of(e, x, values[1], acc),
            units_of(e, y, values[2], acc),
            strict=True,
        )
        results = []
        for i, (a, b, c) in enumerate(triples):
            result = e.multiply_add(acc.element, a, b, c)
            results.append(_inside(e, acc, i, inside, result, a))
        return pack_units(e, acc, results)

    return acc, lowering


@operation
def accumulate(acc: Any, x: Any, *part: Any) -> Any:
    """``acc + x``; with counts, only inside of ``rows x columns``."""
    if not (isinstance(acc, Tile) and isinstance(x, Tile)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        inside = values[2:]
        pairs = zip(units_of(e, acc, values[0], acc), units_of(e, x, values[1], acc), strict=True)
        results = [
            _inside(e, acc, i, inside, e.add(acc.element, a, b), a)
            for i, (a, b) in enumerate(pairs)
        ]
        return pack_units(e, acc, results)

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
def total_rows(tile: Any) -> Any:
    """The sum of every row's values, as a tile of one column; always in the same order."""
    if not isinstance(tile, Tile):
        return None
    kind = Tile(tile.element, tile.rows, 1, 1)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        units = units_of(e, tile, values[0], tile)
        rows = [units[r * tile.vectors : (r + 1) * tile.vectors] for r in range(tile.rows)]
        return pack_units(e, kind, [_sum_units(e, tile, row) for row in rows])

    return kind, lowering


@operation
def holds_somewhere(tile: Any) -> Any:
    """1 if any element of a tile of ``b1`` is true, else 0."""
    if not isinstance(tile, Tile) or tile.element != "b1":
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        b = e.builder
        (first,), *others = units_of(e, tile, values[0], tile)
        for (other,) in others:
            first = b.or_(first, other)
        if isinstance(first.type, ir.VectorType):
            first = b.bitcast(first, ir.IntType(8 * first.type.count))
        some = b.icmp_unsigned("!=", first, ir.Constant(first.type, 0))
        return b.zext(some, ir.IntType(64))

    return types.int64, lowering


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
    return kind, lambda e, v: pack_units(e, kind, units_of(e, tile, v[0], kind))
