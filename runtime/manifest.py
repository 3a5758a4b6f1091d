"""Manifests: which kernels somebody wants, as a file for people and for `einsumc precompile`.

    [[kernel]]
    equation = "ij,jk->ik"               # as einsum takes it
    signatures = ["f4[i,j], f4[j,k]"]    # dtypes and axes; see signatures.py
    optimize = "greedy"                  # as einsum takes it
    memory_limit = "64 MiB"
    layouts = ["C, F+"]                  # beside the usual ones; see layouts.py
    sizes = {"y" = 32}                   # as einsum takes them

The last four may be left out. In place of an equation there may be a function that
`compile_einsum` decorates (`function_use.py`), which may take tuples, lists and dicts:

    [[kernel]]
    function = "package.module:name"
    signatures = ["f4[n,i], {w: f4[i,j], b: f4[j]}"]
    arguments = {axis = 1}               # may be left out, as may layouts

or a function of `einsumc.gradnorms`, in one line (`gradnorms/entries.py`):

    [[kernel]]
    gradnorms = "norms(Linear(f4[n,t,10], f4[n,t,64]))"

People write such files, and so does a run with EINSUMC_RECORD (`uses.py`).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.records import dataclass
from ..compiler.subscripts import Subscripts, parse
from ..compiler.windows import Given, given_sizes
from .layouts import parse_layouts
from .memory import parse_bytes
from .optimize import Optimize, normalize_optimize
from .signatures import Signature, parse_signature
from .uses import has_words

__all__ = ["FunctionRequest", "GradnormsRequest", "Request", "read_requests"]

_FUNCTION_KEYS = ("function", "signatures", "layouts", "arguments")
_KEYS = ("equation", "signatures", "optimize", "memory_limit", "layouts", "sizes")


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
        _located(f"{where}, layouts {n}", parse_layouts, each, len(signature.operands))
        for signature in checked
        for n, each in enumerate(layouts, start=1)
    )
    if not isinstance(arguments, dict):
        raise _wrong_key(where, "arguments", "expected a table, such as {axis = 1}")
    for key, value in arguments.items():
        if not has_words(value):
            problem = "expected numbers, texts, bools, or lists of them; a signature takes more"
            raise _wrong_key(f"{where}, arguments", key, problem)
    named = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(arguments.items()))
    return FunctionRequest(function, checked, layouts=(*dict.fromkeys(words),), arguments=named)


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
