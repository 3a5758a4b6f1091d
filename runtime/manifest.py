"""Manifests: which kernels somebody wants, as a file for people and for `einsumc precompile`.

    [[kernel]]
    equation = "ij,jk->ik"               # as einsum takes it
    signatures = ["f4[i,j], f4[j,k]"]    # dtypes and axes; see signatures.py
    optimize = "greedy"                  # as einsum takes it
    memory_limit = "64 MiB"
    layouts = ["C, F+"]                  # beside the usual ones; see layouts.py
    sizes = {"y" = 32}                   # as einsum takes them

The last four may be left out. In place of an equation there may be a function that
`compile_einsum` decorates (`function_use.py`); its operands are the function's first arguments but
for those that are named:

    [[kernel]]
    function = "package.module:name"
    signatures = ["f4[n,i], f4[n,j]"]
    arguments = {axis = 1}               # may be left out, as may layouts

or a function of `einsumc.gradnorms`, in one line (`gradnorms/entries.py`):

    [[kernel]]
    gradnorms = "norms(Linear(f4[n,t,10], f4[n,t,64]))"

People write such files, and so does a run with EINSUMC_RECORD (`record.py`). What is written here
has one form: entries and their lists sorted, nothing twice.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.records import dataclass
from ..compiler.subscripts import Expression, Subscripts, parse
from ..compiler.windows import Given, given_sizes
from .layouts import layout_of, parse_layouts, usual
from .memory import parse_bytes
from .operands import Array
from .optimize import Optimize, normalize_optimize
from .signatures import OperandSignature, Signature, parse_signature

__all__ = [
    "AnyUse",
    "FunctionRequest",
    "FunctionUse",
    "GradnormsRequest",
    "GradnormsUse",
    "NotWritable",
    "Request",
    "Use",
    "arguments_as_toml",
    "read_requests",
    "to_text",
    "use_of",
    "uses_in",
]

_FUNCTION_KEYS = ("function", "signatures", "layouts", "arguments")
_KEYS = ("equation", "signatures", "optimize", "memory_limit", "layouts", "sizes")


# --- uses: what calls ask for ---------------------------------------------------------------------


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
        return 1, self.function, self.arguments, self.signature.count(", "), ""

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


# --- writing --------------------------------------------------------------------------------------


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


def arguments_as_toml(arguments: Mapping[str, Any]) -> str:
    """Arguments of a function as an inline table; "" if there are none.

    Raises:
        TypeError: there is one that TOML has no word for.

    >>> arguments_as_toml({"scale": 0.5, "axes": (0, 1)})
    '{axes = [0, 1], scale = 0.5}'
    """
    for name, value in arguments.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not all(type(part) in (bool, int, float, str) for part in parts):
            raise TypeError(f"its argument {name!r} is a {type(value).__name__}")
    items = [f"{name} = {_toml(value)}" for name, value in sorted(arguments.items())]
    return f"{{{', '.join(items)}}}" if items else ""


def _sizes_as_toml(sizes: Mapping[str, int]) -> str:
    """Extents as an inline table; "" if there are none."""
    items = [f"{_toml(axis)} = {extent}" for axis, extent in sorted(sizes.items())]
    return f"{{{', '.join(items)}}}" if items else ""


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


# --- reading --------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Request:
    """A `[[kernel]]` of a file: an equation, checked, and what to compile it for."""

    subscripts: Subscripts
    signatures: tuple[Signature, ...]
    optimize: Optimize = True
    memory_limit: int | None = None
    layouts: tuple[tuple[str, ...], ...] = ()
    sizes: Given = ()

    @property
    def text(self) -> str:
        """What it is called in lists."""
        return self.subscripts.text


@dataclass(frozen=True, slots=True)
class FunctionRequest:
    """The same for a function whose body is compiled, `module:name`."""

    function: str
    signatures: tuple[Signature, ...]
    optimize: Optimize = True
    layouts: tuple[tuple[str, ...], ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """What it is called in lists."""
        return self.function


@dataclass(frozen=True, slots=True)
class GradnormsRequest:
    """The same for a function of `einsumc.gradnorms`, as its entry has it."""

    text: str
    signatures: tuple[Signature, ...]
    optimize: Optimize = True


def read_requests(
    path: str | os.PathLike[str],
) -> list[Request | FunctionRequest | GradnormsRequest]:
    """Read a manifest.

    Raises:
        EinsumError: (a ValueError) what is wrong, with the file, the entry and a caret.
        OSError: the file cannot be read.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        text = file.read()
    try:
        document = tomllib.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise EinsumError(f"{name}: it is not UTF-8 ({error.reason})") from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(name, text.decode("utf-8"), str(error)) from None
    unknown = sorted(document.keys() - {"kernel"})
    if unknown:
        raise _wrong_key(name, unknown[0], "the file may have [[kernel]] entries only")
    entries = document.get("kernel")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise EinsumError(f"{name}: it has no [[kernel]] entries")
    return [_request(f"{name}: kernel {n}", entry) for n, entry in enumerate(entries, start=1)]


