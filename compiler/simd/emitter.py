"""`Emitter`: an LLVM builder that knows elements, vectors of them, and tiles.

For ``b1`` a product is ``and`` and a sum is ``or``, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llvmlite import ir

from .tiles import I32, I64, Tile, planes, scalar_bytes, scalar_type, suffix


class Emitter:
    """An LLVM builder with the few helpers that the operations below share."""

    def __init__(self, builder: ir.IRBuilder, *, fused: bool) -> None:
        self.builder, self.fused = builder, fused

    def unpack(self, kind: Tile, value: ir.Value) -> list[ir.Value]:
        """The registers of a tile in the order plane, row, vector."""
        count = kind.rows * kind.vectors * planes(kind.element)
        return [self.builder.extract_value(value, i) for i in range(count)]

    def pack(self, kind: Tile, registers: Sequence[ir.Value]) -> ir.Value:
        """The inverse of :meth:`unpack`."""
        value: ir.Value = ir.Constant(ir.ArrayType(kind.unit, len(registers)), ir.Undefined)
        for i, register in enumerate(registers):
            value = self.builder.insert_value(value, register, i)
        return value

    def integer(self, value: int) -> ir.Value:
        """A 64-bit constant."""
        return ir.Constant(I64, value)

    def splat(self, scalar: ir.Value, lanes: int) -> ir.Value:
        """A vector whose lanes all hold ``scalar``."""
        if lanes == 1:
            return scalar
        vector = ir.VectorType(scalar.type, lanes)
        first = self.builder.insert_element(
            ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0)
        )
        return self.builder.shuffle_vector(
            first, ir.Constant(vector, ir.Undefined), picks([0] * lanes)
        )

    def intrinsic(self, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
        """A call of an LLVM intrinsic (declared by hand: llvmlite's helper refuses vectors)."""
        kind = ir.FunctionType(result, [a.type for a in args])
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, args)

    def multiply(self, element: str, x: list[ir.Value], y: list[ir.Value]) -> list[ir.Value]:
        """The product of two values given by their planes."""
        b = self.builder
        if element[0] == "c":
            (xr, xi), (yr, yi) = x, y
            real = self.fma(element, b.fneg(xi), yi, b.fmul(xr, yr))
            imaginary = self.fma(element, xi, yr, b.fmul(xr, yi))
            return [real, imaginary]
        operator = {"f": b.fmul, "b": b.and_}.get(element[0], b.mul)
        return [operator(x[0], y[0])]

    def add(self, element: str, x: list[ir.Value], y: list[ir.Value]) -> list[ir.Value]:
        """The sum of two values given by their planes."""
        b = self.builder
        operator = {"f": b.fadd, "c": b.fadd, "b": b.or_}.get(element[0], b.add)
        return [operator(p, q) for p, q in zip(x, y, strict=True)]

    def multiply_add(
        self, element: str, acc: list[ir.Value], x: list[ir.Value], y: list[ir.Value]
    ) -> list[ir.Value]:
        """``acc + x * y``; fused for floating point, exact for integers."""
        if element[0] == "f":
            return [self.fma(element, x[0], y[0], acc[0])]
        if element[0] == "c":
            (xr, xi), (yr, yi) = x, y
            negated = self.builder.fneg(xi)
            real = self.fma(element, negated, yi, self.fma(element, xr, yr, acc[0]))
            imaginary = self.fma(element, xi, yr, self.fma(element, xr, yi, acc[1]))
            return [real, imaginary]
        return self.add(element, acc, self.multiply(element, x, y))

    def fma(self, element: str, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
        """``x * y + z``, rounded once where the target can."""
        if not self.fused:
            return self.builder.fadd(self.builder.fmul(x, y), z)
        lanes = x.type.count if isinstance(x.type, ir.VectorType) else 1
        name = f"f{8 * scalar_bytes(element)}" if lanes == 1 else suffix(element, lanes)
        return self.intrinsic(f"llvm.fma.{name}", x.type, [x, y, z])

    def zero(self, unit: ir.Type) -> ir.Value:
        """Zero in every lane."""
        if isinstance(unit, ir.VectorType):
            scalar = 0 if isinstance(unit.element, ir.IntType) else 0.0
            return ir.Constant(unit, [scalar] * unit.count)
        return ir.Constant(unit, 0 if isinstance(unit, ir.IntType) else 0.0)

    def address(self, element: str, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        """The address of the element at ``offset`` (of its real part where it is complex)."""
        if planes(element) == 2:
            offset = self.builder.shl(offset, ir.Constant(I64, 1))
        return self.builder.gep(pointer, [offset])

    def lanes_below(self, count: ir.Value, first: int, lanes: int) -> ir.Value:
        """A mask: which of the columns ``first .. first + lanes`` lie below ``count``."""
        if lanes == 1:
            return self.builder.icmp_signed("<", ir.Constant(I64, first), count)
        columns = ir.Constant(ir.VectorType(I32, lanes), list(range(first, first + lanes)))
        count = self.builder.trunc(count, I32)
        return self.builder.icmp_signed("<", columns, self.splat(count, lanes))

    # Memory. Each returns or takes one register per plane.

    def load(self, element: str, address: ir.Value, lanes: int, mask: Any) -> list[ir.Value]:
        """``lanes`` neighbouring elements; lanes outside ``mask`` are zero and are not touched."""
        b, count = self.builder, planes(element)
        scalar, align = scalar_type(element), scalar_bytes(element)
        if lanes == 1:
            found = [self._load_unit(address, scalar, align, p) for p in range(count)]
            return found
        vector = ir.VectorType(scalar, lanes)
        parts = []
        for part in range(count):
            at = b.bitcast(b.gep(address, [ir.Constant(I64, part * lanes)]), vector.as_pointer())
            if mask is None:
                value = b.load(at)
                value.align = align
            else:
                value = self.intrinsic(
                    f"llvm.masked.load.{suffix(element, lanes)}.p0",
                    vector,
                    [at, ir.Constant(I32, align), self._part(mask, part, count), self.zero(vector)],
                )
            parts.append(value)
        if count == 1:
            return parts
        return [b.shuffle_vector(parts[0], parts[1], picks(range(p, 2 * lanes, 2))) for p in (0, 1)]

    def store(
        self, element: str, address: ir.Value, value: list[ir.Value], lanes: int, mask: Any
    ) -> None:
        """The inverse of :meth:`load`."""
        b, count = self.builder, planes(element)
        scalar, align = scalar_type(element), scalar_bytes(element)
        if lanes == 1:
            for part in range(count):
                at = b.gep(address, [ir.Constant(I64, part)])
                b.store(value[part], at).align = align
            return
        vector = ir.VectorType(scalar, lanes)
        parts = value
        if count == 2:
            mixed = [lane + plane * lanes for lane in range(lanes) for plane in (0, 1)]
            halves = (mixed[:lanes], mixed[lanes:])
            parts = [b.shuffle_vector(value[0], value[1], picks(half)) for half in halves]
        for part in range(count):
            at = b.bitcast(b.gep(address, [ir.Constant(I64, part * lanes)]), vector.as_pointer())
            if mask is None:
                b.store(parts[part], at).align = align
            else:
                self.intrinsic(
                    f"llvm.masked.store.{suffix(element, lanes)}.p0",
                    ir.VoidType(),
                    [parts[part], at, ir.Constant(I32, align), self._part(mask, part, count)],
                )

    def prefetch(self, address: ir.Value) -> None:
        """Ask for the cache line at an address, to be read soon and more than once."""
        read, locality, data = (ir.Constant(I32, number) for number in (0, 3, 1))
        place = self.builder.bitcast(address, ir.IntType(8).as_pointer())
        self.intrinsic("llvm.prefetch.p0", ir.VoidType(), [place, read, locality, data])

    def _load_unit(self, address: ir.Value, scalar: ir.Type, align: int, plane: int) -> ir.Value:
        at = self.builder.gep(address, [ir.Constant(I64, plane)])
        value = self.builder.load(at)
        value.align = align
        return value

    def _part(self, mask: ir.Value, part: int, count: int) -> ir.Value:
        """The mask of one half of an interleaved complex vector: every lane bit twice."""
        if count == 1:
            return mask
        lanes = mask.type.count
        twice = picks((part * lanes + lane) // 2 for lane in range(lanes))
        return self.builder.shuffle_vector(mask, mask, twice)


def picks(lanes: Iterable[int]) -> ir.Constant:
    """Lane numbers as `shuffle_vector` wants them."""
    numbers = list(lanes)
    return ir.Constant(ir.VectorType(I32, len(numbers)), numbers)
