"""How an operation of generated source is declared, and the registries that tell Numba of it.

Operations are known to Numba through these two registries and through nothing else: using them
imports none of Numba's array support.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import imputils, types
from numba.core.typing import templates

from .emitter import Emitter
from .tiles import Element

TYPING = templates.Registry()
LOWERING = imputils.Registry("einsumc.simd")
OPERATIONS: dict[str, Callable[..., Any]] = {}


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
        value = lowering(Emitter(builder, fused=context.fused), args)
        return context.get_dummy_value() if value is None else value

    LOWERING.lower(declare, types.VarArg(types.Any))(lower)
    OPERATIONS[declare.__name__] = declare
    return declare


def literals(*values: Any) -> list[int] | None:
    """The Python integers behind literal types; None when one is not a literal yet."""
    if all(isinstance(value, types.IntegerLiteral) for value in values):
        return [int(value.literal_value) for value in values]
    return None


@LOWERING.lower_constant(Element)
def _element_constant(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.get_dummy_value()
