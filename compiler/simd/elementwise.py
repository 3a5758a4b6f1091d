"""What formulas are made of: functions of tiles element by element, with NumPy's meaning.

Tiles of one operation have one element type; :func:`convert` is what the emitter puts in between.
Comparisons make tiles of ``b1``. Where NumPy propagates NaN, so do these: the least of a number and
NaN is NaN. Division by zero and overflow say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from .emitter import Emitter
from .registry import operation
from .shapes import common_shape, pack_units, units_of
from .tiles import Element, Tile, planes, scalar_bytes, scalar_type, suffix

Planes = list[Any]


def elementwise(
    lower: Callable[..., Planes],
    name: str,
    kinds: str,
    result: Callable[[str], str] = lambda element: element,
) -> Callable[..., Any]:
    """Declare a function of tiles from one of registers.

    ``lower(emitter, element, *planes)`` makes the result's planes; ``kinds`` are the letters of the
    element types that it is for, and ``result`` tells the result's type.
    """

    def declare(*tiles: Any) -> Any:
        if not all(isinstance(tile, Tile) for tile in tiles) or tiles[-1].element[0] not in kinds:
            return None
        if len({tile.element for tile in tiles[name == "where" :]}) > 1:
            return None
        shape = common_shape(*reversed(tiles))
        element = shape.element
        made = Tile(result(element), shape.rows, shape.columns, shape.lanes)

        def lowering(e: Emitter, values: Sequence[Any]) -> Any:
            arguments = [units_of(e, t, v, shape) for t, v in zip(tiles, values, strict=True)]
            return pack_units(
                e, made, [lower(e, element, *each) for each in zip(*arguments, strict=True)]
            )

        return made, lowering

    declare.__name__ = name
    declare.__doc__ = lower.__doc__
    return operation(declare)


# --- registers ------------------------------------------------------------------------------------


def like(value: ir.Value, number: float) -> ir.Value:
    """A constant of a register's type."""
    if isinstance(value.type, ir.VectorType):
        return ir.Constant(value.type, [number] * value.type.count)
    return ir.Constant(value.type, number)


def call(e: Emitter, name: str, element: str, *values: Any) -> ir.Value:
    """An LLVM intrinsic of registers, by the part of its name before the type."""
    kind = values[0].type
    lanes = kind.count if isinstance(kind, ir.VectorType) else 1
    letter = "i" if element[0] in "iub" else "f"
    known = f"{letter}{8 * scalar_bytes(element)}" if lanes == 1 else suffix(element, lanes)
    return e.intrinsic(f"llvm.{name}.{known}", kind, list(values))


def truth(e: Emitter, mask: Any) -> ir.Value:
    """A register of ``b1`` as LLVM's bits."""
    return e.builder.icmp_unsigned("!=", mask, like(mask, 0))


def masked(e: Emitter, bits: Any) -> ir.Value:
    """LLVM's bits as a register of ``b1``."""
    byte: ir.Type = ir.IntType(8)
    if isinstance(bits.type, ir.VectorType):
        byte = ir.VectorType(byte, bits.type.count)
    return e.builder.zext(bits, byte)


def is_nan(e: Emitter, x: Any) -> ir.Value:
    """Which lanes are NaN."""
    return e.builder.fcmp_unordered("uno", x, x)


def as_bits(e: Emitter, x: Any) -> ir.Value:
    """The bits of a register of floating-point numbers."""
    return e.builder.bitcast(x, integers_like(x.type))


def integers_like(kind: ir.Type) -> ir.Type:
    """The type of integers as wide as some floating-point numbers."""
    scalar = kind.element if isinstance(kind, ir.VectorType) else kind
    integer = ir.IntType(32 if isinstance(scalar, ir.FloatType) else 64)
    return ir.VectorType(integer, kind.count) if isinstance(kind, ir.VectorType) else integer


# --- arithmetic -----------------------------------------------------------------------------------


def _subtract(e: Emitter, element: str, x: Planes, y: Planes) -> Planes:
    """The difference of tiles."""
    minus = e.builder.fsub if element[0] in "fc" else e.builder.sub
    return [minus(p, q) for p, q in zip(x, y, strict=True)]


