"""Transposition of tiles in registers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from .emitter import Emitter, picks
from .tiles import I32, Tile, planes, scalar_bytes


def transposed(e: Emitter, kind: Tile, registers: Sequence[Any]) -> list[Any]:
    """The registers of the transpose of a tile, square block by square block."""
    size, across = kind.lanes, kind.vectors
    bits = 8 * scalar_bytes(kind.element)
    turned: dict[tuple[int, int, int], Any] = {}
    for plane in range(planes(kind.element)):
        base = plane * kind.rows * across
        for row in range(0, kind.rows, size):
            for vector in range(across):
                block = [registers[base + (row + i) * across + vector] for i in range(size)]
                for i, register in enumerate(_transposed(e.builder, block, bits)):
                    turned[plane, vector * size + i, row // size] = register
    return [turned[key] for key in sorted(turned)]


def _transposed(builder: ir.IRBuilder, rows: list[ir.Value], bits: int) -> list[ir.Value]:
    """Transpose; lanes of a byte or two as lanes of four bytes, where eight of these are enough.

    A shuffle of narrow lanes is several instructions, and LLVM takes long to find them.
    """
    lanes = rows[0].type
    if bits >= 32 or len(rows) > 8:
        return transpose_registers(builder, rows)
    narrow = ir.VectorType(ir.IntType(bits), lanes.count)
    wide = ir.VectorType(I32, lanes.count)
    rows = [builder.zext(builder.bitcast(row, narrow), wide) for row in rows]
    turned = transpose_registers(builder, rows)
    return [builder.bitcast(builder.trunc(row, narrow), lanes) for row in turned]


def transpose_registers(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Transpose n vectors of n lanes by log2(n) rounds of exchanging blocks between row pairs."""
    size, step = len(rows), 1
    while step < size:
        rows = list(rows)
        for i in range(size):
            if i & step:
                continue
            x, y = rows[i], rows[i + step]
            low = [j if not j & step else size + j - step for j in range(size)]
            high = [j + step if not j & step else size + j for j in range(size)]
            rows[i] = builder.shuffle_vector(x, y, picks(low))
            rows[i + step] = builder.shuffle_vector(x, y, picks(high))
        step *= 2
    return rows
