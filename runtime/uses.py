"""Uses: what calls ask for, which a run with EINSUMC_RECORD writes down (`record.py`).

They are written as entries of a manifest (`manifest.py`), in one form: entries and their lists
sorted, nothing twice.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..compiler.records import dataclass
from ..compiler.subscripts import Expression
from ..compiler.windows import Given
from .layouts import layout_of, usual
from .operands import Array
from .optimize import Optimize
from .signatures import OperandSignature, Signature, parse_signature

__all__ = [
    "AnyUse",
    "FunctionUse",
    "GradnormsUse",
    "NotWritable",
    "Use",
    "arguments_as_toml",
    "has_words",
    "to_text",
    "use_of",
    "uses_in",
]


@dataclass(frozen=True, slots=True)
class Use:
    """A kind of call, as texts.

    Attributes:
        equation: the text of the equation.
        signature: dtypes and axes of the operands.
        layouts: words for the operands' layouts; "" if they are usual.
        optimize: how the order of contraction is chosen, as TOML.
        memory_limit: bytes that intermediates may take, or None.
        sizes: extents that were asked for, as TOML; "" if none were.
    """

    equation: str
    signature: str
    layouts: str = ""
    optimize: str = "true"
    memory_limit: int | None = None
    sizes: str = ""

    @property
    def key(self) -> tuple[int, str, str, int, str]:
        """What entries are sorted by; those of one key are one entry."""
        limit = -1 if self.memory_limit is None else self.memory_limit
        return 0, self.equation, self.optimize, limit, self.sizes

    def entry(self, alike: Sequence[Self]) -> Iterator[str]:
        """The lines of the entry for all uses of this key."""
        yield f"equation = {_toml(self.equation)}"
        yield f"signatures = {_toml_list(each.signature for each in alike)}"
        if self.optimize != "true":
            yield f"optimize = {self.optimize}"
        if self.memory_limit is not None:
            yield f"memory_limit = {self.memory_limit}"
        yield from _layout_lines(alike)
        if self.sizes:
            yield f"sizes = {self.sizes}"


@dataclass(frozen=True, slots=True)
class FunctionUse:
    """A kind of call of a function whose body is compiled: see `function_use.py`.

    Attributes:
        function: its name, `module:name`.
        signature: dtypes and axes of the operands.
        layouts: words for the operands' layouts; "" if they are usual.
        arguments: those that are no operands, as TOML; "" if there are none.
    """

    function: str
    signature: str
    layouts: str = ""
    arguments: str = ""

    @property
    def key(self) -> tuple[int, str, str, int, str]:
        """As for `Use`. Layouts are of so many operands."""
        count = len(parse_signature(self.signature).operands)
        return 1, self.function, self.arguments, count, ""

    def entry(self, alike: Sequence[Self]) -> Iterator[str]:
        """As for `Use`."""
        yield f"function = {_toml(self.function)}"
        yield f"signatures = {_toml_list(each.signature for each in alike)}"
        yield from _layout_lines(alike)
        if self.arguments:
            yield f"arguments = {self.arguments}"


@dataclass(frozen=True, slots=True)
class GradnormsUse:
    """A kind of call of a function of `einsumc.gradnorms`, as its entry has it."""

    text: str

    @property
    def key(self) -> tuple[int, str, str, int, str]:
        """As for `Use`."""
        return 2, self.text, "", 0, ""

    def entry(self, alike: Sequence[Self]) -> Iterator[str]:
        """As for `Use`."""
        yield f"gradnorms = {_toml(self.text)}"


class NotWritable(ValueError):
    """A call that no entry of a manifest stands for; the message says why."""


AnyUse = Use | FunctionUse | GradnormsUse


def _layout_lines(alike: Sequence[Use] | Sequence[FunctionUse]) -> Iterator[str]:
    if any(each.layouts for each in alike):
        yield f"layouts = {_toml_list(each.layouts for each in alike if each.layouts)}"


def use_of(
    equation: str,
    expression: Expression,
    operands: Sequence[Array],
    dtype: np.dtype[Any],
    optimize: Optimize = True,
    memory_limit: int | None = None,
    sizes: Given = (),
) -> Use:
    """What a call uses.

    Args:
        equation: its text.
        expression: the same with the shapes of the operands.
        operands: as they were given.
        dtype: what it is computed in. Where that is not what the operands' dtypes come to, the
            signature has it in place of them.
        optimize: as `normalize_optimize` has it. A function cannot be written down: true stands
            in its place.
        memory_limit: bytes that intermediates may take, or None.
        sizes: extents that were asked for.

    >>> from einsumc.compiler.resolve import resolve
    >>> from einsumc.compiler.subscripts import parse
    >>> a, b = np.ones((2, 3), "f4"), np.ones((7, 4, 3), "f4").swapaxes(1, 2)
    >>> use_of("ij,...jk", resolve(parse("ij,...jk"), [a.shape, b.shape]), [a, b], a.dtype)
    Use(equation='ij,...jk', signature='f4[i,j], f4[d0,j,k]', layouts='C, 021', optimize='true', \
memory_limit=None, sizes='')
    """
    plain = np.result_type(*(operand.dtype for operand in operands)) == dtype
    taken = set(expression.sizes)
    signature: list[OperandSignature] = []
    for operand, axes in zip(operands, expression.inputs, strict=True):
        named: list[str | int] = []
        for axis in axes:
            if axis is None:
                named.append(1)
            elif not axis.is_index:  # a window
                named.append(_unused(f"w{len(signature)}_{len(named)}", taken))
            elif axis.names[0].startswith("..."):
                named.append(_unused(f"d{axis.names[0][3:]}", taken))
            else:
                named.append(axis.names[0])
        kind = operand.dtype.newbyteorder("=") if plain else dtype
        signature.append(OperandSignature(kind, tuple(named)))
    words = [layout_of(operand) for operand in operands]
    return Use(
        equation,
        str(Signature(tuple(signature))),
        "" if usual(words) else ", ".join(words),
        "true" if callable(optimize) else _toml(optimize),
        memory_limit,
        _sizes_as_toml({str(axis): extent for axis, extent in sizes}),
    )


def _unused(name: str, taken: set[str]) -> str:
    """A name that no index has."""
    while name in taken:
        name += "_"
    return name


# --- to text and back -----------------------------------------------------------------------------


def to_text(uses: Iterable[AnyUse]) -> str:
    """The `[[kernel]]` entries of a manifest for these uses: those of one
    equation or function together.

    >>> print(to_text([Use("i,i->", "f4[i], f4[i]"), Use("i,i->", "f8[i], f8[i]")]))
    [[kernel]]
    equation = "i,i->"
    signatures = ["f4[i], f4[i]", "f8[i], f8[i]"]
    """
    groups: dict[Any, list[Any]] = {}
    for use in uses:
        groups.setdefault(use.key, []).append(use)
    entries = (groups[key][0].entry(groups[key]) for key in sorted(groups))
    return "\n\n".join("\n".join(["[[kernel]]", *entry]) for entry in entries)


def has_words(value: Any) -> bool:
    """Whether an argument of a function can be written in TOML, which tells no tuple from a list.

    >>> has_words((1, "x")), has_words(None), has_words({"x": 1})
    (True, False, False)
    """
    parts = value if isinstance(value, list | tuple) else [value]
    return all(type(part) in (bool, int, float, str) for part in parts)


def arguments_as_toml(arguments: Mapping[str, Any]) -> str:
    """Arguments of a function as an inline table; "" if there are none.

    Raises:
        TypeError: there is one that TOML has no word for.

    >>> arguments_as_toml({"scale": 0.5, "axes": (0, 1), "größe": 2})
    '{axes = [0, 1], "größe" = 2, scale = 0.5}'
    """
    for name, value in arguments.items():
        if not has_words(value):
            raise TypeError(f"its argument {name!r} is a {type(value).__name__}")
    items = [f"{_key(name)} = {_toml(value)}" for name, value in sorted(arguments.items())]
    return f"{{{', '.join(items)}}}" if items else ""


def _sizes_as_toml(sizes: Mapping[str, int]) -> str:
    """Extents as an inline table; "" if there are none."""
    items = [f"{_toml(axis)} = {extent}" for axis, extent in sorted(sizes.items())]
    return f"{{{', '.join(items)}}}" if items else ""


def _key(name: str) -> str:
    """A key of TOML, which takes ASCII alone without quotes."""
    return name if name.isascii() and name.isidentifier() else _toml(name)


def _toml_list(texts: Iterable[str]) -> str:
    """A list of texts, sorted, none twice; over several lines where one is too long."""
    items = [_toml(text) for text in sorted(set(texts))]
    line = f"[{', '.join(items)}]"
    if len(line) <= 80:
        return line
    return "\n".join(["[", *(f"    {item}," for item in items), "]"])


def _toml(value: Any) -> str:
    """A text, a bool, a number, or several of such, as TOML."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def uses_in(text: str) -> list[AnyUse]:
    """What is in a manifest that `to_text` wrote; nothing is checked but that it can be read.

    Raises:
        ValueError, TypeError, KeyError: it cannot.
    """
    found: list[AnyUse] = []
    for entry in tomllib.loads(text).get("kernel", []):
        if "gradnorms" in entry:
            found.append(GradnormsUse(entry["gradnorms"]))
            continue
        first, *others = entry["signatures"]
        if "function" in entry:
            name, arguments = entry["function"], arguments_as_toml(entry.get("arguments", {}))
            found += [FunctionUse(name, each, "", arguments) for each in (first, *others)]
            words = entry.get("layouts", [])
            found += [FunctionUse(name, first, each, arguments) for each in words]
            continue
        sizes = _sizes_as_toml(entry.get("sizes", {}))
        shared = (_toml(entry.get("optimize", True)), entry.get("memory_limit"), sizes)
        equation = entry["equation"]
        found += [Use(equation, each, "", *shared) for each in (first, *others)]
        found += [Use(equation, first, each, *shared) for each in entry.get("layouts", [])]
    return found
