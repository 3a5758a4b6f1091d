"""Loads and stores of woven tiles: rows that are neighbours in memory, lanes a step apart.

    x0 y0 z0  x1 y1 z1  x2 y2 z2  x3 y3 z3   in memory
    x0 x1 x2 x3                              three rows of four lanes
    y0 y1 y2 y3
    z0 z1 z2 z3

Where the step is just the number of rows, whole vectors are moved and their lanes sorted. Else
every lane's run of rows is moved on its own, and runs are transposed in registers. Which it is, is
found out as the kernel runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types

from .emitter import Emitter, picks
from .pairs import pairs_or
from .registry import literals, operation
from .runs import Spill, each_element
from .tiles import Pointer, Tile, planes, scalar_bytes


@operation
def load_woven(
    p: Any, offset: Any, step: Any, rows: Any, columns: Any, lanes: Any, *part: Any
) -> Any:
    """A woven tile of ``rows`` neighbours in lanes that are ``step`` apart.

    With counts of rows and columns inside, other rows are zero; other columns are, or they repeat
    the last one inside.
    """
    sizes = literals(rows, columns, lanes)
    if sizes is None or not isinstance(p, Pointer) or sizes[2] == 1:
        return None
    kind = Tile(p.element, *sizes)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        if _is_narrow(kind):
            spill = Spill(e, kind)
            spill.clear()
            places = [*values[:2], e.integer(1), values[2]]
            for at, inside in each_element(e, kind, places, (None, step), spill, values[6:]):
                for value, place in zip(e.load(kind.element, at, 1, None), inside, strict=True):
                    e.builder.store(value, place)
            return e.pack(kind, spill.registers())

        def by_lanes() -> list[Any]:
            loaded = [
                _load_vector(e, kind, values, step, vector, values[6:])
                for vector in range(kind.vectors)
            ]
            return [
                loaded[vector][plane][row]
                for plane in range(planes(kind.element))
                for row in range(kind.rows)
                for vector in range(kind.vectors)
            ]

        steps = (None, e.integer(1)), (step, values[2])
        return e.pack(kind, pairs_or(e, kind, values[:2], *steps, values[6:], by_lanes))

    return kind, lowering


@operation
def store_woven(p: Any, offset: Any, step: Any, tile: Any, *part: Any) -> Any:
    """Store a tile whose rows are neighbours in memory and whose lanes are ``step`` apart."""
    if not (isinstance(p, Pointer) and isinstance(tile, Tile)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        def scattered() -> None:
            spill = Spill(e, tile)
            spill.fill(e.unpack(tile, values[3]))
            places = [*values[:2], e.integer(1), values[2]]
            for at, inside in each_element(e, tile, places, (None, step), spill, values[4:]):
                e.store(tile.element, at, [e.builder.load(place) for place in inside], 1, None)

        if values[4:] or tile.lanes == 1 or planes(tile.element) > 1:
            scattered()
            return
        dense = e.builder.icmp_signed("==", values[2], e.integer(tile.rows))
        with e.builder.if_else(dense) as (then, otherwise):
            with then:
                registers = e.unpack(tile, values[3])
                for vector in range(tile.vectors):
                    rows = registers[vector :: tile.vectors]
                    first = e.builder.add(values[1], e.integer(vector * tile.lanes * tile.rows))
                    for i, woven in enumerate(_woven(e, rows)):
                        at = e.builder.add(first, e.integer(i * tile.lanes))
                        e.store(
                            tile.element, e.address(tile.element, values[0], at), [woven],
                            tile.lanes, None,
                        )  # fmt: skip
            with otherwise:
                scattered()

    return types.void, lowering


def _is_narrow(kind: Tile) -> bool:
    """Whether elements are too narrow for masked loads."""
    return scalar_bytes(kind.element) < 4


def _load_vector(
    e: Emitter, kind: Tile, values: Sequence[Any], step: Any, vector: int, part: Sequence[Any]
) -> list[list[Any]]:
    """One vector of every row, plane after plane."""
    b = e.builder
    count = planes(kind.element)
    first = e.integer(vector * kind.lanes)

    def in_runs() -> list[list[Any]]:
        return by_runs(e, kind, values, step, first, part)

    if part or count > 1 or isinstance(step, Pointer):
        return in_runs()
    dense = b.icmp_signed("==", values[2], e.integer(kind.rows))
    found: list[tuple[Any, list[Any]]] = []
    with b.if_else(dense) as (then, otherwise):
        with then:
            begin = b.add(values[1], b.mul(first, values[2]))
            vectors = []
            for i in range(kind.rows):
                at = b.add(begin, e.integer(i * kind.lanes))
                at = e.address(kind.element, values[0], at)
                vectors += e.load(kind.element, at, kind.lanes, None)
            in_order = sorted_rows(e, vectors)
            found.append((b.block, in_order))
        with otherwise:
            (turned,) = in_runs()
            found.append((b.block, turned))
    merged = []
    for row in range(kind.rows):
        phi = b.phi(kind.unit)
        for block, registers in found:
            phi.add_incoming(registers[row], block)
        merged.append(phi)
    return [merged]


def by_runs(
    e: Emitter, kind: Tile, values: Sequence[Any], step: Any, first: Any, part: Sequence[Any]
) -> list[list[Any]]:
    """Load every lane's run of rows, and transpose: the rows of each plane."""
    b, count = e.builder, planes(kind.element)
    turned: list[list[Any]] = [[] for _ in range(count)]
    for begin in range(0, kind.rows, kind.lanes):
        rows = min(kind.rows - begin, kind.lanes)
        size = 1 << (rows - 1).bit_length()
        mask = None
        inside = e.integer(rows)
        if part:
            left = b.sub(part[0], e.integer(begin))
            inside = b.select(b.icmp_signed("<", left, inside), left, inside)
        if (part or rows != size) and size > 1:
            mask = e.lanes_below(inside, 0, size)
        runs: list[list[Any]] = [[] for _ in range(count)]
        for lane in range(kind.lanes):
            index = b.add(first, e.integer(lane))
            if part:
                last = b.sub(part[1], e.integer(1))
                index = b.select(b.icmp_signed("<", index, last), index, last)
            along = (
                b.load(b.gep(values[2], [index]))
                if isinstance(step, Pointer)
                else b.mul(index, values[2])
            )
            at = b.add(b.add(values[1], along), e.integer(begin))
            address = e.address(kind.element, values[0], at)
            for plane, value in enumerate(e.load(kind.element, address, size, mask)):
                runs[plane].append(value)
        for plane in range(count):
            turned[plane] += _turned(e, kind, runs[plane], size)[:rows]
    return turned


