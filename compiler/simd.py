"""Register tiles: the small set of SIMD operations that generated kernels are written in.

A *tile* is a block of ``rows x columns`` values held in vector registers. Kernels load tiles from
memory, combine them with broadcasting (a side of length 1 stretches), and store them::

    x = load_rows(a, offset, row_stride, 6, 16, 8)      # 6 rows of 16 values, vectors of 8 lanes
    acc = multiply_add(acc, x, y)                       # acc + x * y

Sizes are literals, so every operation unrolls into straight vector code when it is lowered. The
operations are known to Numba through the two registries at the bottom of this file and through
nothing else: using them imports none of Numba's array support.

Element types are written as in the array interface (``f4``, ``c16``, ``i2``, ``b1``). A complex
tile holds its real and imaginary parts in separate vectors (two *planes*). For ``b1`` a product is
``and`` and a sum is ``or``, as in NumPy. Offsets and strides count elements, not bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba.core import imputils, types
from numba.core.cgutils import for_range
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.core.typing import templates

TYPING = templates.Registry()
LOWERING = imputils.Registry("einsumc.simd")

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


# --- element types -----------------------------------------------------------------------------


def scalar_type(element: str) -> ir.Type:
    """The LLVM type of one plane of an element: ``c8`` is made of two floats."""
    kind, size = element[0], int(element[1:])
    if kind in "iub":
        return ir.IntType(8 * size)
    if kind == "c":
        size //= 2
    return {2: ir.HalfType(), 4: ir.FloatType(), 8: ir.DoubleType()}[size]


def scalar_bytes(element: str) -> int:
    """Bytes of one plane of an element."""
    return int(element[1:]) // planes(element)


def planes(element: str) -> int:
    """2 for complex elements (real and imaginary part), else 1."""
    return 2 if element[0] == "c" else 1


def _suffix(element: str, lanes: int) -> str:
    """The part of an LLVM intrinsic's name that says the vector type: ``v8f32``."""
    letter = "i" if element[0] in "iub" else "f"
    return f"v{lanes}{letter}{8 * scalar_bytes(element)}"


# --- types that Numba sees -----------------------------------------------------------------------


class Element(types.Type):  # type: ignore[misc]
    """The compile-time name of an element type, as in ``zeros(f4, 6, 16, 8)``."""

    def __init__(self, element: str) -> None:
        self.element = element
        super().__init__(name=f"Element({element})")


class Pointer(types.Type):  # type: ignore[misc]
    """The address of elements in memory."""

    def __init__(self, element: str) -> None:
        self.element = element
        super().__init__(name=f"Pointer({element})")


class Tile(types.Type):  # type: ignore[misc]
    """``rows x columns`` values in registers; vectors of ``lanes``, scalars when columns is 1."""

    def __init__(self, element: str, rows: int, columns: int, lanes: int) -> None:
        self.element, self.rows, self.columns = element, rows, columns
        self.lanes = lanes if columns > 1 else 1
        super().__init__(name=f"Tile({element}[{rows},{columns}] by {self.lanes})")

    @property
    def vectors(self) -> int:
        """Vectors in one row of one plane."""
        return self.columns // self.lanes

    @property
    def unit(self) -> ir.Type:
        """The LLVM type that one register holds."""
        scalar = scalar_type(self.element)
        return scalar if self.lanes == 1 else ir.VectorType(scalar, self.lanes)


@register_default(Element)
class _ElementModel(models.OpaqueModel):  # type: ignore[misc]
    pass


@register_default(Pointer)
class _PointerModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Pointer) -> None:
        super().__init__(dmm, fe_type, scalar_type(fe_type.element).as_pointer())


@register_default(Tile)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Tile) -> None:
        count = fe_type.rows * fe_type.vectors * planes(fe_type.element)
        super().__init__(dmm, fe_type, ir.ArrayType(fe_type.unit, count))


class ElementName:
    """The object that generated source names as ``f4``; Numba types it as an :class:`Element`."""

    def __init__(self, element: str) -> None:
        self.element = element


# --- how an operation is declared ------------------------------------------------------------------

Lowering = Callable[["Emitter", Sequence[Any]], Any]
OPERATIONS: dict[str, Callable[..., Any]] = {}