def _divide(e: Emitter, element: str, x: Planes, y: Planes) -> Planes:
    """The quotient of tiles; complex ones are scaled by the divisor's larger part (Smith 1962)."""
    b = e.builder
    if element[0] == "f":
        return [b.fdiv(x[0], y[0])]
    (xr, xi), (yr, yi) = x, y
    wide = b.fcmp_ordered(">=", call(e, "fabs", element, yr), call(e, "fabs", element, yi))
    large, small = b.select(wide, yr, yi), b.select(wide, yi, yr)
    ratio = b.fdiv(small, large)
    # Where both parts are zero their quotient is that of the numerators by zero.
    none = b.fcmp_ordered("==", large, like(large, 0.0))
    ratio = b.select(none, like(ratio, 0.0), ratio)
    scale = b.fadd(large, b.fmul(small, ratio))
    first, second = b.select(wide, xr, xi), b.select(wide, xi, xr)
    real = b.fdiv(b.fadd(first, b.fmul(second, ratio)), scale)
    forward = b.fsub(xi, b.fmul(xr, ratio))
    backward = b.fsub(b.fmul(xi, ratio), xr)
    return [real, b.fdiv(b.select(wide, forward, backward), scale)]


def _negative(e: Emitter, element: str, x: Planes) -> Planes:
    """The negative of a tile."""
    if element[0] in "fc":
        return [e.builder.fneg(p) for p in x]
    return [e.builder.neg(x[0])]


def _absolute(e: Emitter, element: str, x: Planes) -> Planes:
    """The magnitude of a tile's elements; real where they are complex."""
    b = e.builder
    if element[0] == "f":
        return [call(e, "fabs", element, x[0])]
    if element[0] == "i":
        return [b.select(b.icmp_signed("<", x[0], like(x[0], 0)), b.neg(x[0]), x[0])]
    if element[0] in "ub":
        return x
    part = f"f{scalar_bytes(element)}"
    real, imaginary = (call(e, "fabs", part, p) for p in x)
    over = b.fcmp_unordered(">", real, imaginary)
    large, small = b.select(over, real, imaginary), b.select(over, imaginary, real)
    none = b.fcmp_ordered("==", large, like(large, 0.0))
    infinite = b.fcmp_ordered("==", small, large)  # equal parts, infinities among them
    ratio = b.select(none, large, b.fdiv(small, large))
    ratio = b.select(b.and_(infinite, b.not_(none)), like(ratio, 1.0), ratio)
    root = call(e, "sqrt", part, e.fma(part, ratio, ratio, like(ratio, 1.0)))
    length = b.fmul(large, root)
    endless = like(large, float("inf"))
    either = b.or_(b.fcmp_ordered("==", real, endless), b.fcmp_ordered("==", imaginary, endless))
    return [b.select(either, endless, length)]


def _sqrt(e: Emitter, element: str, x: Planes) -> Planes:
    """The square root of a tile."""
    return [call(e, "sqrt", element, x[0])]


def _conjugate(e: Emitter, element: str, x: Planes) -> Planes:
    """The complex conjugate of a tile."""
    return [x[0], e.builder.fneg(x[1])] if planes(element) == 2 else x


def _extremum(sign: str) -> Callable[..., Planes]:
    def lower(e: Emitter, element: str, x: Planes, y: Planes) -> Planes:
        b, (p,), (q,) = e.builder, x, y
        if element[0] == "f":
            # Where x is NaN it is taken, where y is, the comparison fails: so is y.
            first = b.or_(b.fcmp_ordered(f"{sign}=", p, q), is_nan(e, p))
        elif element[0] == "i":
            first = b.icmp_signed(sign, p, q)
        else:
            first = b.icmp_unsigned(sign, p, q)
        return [b.select(first, p, q)]

    lower.__doc__ = f"The {'lesser' if sign == '<' else 'greater'} of tiles; NaN if one is."
    return lower


def _reciprocal(e: Emitter, element: str, x: Planes) -> Planes:
    """One by a tile."""
    one = [like(x[0], 1.0), like(x[0], 0.0)][: len(x)]
    return _divide(e, element, one, x)


def _power_zero(e: Emitter, element: str, x: Planes) -> Planes:
    """Ones in a tile's shape, even for NaN."""
    return [like(plane, number) for plane, number in zip(x, (1, 0), strict=False)]


