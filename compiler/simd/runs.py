"""How loads and stores are made: runs of neighbouring elements, whole or through the stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba.core.cgutils import for_range

from .emitter import Emitter
from .tiles import I64, Pointer, Tile, planes, scalar_bytes, scalar_type


def step_to(e: Emitter, step: tuple[Any, Any], index: Any) -> Any:
    """The offset that ``index`` steps make: by a stride, or looked up in a table."""
    kind, value = step
    if isinstance(index, int):
        index = e.integer(index)
    if isinstance(kind, Pointer):
        return e.builder.load(e.builder.gep(value, [index]))
    return e.builder.mul(value, index)


class Spill:
    """A tile on the stack, row by row, plane after plane: for access by a computed position."""

    def __init__(self, e: Emitter, kind: Tile) -> None:
        self.e, self.kind = e, kind
        scalar = scalar_type(kind.element)
        self.plane = kind.rows * kind.columns
        with e.builder.goto_entry_block():
            memory = e.builder.alloca(ir.ArrayType(scalar, self.plane * planes(kind.element)))
            memory.align = 64
        self.memory = e.builder.bitcast(memory, scalar.as_pointer())

    def element(self, plane: int, row: Any, column: Any) -> Any:
        """The address of one element."""
        b = self.e.builder
        index = b.add(b.mul(row, self.e.integer(self.kind.columns)), column)
        return b.gep(self.memory, [b.add(index, self.e.integer(plane * self.plane))])

    def unit(self, plane: int, row: Any, vector: int) -> Any:
        """The address of one register's elements."""
        first = plane * self.plane + vector * self.kind.lanes
        if isinstance(row, int):
            index = self.e.integer(row * self.kind.columns + first)
        else:
            b = self.e.builder
            index = b.add(b.mul(row, self.e.integer(self.kind.columns)), self.e.integer(first))
        at = self.e.builder.gep(self.memory, [index])
        return self.e.builder.bitcast(at, self.kind.unit.as_pointer())

    def _units(self) -> list[Any]:
        return [
            self.unit(plane, row, vector)
            for plane in range(planes(self.kind.element))
            for row in range(self.kind.rows)
            for vector in range(self.kind.vectors)
        ]

    def fill(self, registers: Sequence[Any]) -> None:
        """Store all registers of the tile."""
        for place, register in zip(self._units(), registers, strict=True):
            self.e.builder.store(register, place)

    def clear(self) -> None:
        """Store zeros."""
        self.fill([self.e.zero(self.kind.unit)] * len(self._units()))

    def registers(self) -> list[Any]:
        """Load all registers of the tile."""
        return [self.e.builder.load(place) for place in self._units()]


def load_runs(
    e: Emitter, kind: Tile, base: Sequence[Any], step: tuple[Any, Any], part: Sequence[Any]
) -> list[Any]:
    """A tile's registers, from runs of neighbouring elements in memory."""
    masks: list[Any] = [None] * (kind.rows * kind.vectors)
    if part and _is_narrow(kind):
        spill = Spill(e, kind)
        spill.clear()
        for at, places in _inside_elements(spill, base, step, part):
            for value, place in zip(e.load(kind.element, at, 1, None), places, strict=True):
                e.builder.store(value, place)
        return spill.registers()
    if part and kind.rows == 1 and kind.lanes > 1:
        masks = _row_masks(e, kind, part[1])
    elif part:
        spill = Spill(e, kind)
        spill.clear()
        for at, mask, places in _inside_runs(spill, base, step, part):
            for value, place in zip(
                e.load(kind.element, at, kind.lanes, mask), places, strict=True
            ):
                e.builder.store(value, place)
        return spill.registers()
    runs = zip(whole_runs(e, kind, base, step), masks, strict=True)
    units = [e.load(kind.element, at, kind.lanes, mask) for at, mask in runs]
    return [unit[plane] for plane in range(planes(kind.element)) for unit in units]


def load_clamped(
    e: Emitter,
    kind: Tile,
    base: Sequence[Any],
    step: tuple[Any, Any],
    rows: Any,
    columns: Any = None,
) -> list[Any]:
    """A tile's registers, for rows outside the tensor those of the last one inside.

    Columns outside are zero, if their count is given.
    """
    last = e.builder.sub(rows, e.integer(1))
    begins = []
    for row in range(kind.rows):
        inside = e.builder.icmp_signed("<", e.integer(row), last)
        offset = step_to(e, step, e.builder.select(inside, e.integer(row), last))
        begins.append((base[0], e.builder.add(base[1], offset)))
    return load_from(e, kind, begins, columns)


