"""Gradient norms in a manifest: what to precompile, on one line.

    [[kernel]]
    gradnorms = "norms(Linear(f4[n,t,10], f4[n,t,64], bias=False))"

    [[kernel]]
    gradnorms = "clipped_sums(fc=Linear(f4[n,10], f4[n,64]), norm=LayerNorm(f4[n,64], f4[n,64]))"

It is written like the call, with operands as signatures have them (`runtime/signatures.py`) in
place of arrays: a function of `einsumc.gradnorms`, and its layer, or several by name. Options of
layers are numbers, True, False or None, and tuples of them. `max_norm` is left out, since any will
do; `weights=f4[n]` may be given where the call has weights. `dot_products(layer, layer)` is for the
products with another batch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import gradnorms
from ..compiler.errors import EinsumError
from ..runtime.signatures import OperandSignature, Signature, parse_signature
from ..runtime.uses import NotWritable
from .layer import Layer
from .steps import FUNCTIONS, Form, program

if TYPE_CHECKING:
    from ..runtime.traced import CompiledFunction

__all__ = ["read_entry", "write_entry"]


def read_entry(text: str) -> tuple[CompiledFunction, Signature]:
    """The compiled function of an entry, and the signature of its operands.

    Raises:
        EinsumError: (a ValueError) what is wrong, with a caret.

    >>> function, signature = read_entry("norms(Linear(f4[n,10], f4[n,64]))")
    >>> print(signature)
    f4[n,10], f4[n,64]
    """
    return _Entry(text).read()


def write_entry(
    what: Callable[..., Any], forms: Sequence[Form], further: Sequence[str], signature: Signature
) -> str:
    """The text of the entry that `read_entry` makes the same of.

    Args:
        what: the body of one of `FUNCTIONS`.
        forms: of its groups of layers.
        further: its operands after those of the layers, by name.
        signature: of all operands.

    Raises:
        NotWritable: there is no such text.

    >>> from .steps import FUNCTIONS
    >>> _, signature = read_entry(text := "norms(Linear(outputs=f4[n,10], inputs=f4[n,64]))")
    >>> form = (("layer", gradnorms.Linear, (("bias", True),), ("outputs", "inputs")),)
    >>> write_entry(FUNCTIONS["norms"].body, [form], (), signature) == text
    True
    """
    names = [name for name, each in FUNCTIONS.items() if what in (each.body, each.another)]
    operands = iter(signature.operands)
    groups = [[_layer_text(layer, operands) for layer in form] for form in forms]
    parts = [
        text if name == "layer" else f"{name}={text}" for group in groups for name, text in group
    ]
    if not names or any(len(group) > 1 for group in groups[1:]):
        raise NotWritable("there is no entry for the products of several layers with others")
    rest = zip(further, operands, strict=True)
    parts += [f"{n}={each}" for n, each in rest if n not in FUNCTIONS[names[0]].numbers]
    return f"{names[0]}({', '.join(parts)})"


def _layer_text(
    layer: tuple[str, type[Layer], tuple[tuple[str, object], ...], tuple[str, ...]],
    operands: Iterator[OperandSignature],
) -> tuple[str, str]:
    """The name of a layer, and its call with operands in place of arrays."""
    name, kind, options, arrays = layer
    defaults = {field.name: field.default for field in fields(kind)}
    parts = [f"{array}={next(operands)}" for array in arrays]
    parts += [f"{option}={value!r}" for option, value in options if value != defaults[option]]
    return name, f"{kind.__name__}({', '.join(parts)})"


class _Entry:
    """The text of one entry."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self) -> tuple[CompiledFunction, Signature]:
        try:
            call = ast.parse(self.text.strip(), mode="eval").body
        except SyntaxError as error:
            raise EinsumError(f"it cannot be read: {error.msg}", self.text) from None
        self.text = self.text.strip()
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise self.wrong(call, "expected a call such as norms(Linear(f4[n,10], f4[n,64]))")
        name = call.func.id
        if name not in FUNCTIONS:
            known = ", ".join(FUNCTIONS)
            raise self.wrong(call.func, f"there is no function {name!r}: expected {known}")
        named = {each.arg or "": each.value for each in call.keywords}
        further: dict[str, OperandSignature] = {}
        if "weights" in named and isinstance(named["weights"], ast.Subscript):
            further["weights"] = self.operand(named.pop("weights"))
        if call.args and named:
            raise self.wrong(call, "expected one layer, or several by their names")
        groups = [{"layer": each} for each in call.args] if call.args else [named]
        if len(groups) > 1 + (name == "dot_products") or not groups[0]:
            raise self.wrong(call, "expected one layer, or several by their names")
        operands: list[OperandSignature] = []
        forms: list[Form] = []
        for group in groups:
            form, own = self.layers(group)
            forms.append(form)
            operands += own
        floats = [each.dtype for each in operands if each.dtype.kind in "fc"]
        if not floats:
            raise self.wrong(call, "no operand has a floating dtype")
        for number in FUNCTIONS[name].numbers:
            further = {number: OperandSignature(np.result_type(*floats), ()), **further}
        operands += further.values()
        what = FUNCTIONS[name].another if len(groups) > 1 else FUNCTIONS[name].body
        assert what is not None
        compiled: Any = program(what, tuple(forms), tuple(further))
        return compiled, Signature(tuple(operands))

    def layers(self, group: dict[str, ast.expr]) -> tuple[Form, list[OperandSignature]]:
        """The form of a group of layers, and their operands."""
        form, operands = [], []
        for name, each in group.items():
            kind, given = self.layer(each)
            arrays = {k: v for k, v in given.items() if isinstance(v, OperandSignature)}
            names = [field.name for field in fields(kind)]
            defaults = {field.name: field.default for field in fields(kind)}
            options = tuple(
                (field, given.get(field, defaults[field])) for field in names if field not in arrays
            )
            form.append((name, kind, options, tuple(f for f in names if f in arrays)))
            operands += [arrays[field] for field in names if field in arrays]
        return tuple(form), operands

    def layer(self, node: ast.expr) -> tuple[type[Layer], dict[str, Any]]:
        """A layer's kind, and what is said of its fields."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise self.wrong(node, "expected a layer such as Linear(f4[n,10], f4[n,64])")
        kind = getattr(gradnorms, node.func.id, None)
        if not (isinstance(kind, type) and issubclass(kind, Layer)) or kind is Layer:
            raise self.wrong(node.func, f"there is no layer {node.func.id!r}")
        names = [field.name for field in fields(kind)]
        given: dict[str, Any] = {}
        if len(node.args) > len(names):
            raise self.wrong(node, f"{kind.__name__} has {len(names)} fields")
        for name, value in zip(names, node.args, strict=False):
            given[name] = self.value(value)
        for each in node.keywords:
            if each.arg not in names or each.arg in given:
                raise self.wrong(each.value, f"{kind.__name__} has no other field {each.arg!r}")
            given[each.arg] = self.value(each.value)
        for field in fields(kind):
            if field.name not in given and field.default is MISSING:
                raise self.wrong(node, f"{kind.__name__} misses its {field.name}")
        return kind, given

    def value(self, node: ast.expr) -> Any:
        """An operand, or an option."""
        if isinstance(node, ast.Subscript):
            return self.operand(node)
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise self.wrong(node, "expected an operand such as f4[n,10], or a number") from None

    def operand(self, node: ast.expr) -> OperandSignature:
        begin, end = self.span(node)
        (operand,) = parse_signature(self.text[begin:end]).operands
        return operand

    def span(self, node: ast.expr) -> tuple[int, int]:
        return node.col_offset, node.end_col_offset or len(self.text)

    def wrong(self, node: ast.expr, problem: str) -> EinsumError:
        return EinsumError(problem, self.text, self.span(node))
