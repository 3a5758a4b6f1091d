"""Tiles of different shapes in one operation: sides of length 1 stretch."""

from __future__ import annotations

from typing import Any

from .emitter import Emitter
from .tiles import Tile, planes


def common_shape(*tiles: Tile) -> Tile:
    """The shape that tiles have together when sides of length 1 stretch."""
    wide = max(tiles, key=lambda tile: tile.columns)
    return Tile(tiles[0].element, max(t.rows for t in tiles), wide.columns, wide.lanes)


def units_of(e: Emitter, kind: Tile, value: Any, shape: Tile) -> list[list[Any]]:
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


def pack_units(e: Emitter, shape: Tile, units: list[list[Any]]) -> Any:
    """The inverse of :func:`units_of`."""
    return e.pack(shape, [unit[p] for p in range(planes(shape.element)) for unit in units])
