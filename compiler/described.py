"""Read a schedule that `describe` wrote down, for who wants to look at a stored kernel again."""

from __future__ import annotations

import ast
from typing import Any

from . import formula
from . import schedule as schedules
from .describe import describe
from .records import is_dataclass
from .schedule import Schedule

__all__ = ["read"]


def read(text: str) -> Schedule:
    """The schedule that `describe` wrote down.

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
    for module in (formula, schedules)
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