subtract = elementwise(_subtract, "subtract", "iufc")
divide = elementwise(_divide, "divide", "fc")
reciprocal = elementwise(_reciprocal, "reciprocal", "fc")
power_zero = elementwise(_power_zero, "power_zero", "iufc")
negative = elementwise(_negative, "negative", "iufc")
absolute = elementwise(
    _absolute, "absolute", "iufcb", lambda t: f"f{int(t[1:]) // 2}" if t[0] == "c" else t
)
sqrt = elementwise(_sqrt, "sqrt", "f")
conjugate = elementwise(_conjugate, "conjugate", "iufcb")
minimum = elementwise(_extremum("<"), "minimum", "iufb")
maximum = elementwise(_extremum(">"), "maximum", "iufb")


# --- truth ----------------------------------------------------------------------------------------


def _comparison(sign: str) -> Callable[..., Planes]:
    def lower(e: Emitter, element: str, x: Planes, y: Planes) -> Planes:
        b = e.builder
        if element[0] == "f":
            compare = b.fcmp_unordered if sign == "!=" else b.fcmp_ordered
        elif element[0] == "c":
            same = [b.fcmp_ordered("==", p, q) for p, q in zip(x, y, strict=True)]
            both = b.and_(*same)
            return [masked(e, both if sign == "==" else b.not_(both))]
        else:
            compare = b.icmp_signed if element[0] == "i" else b.icmp_unsigned
        return [masked(e, compare(sign, x[0], y[0]))]

    lower.__doc__ = f"Where elements are {sign} each other."
    return lower


def _to_truth(element: str) -> str:
    return "b1"


for _name, _sign in (
    ("equal", "=="),
    ("not_equal", "!="),
    ("less", "<"),
    ("less_equal", "<="),
    ("greater", ">"),
    ("greater_equal", ">="),
):
    _kinds = "iufcb" if _sign in ("==", "!=") else "iufb"
    elementwise(_comparison(_sign), _name, _kinds, _to_truth)


def _logical_and(e: Emitter, element: str, x: Planes, y: Planes) -> Planes:
    """Where both hold."""
    return [masked(e, e.builder.and_(truth(e, x[0]), truth(e, y[0])))]


def _logical_or(e: Emitter, element: str, x: Planes, y: Planes) -> Planes:
    """Where one of two holds, or both."""
    return [masked(e, e.builder.or_(truth(e, x[0]), truth(e, y[0])))]


def _logical_not(e: Emitter, element: str, x: Planes) -> Planes:
    """Where something does not hold."""
    return [masked(e, e.builder.not_(truth(e, x[0])))]


def _where(e: Emitter, element: str, mask: Planes, x: Planes, y: Planes) -> Planes:
    """The second tile's elements where the first one holds, else the third one's."""
    bits = truth(e, mask[0])
    return [e.builder.select(bits, p, q) for p, q in zip(x, y, strict=True)]


logical_and = elementwise(_logical_and, "logical_and", "b")
logical_or = elementwise(_logical_or, "logical_or", "b")
logical_not = elementwise(_logical_not, "logical_not", "b")
where = elementwise(_where, "where", "iufcb")


# --- types and numbers ----------------------------------------------------------------------------


def converted(e: Emitter, old: str, new: str, x: Planes) -> Planes:
    """A register's elements as another type, as ``astype`` makes them."""
    b = e.builder
    if old == new:
        return x
    if new == "b1":
        if old[0] in "fc":
            bits = [b.fcmp_unordered("!=", p, like(p, 0.0)) for p in x]
            return [masked(e, b.or_(*bits) if len(bits) == 2 else bits[0])]
        return [masked(e, truth(e, x[0]))]
    if new[0] == "c":
        part = f"f{scalar_bytes(new)}"
        each = [converted(e, _part(old), part, [p])[0] for p in x]
        return each if len(each) == 2 else [each[0], like(each[0], 0.0)]
    (p,) = x[:1]
    old = _part(old)
    kind = scalar_type(new)
    if isinstance(p.type, ir.VectorType):
        kind = ir.VectorType(kind, p.type.count)
    size = scalar_bytes(new) - scalar_bytes(old)
    if old[0] == "f" and new[0] == "f":
        made = b.fpext(p, kind) if size > 0 else b.fptrunc(p, kind) if size < 0 else p
    elif old[0] == "f":
        made = b.fptoui(p, kind) if new[0] == "u" else b.fptosi(p, kind)
    elif new[0] == "f":
        made = b.sitofp(p, kind) if old[0] == "i" else b.uitofp(p, kind)
    elif size > 0:
        made = b.sext(p, kind) if old[0] == "i" else b.zext(p, kind)
    else:
        made = b.trunc(p, kind) if size < 0 else p
    return [made]


