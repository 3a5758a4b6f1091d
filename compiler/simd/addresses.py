"""Operations on addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .emitter import Emitter
from .registry import operation
from .tiles import Element, Pointer, scalar_type


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