def load_from(
    e: Emitter, kind: Tile, begins: Sequence[tuple[Any, Any]], columns: Any = None
) -> list[Any]:
    """A tile's registers, of rows that begin at pointers and offsets; columns as above."""
    masks = [None] * kind.vectors if columns is None else _row_masks(e, kind, columns)
    units = []
    for pointer, begin in begins:
        for vector, mask in enumerate(masks):
            at = e.builder.add(begin, e.integer(vector * kind.lanes))
            at = e.address(kind.element, pointer, at)
            units.append(e.load(kind.element, at, kind.lanes, mask))
    return [unit[plane] for plane in range(planes(kind.element)) for unit in units]


def store_runs(
    e: Emitter,
    kind: Tile,
    registers: Sequence[Any],
    base: Sequence[Any],
    step: tuple[Any, Any],
    part: Sequence[Any],
) -> None:
    """The inverse of :func:`load_runs`."""
    masks: list[Any] = [None] * (kind.rows * kind.vectors)
    if part and _is_narrow(kind):
        spill = Spill(e, kind)
        spill.fill(registers)
        for at, places in _inside_elements(spill, base, step, part):
            e.store(kind.element, at, [e.builder.load(place) for place in places], 1, None)
        return
    if part and kind.rows == 1 and kind.lanes > 1:
        masks = _row_masks(e, kind, part[1])
    elif part:
        spill = Spill(e, kind)
        spill.fill(registers)
        for at, mask, places in _inside_runs(spill, base, step, part):
            value = [e.builder.load(place) for place in places]
            e.store(kind.element, at, value, kind.lanes, mask)
        return
    count = kind.rows * kind.vectors
    for i, (at, mask) in enumerate(zip(whole_runs(e, kind, base, step), masks, strict=True)):
        e.store(kind.element, at, list(registers[i::count]), kind.lanes, mask)


def _is_narrow(kind: Tile) -> bool:
    """Whether a vector's elements are too narrow to be masked: CPUs mask 4 bytes or 8."""
    return kind.lanes > 1 and scalar_bytes(kind.element) < 4


def _inside_elements(
    spill: Spill, base: Sequence[Any], step: tuple[Any, Any], part: Sequence[Any]
) -> Iterator[tuple[Any, list[Any]]]:
    """A loop over the elements inside of a tile that is made of runs."""
    values = (*base, step[1], spill.e.integer(1))
    return each_element(spill.e, spill.kind, values, (step[0], None), spill, part)


def _row_masks(e: Emitter, kind: Tile, columns: Any) -> list[Any]:
    """The lanes of each vector of a single row that lie below ``columns``."""
    return [e.lanes_below(columns, v * kind.lanes, kind.lanes) for v in range(kind.vectors)]


def whole_runs(e: Emitter, kind: Tile, base: Sequence[Any], step: tuple[Any, Any]) -> Iterator[Any]:
    """The address of every register's elements, row by row."""
    for row in range(kind.rows):
        begin = e.builder.add(base[1], step_to(e, step, row))
        for vector in range(kind.vectors):
            at = e.builder.add(begin, e.integer(vector * kind.lanes))
            yield e.address(kind.element, base[0], at)


def _inside_runs(
    spill: Spill, base: Sequence[Any], step: tuple[Any, Any], part: Sequence[Any]
) -> Iterator[tuple[Any, Any, list[Any]]]:
    """A loop over the rows inside: for every vector its address, its mask and its spill places."""
    e, kind = spill.e, spill.kind
    rows, columns = part
    with for_range(e.builder, rows, intp=I64) as loop:
        begin = e.builder.add(base[1], step_to(e, step, loop.index))
        for vector in range(kind.vectors):
            first = vector * kind.lanes
            at = e.address(kind.element, base[0], e.builder.add(begin, e.integer(first)))
            places = [spill.unit(p, loop.index, vector) for p in range(planes(kind.element))]
            mask = e.lanes_below(columns, first, kind.lanes) if kind.lanes > 1 else None
            if kind.lanes > 1 or kind.columns == 1:
                yield at, mask, places
            else:
                with e.builder.if_then(e.lanes_below(columns, first, 1)):
                    yield at, None, places


def each_element(
    e: Emitter,
    kind: Tile,
    values: Sequence[Any],
    steps: tuple[Any, Any],
    spill: Spill,
    part: Sequence[Any],
) -> Iterator[tuple[Any, list[Any]]]:
    """A loop over the elements inside: each one's address and its places in the spill."""
    rows, columns = part or (e.integer(kind.rows), e.integer(kind.columns))
    with for_range(e.builder, rows, intp=I64) as row:
        begin = e.builder.add(values[1], step_to(e, (steps[0], values[2]), row.index))
        with for_range(e.builder, columns, intp=I64) as lane:
            at = e.builder.add(begin, step_to(e, (steps[1], values[3]), lane.index))
            places = [
                spill.element(plane, row.index, lane.index) for plane in range(planes(kind.element))
            ]
            yield e.address(kind.element, values[0], at), places