def _request(where: str, entry: Mapping[str, Any]) -> Request | FunctionRequest | GradnormsRequest:
    """One entry; errors say where it is."""
    if "gradnorms" in entry:
        return _gradnorms_request(where, entry)
    if "function" in entry:
        return _function_request(where, entry)
    for key in entry:
        if key not in _KEYS:
            raise _wrong_key(where, key, f"expected {', '.join(_KEYS[:-1])} or {_KEYS[-1]}")
    for key in ("equation", "signatures"):
        if key not in entry:
            raise EinsumError(f"{where}: it has no {key}")
    equation, signatures, layouts = entry["equation"], entry["signatures"], entry.get("layouts", [])
    if not isinstance(signatures, list) or not signatures:
        raise _wrong_key(where, "signatures", "expected a list of texts")
    if not isinstance(layouts, list):
        raise _wrong_key(where, "layouts", "expected a list of texts")
    subscripts = _located(f"{where}, equation", parse, equation)
    checked = tuple(
        _located(f"{where}, signature {n}", parse_signature, signature, subscripts)
        for n, signature in enumerate(signatures, start=1)
    )
    optimize = _located(f"{where}, optimize", normalize_optimize, entry.get("optimize", True))
    limit = entry.get("memory_limit")
    if limit is not None:
        limit = _located(f"{where}, memory_limit", parse_bytes, limit)
    words = tuple(
        _located(f"{where}, layouts {n}", parse_layouts, each, len(subscripts.inputs))
        for n, each in enumerate(layouts, start=1)
    )
    sizes = _located(f"{where}, sizes", given_sizes, entry.get("sizes"))
    return Request(subscripts, checked, optimize, limit, words, sizes)


def _function_request(where: str, entry: Mapping[str, Any]) -> FunctionRequest:
    for key in entry:
        if key not in _FUNCTION_KEYS:
            problem = f"beside function, expected {', '.join(_FUNCTION_KEYS[1:])}"
            raise _wrong_key(where, key, problem)
    function, signatures = entry["function"], entry.get("signatures")
    if not isinstance(function, str) or not re.fullmatch(r"[\w.]+:[\w.]+", function):
        raise _wrong_key(where, "function", "expected a text such as 'package.module:name'")
    if not isinstance(signatures, list) or not signatures:
        raise EinsumError(f"{where}: it has no signatures")
    checked = tuple(
        _located(f"{where}, signature {n}", parse_signature, signature)
        for n, signature in enumerate(signatures, start=1)
    )
    layouts, arguments = entry.get("layouts", []), entry.get("arguments", {})
    if not isinstance(layouts, list):
        raise _wrong_key(where, "layouts", "expected a list of texts")
    words = tuple(
        _located(f"{where}, layouts {n}", parse_layouts, each, len(checked[0].operands))
        for n, each in enumerate(layouts, start=1)
    )
    if not isinstance(arguments, dict):
        raise _wrong_key(where, "arguments", "expected a table, such as {axis = 1}")
    named = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(arguments.items()))
    return FunctionRequest(function, checked, layouts=words, arguments=named)


def _gradnorms_request(where: str, entry: Mapping[str, Any]) -> GradnormsRequest:
    from ..gradnorms.entries import read_entry

    for key in entry:
        if key != "gradnorms":
            raise _wrong_key(where, key, "beside gradnorms, expected nothing")
    text = entry["gradnorms"]
    if not isinstance(text, str):
        raise _wrong_key(where, "gradnorms", "expected a text")
    _, signature = _located(f"{where}, gradnorms", read_entry, text)
    return GradnormsRequest(text, (signature,))


def _located(where: str, read: Callable[..., Any], *arguments: Any) -> Any:
    """What `read` returns; its errors are told where it is."""
    try:
        return read(*arguments)
    except (EinsumError, EinsumTypeError) as error:
        raise EinsumError(f"{where}: {error.message}", error.text, error.span) from None


def _wrong_key(where: str, key: str, problem: str) -> EinsumError:
    return EinsumError(f"{where}: {problem}", key, (0, len(key)))


def _syntax_error(name: str, text: str, message: str) -> EinsumError:
    """TOML's complaint, with the line that it is about."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message)
    lines = text.splitlines() or [""]
    if found is None:  # at the end of the file
        place, line, column = len(lines), lines[-1], len(lines[-1])
    else:
        place, column = int(found[2]), int(found[3]) - 1
        line = lines[place - 1] if place <= len(lines) else ""
        message = found[1]
    return EinsumError(f"{name}, line {place}: {message}", line, (column, column + 1))
