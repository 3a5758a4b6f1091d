"""What a kernel's key is made from: its schedule as text, and the version of the generator."""

from __future__ import annotations

import ast
from typing import Any

from . import formula, loopnest
from . import schedule as schedules
from .records import fields, is_dataclass
from .schedule import Schedule
from .sources import sources

__all__ = ["describe", "generator", "read"]

_FILES = (
    *("affine", "build", "describe", "emit", "express", "finish", "formula", "frames", "image"),
    *("loopnest", "lower", "machine", "pipeline", "records", "schedule", "passes", "simd"),
    "tile_source",
)


def generator() -> str:
    """The version of everything between a schedule and its machine code. Part of every key.

    It is a digest of the sources that do the work, so no change to them can be forgotten, and two
    einsumc versions share kernels exactly where they would make the same ones.
    """
    return sources(_FILES)


def describe(schedule: Schedule) -> str:
    """A schedule as text: equal texts, equal kernels. This is what a key is made from."""
    return _describe(schedule)


def _describe(value: Any) -> str:
    if is_dataclass(value):
        parts = (f"{f.name}={_describe(getattr(value, f.name))}" for f in fields(value))
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, tuple):
        return f"[{', '.join(_describe(item) for item in value)}]"
    return repr(value)


def read(text: str) -> Schedule:
    """The schedule that `describe` wrote down, for who wants to look at a stored kernel again.

    The text is parsed, not evaluated: it makes schedules and their parts and nothing else.

    Raises:
        ValueError: the text is no schedule, or one of another version of the compiler.

    >>> from .choose import choose
    >>> from .geometry import Geometry
    >>> from .machine import TARGETS, Machine
    >>> step = Geometry(("f4", "f4"), "f4", {"i": 9}, ({"i": 1}, {"i": 1}))
    >>> schedule = choose(step, Machine(TARGETS["x86-64-v3"])).schedule
    >>> read(describe(schedule)) == schedule
    True
    """
    try:
        found = _read(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, TypeError) as problem:
        raise ValueError(f"no schedule of this version: {problem}") from None
    if not isinstance(found, Schedule) or describe(found) != text:
        raise ValueError("no schedule of this version")
    return found


_PARTS = {
    name: value
    for module in (formula, loopnest, schedules)
    for name, value in vars(module).items()
    if isinstance(value, type) and is_dataclass(value)
}


def _read(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=items):
            return tuple(_read(item) for item in items)
        case ast.Call(func=ast.Name(id=name), args=[], keywords=given) if name in _PARTS:
            return _PARTS[name](**{str(each.arg): _read(each.value) for each in given})
    raise ValueError(f"no schedule of this version: {ast.unparse(node)[:80]}")
