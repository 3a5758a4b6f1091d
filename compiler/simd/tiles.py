"""Element types, and the types that Numba sees: `Element`, `Pointer`, `Rows` and `Tile`.

Element types are written as in the array interface (``f4``, ``c16``, ``i2``, ``b1``). A complex
tile holds its real and imaginary parts in separate vectors (two *planes*).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default

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


def suffix(element: str, lanes: int) -> str:
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


class Rows(types.Type):  # type: ignore[misc]
    """The addresses of ``count`` rows of elements, wherever each of them begins."""

    def __init__(self, element: str, count: int) -> None:
        self.element, self.count = element, count
        super().__init__(name=f"Rows({element}[{count}])")


@register_default(Element)
class _ElementModel(models.OpaqueModel):  # type: ignore[misc]
    pass


@register_default(Pointer)
class _PointerModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Pointer) -> None:
        super().__init__(dmm, fe_type, scalar_type(fe_type.element).as_pointer())


@register_default(Rows)
class _RowsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Rows) -> None:
        pointer = scalar_type(fe_type.element).as_pointer()
        super().__init__(dmm, fe_type, ir.ArrayType(pointer, fe_type.count))


@register_default(Tile)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Tile) -> None:
        count = fe_type.rows * fe_type.vectors * planes(fe_type.element)
        super().__init__(dmm, fe_type, ir.ArrayType(fe_type.unit, count))


class ElementName:
    """The object that generated source names as ``f4``; Numba types it as an :class:`Element`."""

    def __init__(self, element: str) -> None:
        self.element = element