def _part(element: str) -> str:
    """The type of an element's real part."""
    return f"f{scalar_bytes(element)}" if element[0] == "c" else element


@operation
def convert(tile: Any, element: Any) -> Any:
    """The same values as another element type, as ``astype`` makes them."""
    if not (isinstance(tile, Tile) and isinstance(element, Element)):
        return None
    kind = Tile(element.element, tile.rows, tile.columns, tile.lanes)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        units = units_of(e, tile, values[0], tile)
        new = [converted(e, tile.element, kind.element, unit) for unit in units]
        return pack_units(e, kind, new)

    return kind, lowering


@operation
def whole(bits: Any, element: Any) -> Any:
    """An integer of the kernel's arguments as a tile of one element."""
    if not isinstance(element, Element):
        return None
    kind = Tile(element.element, 1, 1, 1)
    return kind, lambda e, v: e.pack(kind, converted(e, "i8", kind.element, [v[0]]))


@operation
def real(bits: Any, element: Any) -> Any:
    """A double of the kernel's arguments as a tile of one element."""
    if not isinstance(element, Element):
        return None
    kind = Tile(element.element, 1, 1, 1)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        number = e.builder.bitcast(values[0], ir.DoubleType())
        return e.pack(kind, converted(e, "f8", kind.element, [number]))

    return kind, lowering


@operation
def pair(bits: Any, more: Any, element: Any) -> Any:
    """Two doubles of the kernel's arguments as a tile of one complex element."""
    if not isinstance(element, Element):
        return None
    kind = Tile(element.element, 1, 1, 1)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        parts = [e.builder.bitcast(value, ir.DoubleType()) for value in values[:2]]
        return e.pack(kind, converted(e, "c16", kind.element, parts))

    return kind, lowering


# --- sums of rows ---------------------------------------------------------------------------------


@operation
def collect(total: Any, tile: Any, *part: Any) -> Any:
    """``total`` plus the sum of a tile's rows; with counts, of what is inside of them."""
    if not (isinstance(total, Tile) and isinstance(tile, Tile)):
        return None
    return _collect(total, (tile,), part)


@operation
def collect_products(total: Any, x: Any, y: Any, *part: Any) -> Any:
    """The same of the product of two tiles."""
    if not all(isinstance(tile, Tile) for tile in (total, x, y)):
        return None
    return _collect(total, (x, y), part)


def _collect(total: Tile, tiles: tuple[Any, ...], part: tuple[Any, ...]) -> Any:
    shape = common_shape(*tiles)
    element = total.element

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        stretched = [
            units_of(e, tile, value, shape) for tile, value in zip(tiles, values[1:], strict=False)
        ]
        sums = units_of(e, total, values[0], total)
        inside = values[1 + len(tiles) :]
        rows = [_row_bits(e, shape, row, inside) for row in range(shape.rows)]
        made = []
        for vector, old in enumerate(sums):
            lanes = None
            if inside:
                lanes = e.lanes_below(inside[1], vector * total.lanes, total.lanes)
            chains: list[list[Any] | None] = [None, None]  # two, so that few additions wait
            for row in range(shape.rows):
                first, *second = [units[row * shape.vectors + vector] for units in stretched]
                if lanes is not None:
                    bits = e.builder.and_(rows[row], lanes)
                    zeros = [e.zero(plane.type) for plane in first]
                    first = _chosen(e, bits, first, zeros)
                    second = [_chosen(e, bits, other, zeros) for other in second]
                chain = chains[row % 2]
                if not second:
                    new = first if chain is None else e.add(element, chain, first)
                elif chain is None:
                    new = e.multiply(element, first, *second)
                else:
                    new = e.multiply_add(element, chain, first, *second)
                chains[row % 2] = new
            both = [chain for chain in chains if chain is not None]
            value = both[0] if len(both) == 1 else e.add(element, *both)
            made.append(e.add(element, old, value))
        return pack_units(e, total, made)

    return total, lowering


def _row_bits(e: Emitter, shape: Tile, row: int, inside: Sequence[Any]) -> Any:
    """Whether a row is inside, in every lane."""
    if not inside:
        return None
    bit = e.builder.icmp_signed("<", e.integer(row), inside[0])
    return e.splat(bit, shape.lanes) if shape.lanes > 1 else bit


def _chosen(e: Emitter, bits: Any, x: Planes, y: Planes) -> Planes:
    return [e.builder.select(bits, p, q) for p, q in zip(x, y, strict=True)]