def _turned(e: Emitter, kind: Tile, runs: list[Any], size: int) -> list[Any]:
    """The rows of ``lanes`` runs of ``size`` elements."""
    b = e.builder
    if size == 1:
        vector: Any = ir.Constant(kind.unit, ir.Undefined)
        for lane, value in enumerate(runs):
            vector = b.insert_element(vector, value, ir.Constant(ir.IntType(32), lane))
        return [vector]
    # Runs that are `size` lanes apart share a register: what follows transposes them alike.
    runs = [_joined(b, runs[i::size]) for i in range(size)]
    lanes, step = kind.lanes, 1
    while step < size:
        for i in range(size):
            if i & step:
                continue
            x, y = runs[i], runs[i + step]
            low = [j if not j & step else lanes + j - step for j in range(lanes)]
            high = [j + step if not j & step else lanes + j for j in range(lanes)]
            runs[i] = b.shuffle_vector(x, y, picks(low))
            runs[i + step] = b.shuffle_vector(x, y, picks(high))
        step *= 2
    return runs


def _joined(b: ir.IRBuilder, parts: list[Any]) -> Any:
    """Vectors one behind the other, as one."""
    while len(parts) > 1:
        pairs = zip(parts[0::2], parts[1::2], strict=True)
        parts = [b.shuffle_vector(x, y, picks(range(2 * x.type.count))) for x, y in pairs]
    return parts[0]


def sorted_rows(e: Emitter, vectors: list[Any]) -> list[Any]:
    """The rows that are woven in as many vectors of neighbours."""
    count, lanes = len(vectors), vectors[0].type.count
    b = e.builder
    if count == 1:
        return vectors
    if count % 2 == 0:
        halves = [
            [
                b.shuffle_vector(x, y, picks(range(odd, 2 * lanes, 2)))
                for x, y in zip(vectors[0::2], vectors[1::2], strict=True)
            ]
            for odd in (0, 1)
        ]
        even, odd = (sorted_rows(e, half) for half in halves)
        return [row for pair in zip(even, odd, strict=True) for row in pair]
    # An odd count: a row's elements lie in different lanes of all vectors.
    rows = []
    for row in range(count):
        source = [_lane_source(row, lane, count, lanes) for lane in range(lanes)]
        mixed = _blended(b, vectors, source, lanes)
        order = [(lane * count + row) % lanes for lane in range(lanes)]
        rows.append(b.shuffle_vector(mixed, mixed, picks(order)))
    return rows


def _woven(e: Emitter, rows: list[Any]) -> list[Any]:
    """The inverse of :func:`sorted_rows`."""
    count, lanes = len(rows), rows[0].type.count
    b = e.builder
    if count == 1:
        return rows
    if count % 2 == 0:
        even, odd = _woven(e, rows[0::2]), _woven(e, rows[1::2])
        low = [lane // 2 + lane % 2 * lanes for lane in range(lanes)]
        vectors = []
        for x, y in zip(even, odd, strict=True):
            vectors.append(b.shuffle_vector(x, y, picks(low)))
            vectors.append(b.shuffle_vector(x, y, picks(p + lanes // 2 for p in low)))
        return vectors
    placed = []
    for row, register in enumerate(rows):
        order = [0] * lanes
        for lane in range(lanes):
            order[(lane * count + row) % lanes] = lane
        placed.append(b.shuffle_vector(register, register, picks(order)))
    return [
        _blended(b, placed, [(vector * lanes + lane) % count for lane in range(lanes)], lanes)
        for vector in range(count)
    ]


def _lane_source(row: int, lane: int, count: int, lanes: int) -> int:
    """The vector that has, in this lane, an element of a row: one of an odd count."""
    return next(k for k in range(count) if (k * lanes + lane) % count == row)


def _blended(b: ir.IRBuilder, vectors: list[Any], source: list[int], lanes: int) -> Any:
    """A vector whose every lane is that lane of the vector that ``source`` names."""
    result = vectors[0]
    for k, vector in enumerate(vectors[1:], 1):
        if k in source:
            chosen = [lanes + lane if source[lane] == k else lane for lane in range(lanes)]
            result = b.shuffle_vector(result, vector, picks(chosen))
    return result