class Emitter:
    """An LLVM builder with the few helpers that the operations below share."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

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
        picks = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), picks)

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
        """``x * y + z`` rounded once."""
        lanes = x.type.count if isinstance(x.type, ir.VectorType) else 1
        suffix = f"f{8 * scalar_bytes(element)}" if lanes == 1 else _suffix(element, lanes)
        return self.intrinsic(f"llvm.fma.{suffix}", x.type, [x, y, z])

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
        columns = ir.Constant(ir.VectorType(I64, lanes), list(range(first, first + lanes)))
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
                    f"llvm.masked.load.{_suffix(element, lanes)}.p0",
                    vector,
                    [at, ir.Constant(I32, align), self._part(mask, part, count), self.zero(vector)],
                )
            parts.append(value)
        if count == 1:
            return parts
        return [b.shuffle_vector(parts[0], parts[1], _picks(range(p, 2 * lanes, 2))) for p in (0, 1)]

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
            parts = [b.shuffle_vector(value[0], value[1], _picks(half)) for half in halves]
        for part in range(count):
            at = b.bitcast(b.gep(address, [ir.Constant(I64, part * lanes)]), vector.as_pointer())
            if mask is None:
                b.store(parts[part], at).align = align
            else:
                self.intrinsic(
                    f"llvm.masked.store.{_suffix(element, lanes)}.p0",
                    ir.VoidType(),
                    [parts[part], at, ir.Constant(I32, align), self._part(mask, part, count)],
                )

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
        picks = [(part * lanes + lane) // 2 for lane in range(lanes)]
        return self.builder.shuffle_vector(mask, mask, _picks(picks))


def _picks(lanes: Any) -> ir.Constant:
    lanes = list(lanes)
    return ir.Constant(ir.VectorType(I32, len(lanes)), lanes)


def operation(declare: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of Numba types an operation of generated source.

    ``declare(*types)`` returns ``(result type, lowering)``, or None for types that do not fit;
    ``lowering(emitter, values)`` writes the LLVM code and returns its value.
    """

    def generic(_: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        declared = declare(*args)
        return None if declared is None else declared[0](*args)

    template = type(
        declare.__name__,
        (templates.AbstractTemplate,),
        {"key": declare, "generic": generic, "prefer_literal": True},
    )
    TYPING.register_global(declare, types.Function(template))

    def lower(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[Any]) -> Any:
        _, lowering = declare(*signature.args)
        value = lowering(Emitter(builder), args)
        return context.get_dummy_value() if value is None else value

    LOWERING.lower(declare, types.VarArg(types.Any))(lower)
    OPERATIONS[declare.__name__] = declare
    return declare


def _literals(*values: Any) -> list[int] | None:
    """The Python integers behind literal types; None when one is not a literal yet."""
    if all(isinstance(value, types.IntegerLiteral) for value in values):
        return [int(value.literal_value) for value in values]
    return None


@LOWERING.lower_constant(Element)
def _element_constant(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.get_dummy_value()


# --- operations on addresses -----------------------------------------------------------------------


@operation
def operand(args: Any, slot: Any, element: Any) -> Any:
    """The pointer that the caller put into ``args[slot]``."""
    if not isinstance(element, Element):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        address = e.builder.load(e.builder.gep(values[0], [values[1]]))
        return e.builder.inttoptr(address, scalar_type(element.element).as_pointer())

    return Pointer(element.element), lowering


@operation
def buffer(scratch: Any, byte_offset: Any, element: Any) -> Any:
    """A part of the thread's scratch memory, as a pointer."""
    if not isinstance(element, Element):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        address = e.builder.add(values[0], values[1])
        return e.builder.inttoptr(address, scalar_type(element.element).as_pointer())

    return Pointer(element.element), lowering


@operation
def advance(pointer: Any, count: Any) -> Any:
    """The pointer ``count`` elements further on."""
    if not isinstance(pointer, Pointer):
        return None
    return pointer, lambda e, v: e.address(pointer.element, v[0], v[1])


@operation
def peek(table: Any, position: Any) -> Any:
    """One entry of a table of offsets."""
    if not isinstance(table, Pointer) or table.element != "i8":
        return None
    return types.int64, lambda e, v: e.builder.load(e.builder.gep(v[0], [v[1]]))


@operation
def poke(table: Any, position: Any, value: Any) -> Any:
    """Set one entry of a table of offsets."""
    if not isinstance(table, Pointer) or table.element != "i8":
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        e.builder.store(values[2], e.builder.gep(values[0], [values[1]]))

    return types.void, lowering


@operation
def least(*values: Any) -> Any:
    """The least of several integers: what ``min`` stands for in generated source."""

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        smallest = values[0]
        for value in values[1:]:
            below = e.builder.icmp_signed("<", value, smallest)
            smallest = e.builder.select(below, value, smallest)
        return smallest

    return types.int64, lowering


# --- loops -------------------------------------------------------------------------------------------
#
# ``range`` in generated source is ours: Numba's takes steps of either sign, counts the rounds with a
# division, and brings ten times the code, which is most of what a kernel's compilation used to cost.


class Positions(types.SimpleIterableType):  # type: ignore[misc]
    """What ``range(start, stop, step)`` makes: the address of its three numbers."""

    def __init__(self) -> None:
        super().__init__("Positions", PositionsIterator())


class PositionsIterator(types.SimpleIteratorType):  # type: ignore[misc]
    """The same, on its way."""

    def __init__(self) -> None:
        super().__init__("PositionsIterator", types.int64)


@register_default(Positions)
@register_default(PositionsIterator)
class _PositionsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, I64.as_pointer())


@operation
def positions(start: Any, stop: Any, *step: Any) -> Any:
    """The integers from ``start`` up to ``stop`` in steps that are positive: ``range``."""

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        numbers = [*values, *([] if step else [e.integer(1)])]
        with e.builder.goto_entry_block():
            state = e.builder.alloca(I64, size=e.integer(3))
        for i, number in enumerate(numbers):
            e.builder.store(number, e.builder.gep(state, [e.integer(i)]))
        return state

    return Positions(), lowering


@LOWERING.lower("getiter", Positions)
def _begin(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return args[0]


@LOWERING.lower("iternext", PositionsIterator)
@imputils.iternext_impl(imputils.RefType.UNTRACKED)
def _next(context: Any, builder: Any, signature: Any, args: Any, result: Any) -> None:
    places = [builder.gep(args[0], [ir.Constant(I64, i)]) for i in range(3)]
    position, stop, step = (builder.load(place) for place in places)
    builder.store(builder.add(position, step), places[0])
    result.set_valid(builder.icmp_signed("<", position, stop))
    result.yield_(position)


# --- loads -------------------------------------------------------------------------------------------
#
# The step from one row (or lane) to the next is either a stride or a pointer into a table of
# offsets. Every load and store takes two optional counts at its end, ``rows`` and ``columns`` that
# lie inside the tensor: nothing outside them is touched, and what is not loaded is zero. A partial
# tile goes through the stack, row by row: edges are rare, and the code for them stays small.


@operation
def load_rows(p: Any, offset: Any, step: Any, rows: Any, columns: Any, lanes: Any, *part: Any) -> Any:
    """A tile whose rows are runs of neighbouring elements, ``step`` apart."""
    kind = _tile(p, rows, columns, lanes)
    if kind is None:
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        return e.pack(kind, _load_runs(e, kind, values[:2], (step, values[2]), values[6:]))

    return kind, lowering


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
        runs = _load_runs(e, turned, values[:2], (step, values[2]), values[:5:-1])
        return e.pack(kind, _transposed(e, turned, runs))

    return kind, lowering


@operation
def load_splat(p: Any, offset: Any, step: Any, rows: Any, *part: Any) -> Any:
    """One value a row, a column of the tile: it stretches over all columns."""
    sizes = _literals(rows)
    if sizes is None or not isinstance(p, Pointer):
        return None
    kind = Tile(p.element, sizes[0], 1, 1)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        if part and kind.rows > 1:
            runs = _load_runs(e, kind, values[:2], (step, values[2]), [values[4], e.integer(1)])
            return e.pack(kind, runs)
        return e.pack(kind, _load_runs(e, kind, values[:2], (step, values[2]), ()))

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
    """A tile of elements that lie anywhere, gathered one by one."""
    kind = _tile(p, rows, columns, lanes)
    if kind is None:
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        spill = _Spill(e, kind)
        if part:
            spill.clear()
        for at, places in _each(e, kind, values, (row_step, lane_step), spill, values[7:]):
            for value, place in zip(e.load(kind.element, at, 1, None), places, strict=True):
                e.builder.store(value, place)
        return e.pack(kind, spill.registers())

    return kind, lowering


# --- stores ------------------------------------------------------------------------------------------


@operation
def store_rows(p: Any, offset: Any, step: Any, tile: Any, *part: Any) -> Any:
    """Store every row of a tile as a run of neighbouring elements, ``step`` apart."""
    if not (isinstance(p, Pointer) and isinstance(tile, Tile)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        registers = e.unpack(tile, values[3])
        _store_runs(e, tile, registers, values[:2], (step, values[2]), values[4:])

    return types.void, lowering


@operation
def store_columns(p: Any, offset: Any, step: Any, tile: Any, *part: Any) -> Any:
    """Store every column of a tile as a run of neighbouring elements: transposed, then stored."""
    if not (isinstance(p, Pointer) and isinstance(tile, Tile)):
        return None
    turned = Tile(tile.element, tile.columns, tile.rows, tile.lanes)

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        registers = _transposed(e, tile, e.unpack(tile, values[3]))
        _store_runs(e, turned, registers, values[:2], (step, values[2]), values[:3:-1])

    return types.void, lowering


@operation
def store_any(p: Any, offset: Any, row_step: Any, lane_step: Any, tile: Any, *part: Any) -> Any:
    """Store a tile's elements anywhere, one by one."""
    if not (isinstance(p, Pointer) and isinstance(tile, Tile)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        spill = _Spill(e, tile)
        spill.fill(e.unpack(tile, values[4]))
        for at, places in _each(e, tile, values, (row_step, lane_step), spill, values[5:]):
            e.store(tile.element, at, [e.builder.load(place) for place in places], 1, None)

    return types.void, lowering


# --- how loads and stores are made -------------------------------------------------------------------


def _tile(pointer: Any, rows: Any, columns: Any, lanes: Any) -> Tile | None:
    sizes = _literals(rows, columns, lanes)
    if sizes is None or not isinstance(pointer, Pointer):
        return None
    return Tile(pointer.element, *sizes)


def _step(e: Emitter, step: tuple[Any, Any], index: Any) -> Any:
    """The offset that ``index`` steps make: by a stride, or looked up in a table."""
    kind, value = step
    if isinstance(index, int):
        index = e.integer(index)
    if isinstance(kind, Pointer):
        return e.builder.load(e.builder.gep(value, [index]))
    return e.builder.mul(value, index)


class _Spill:
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


def _load_runs(
    e: Emitter, kind: Tile, base: Sequence[Any], step: tuple[Any, Any], part: Sequence[Any]
) -> list[Any]:
    """A tile's registers, from runs of neighbouring elements in memory."""
    if part:
        spill = _Spill(e, kind)
        spill.clear()
        for at, mask, places in _inside_runs(e, kind, base, step, spill, part):
            for value, place in zip(e.load(kind.element, at, kind.lanes, mask), places, strict=True):
                e.builder.store(value, place)
        return spill.registers()
    units = [
        e.load(kind.element, at, kind.lanes, None) for at in _whole_runs(e, kind, base, step)
    ]
    return [unit[plane] for plane in range(planes(kind.element)) for unit in units]


def _store_runs(
    e: Emitter,
    kind: Tile,
    registers: Sequence[Any],
    base: Sequence[Any],
    step: tuple[Any, Any],
    part: Sequence[Any],
) -> None:
    """The inverse of :func:`_load_runs`."""
    if part:
        spill = _Spill(e, kind)
        spill.fill(registers)
        for at, mask, places in _inside_runs(e, kind, base, step, spill, part):
            value = [e.builder.load(place) for place in places]
            e.store(kind.element, at, value, kind.lanes, mask)
        return
    count = kind.rows * kind.vectors
    for i, at in enumerate(_whole_runs(e, kind, base, step)):
        e.store(kind.element, at, list(registers[i::count]), kind.lanes, None)


def _whole_runs(
    e: Emitter, kind: Tile, base: Sequence[Any], step: tuple[Any, Any]
) -> Iterator[Any]:
    """The address of every register's elements, row by row."""
    for row in range(kind.rows):
        begin = e.builder.add(base[1], _step(e, step, row))
        for vector in range(kind.vectors):
            at = e.builder.add(begin, e.integer(vector * kind.lanes))
            yield e.address(kind.element, base[0], at)


def _inside_runs(
    e: Emitter,
    kind: Tile,
    base: Sequence[Any],
    step: tuple[Any, Any],
    spill: _Spill,
    part: Sequence[Any],
) -> Iterator[tuple[Any, Any, list[Any]]]:
    """A loop over the rows inside: for every vector its address, its mask and its spill places."""
    rows, columns = part
    with for_range(e.builder, rows, intp=I64) as loop:
        begin = e.builder.add(base[1], _step(e, step, loop.index))
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


def _each(
    e: Emitter,
    kind: Tile,
    values: Sequence[Any],
    steps: tuple[Any, Any],
    spill: _Spill,
    part: Sequence[Any],
) -> Iterator[tuple[Any, list[Any]]]:
    """A loop over the elements inside: each one's address and its places in the spill."""
    rows, columns = part or (e.integer(kind.rows), e.integer(kind.columns))
    with for_range(e.builder, rows, intp=I64) as row:
        begin = e.builder.add(values[1], _step(e, (steps[0], values[2]), row.index))
        with for_range(e.builder, columns, intp=I64) as lane:
            at = e.builder.add(begin, _step(e, (steps[1], values[3]), lane.index))
            places = [
                spill.element(plane, row.index, lane.index) for plane in range(planes(kind.element))
            ]
            yield e.address(kind.element, values[0], at), places


def _transposed(e: Emitter, kind: Tile, registers: Sequence[Any]) -> list[Any]:
    """The registers of the transpose of a tile, square block by square block."""
    size, across = kind.lanes, kind.vectors
    turned: dict[tuple[int, int, int], Any] = {}
    for plane in range(planes(kind.element)):
        base = plane * kind.rows * across
        for row in range(0, kind.rows, size):
            for vector in range(across):
                block = [registers[base + (row + i) * across + vector] for i in range(size)]
                for i, register in enumerate(transpose_registers(e.builder, block)):
                    turned[plane, vector * size + i, row // size] = register
    return [turned[key] for key in sorted(turned)]


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
            rows[i] = builder.shuffle_vector(x, y, _picks(low))
            rows[i + step] = builder.shuffle_vector(x, y, _picks(high))
        step *= 2
    return rows


# --- arithmetic --------------------------------------------------------------------------------------


@operation
def zeros(element: Any, rows: Any, columns: Any, lanes: Any) -> Any:
    """A tile of zeros."""
    sizes = _literals(rows, columns, lanes)
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
            pairs = zip(
                _units(e, x, values[0], shape), _units(e, y, values[1], shape), strict=True
            )
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
            [e.builder.shuffle_vector(p, p, _picks(range(h, h + lanes))) for p in unit]
            for h in (0, lanes)
        ]
        unit = e.add(kind.element, halves[0], halves[1])
    if kind.lanes > 1:
        unit = [e.builder.extract_element(p, ir.Constant(I32, 0)) for p in unit]
    return unit


@operation
def stretch(tile: Any, rows: Any, columns: Any, lanes: Any) -> Any:
    """The same tile with sides of length 1 stretched to ``rows x columns``."""
    sizes = _literals(rows, columns, lanes)
    if sizes is None or not isinstance(tile, Tile):
        return None
    kind = Tile(tile.element, *sizes)
    return kind, lambda e, v: _pack_units(e, kind, _units(e, tile, v[0], kind))


# --- offsets of composite groups ---------------------------------------------------------------------


@operation
def tabulate(args: Any, group: Any, slot: Any, start: Any, stop: Any, table: Any) -> Any:
    """Fill a table with the offsets of a composite group's positions ``start .. stop``.

    ``args[group]`` holds the place in ``args`` of the group's description: its rank, its extents,
    and for every tensor (``slot``) its strides. The last index runs fastest.
    """
    if not isinstance(table, Pointer):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        args_, group_, slot_, start_, stop_, table_ = values
        b = e.builder
        one = ir.Constant(I64, 1)
        rank = b.load(b.gep(args_, [group_]))
        extents = b.add(group_, one)
        strides = b.add(extents, b.mul(rank, b.add(slot_, one)))
        with for_range(b, b.sub(stop_, start_), intp=I64) as positions:
            # The digits of the position, least significant index first.
            rest = _variable(e, b.add(start_, positions.index))
            offset = _variable(e, ir.Constant(I64, 0))
            with for_range(b, rank, intp=I64) as digits:
                member = b.sub(b.sub(rank, one), digits.index)
                extent = b.load(b.gep(args_, [b.add(extents, member)]))
                stride = b.load(b.gep(args_, [b.add(strides, member)]))
                value = b.load(rest)
                digit = b.urem(value, extent)
                b.store(b.udiv(value, extent), rest)
                b.store(b.add(b.load(offset), b.mul(digit, stride)), offset)
            b.store(b.load(offset), b.gep(table_, [positions.index]))

    return types.void, lowering


def _variable(e: Emitter, value: Any) -> Any:
    """A variable on the stack with a first value."""
    with e.builder.goto_entry_block():
        place = e.builder.alloca(value.type)
    e.builder.store(value, place)
    return place
