"""What a call's arguments are made of, in signatures: operands, values, and collections of both.

    {w: f4[i,o], 'b.1': f4[o]}      a dict; keys that are no plain names are written as in Python
    (f4[n,i], f4[n,j])              a tuple; of one, (f4[n],)
    [f4[n], 2, 'same', None]        a list, in which not all is an operand
    Layer(w=f4[i,o], b=f4[o])       a named tuple, of the function's module or `other.module:Layer`

Here operands are numbers: their places among all operands of the signature.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from ..compiler.errors import EinsumError
from ..compiler.records import dataclass

__all__ = ["Collection", "Node", "Static", "filled_in", "static_of", "static_word", "text_of"]

_WORDS = {
    "None": None,
    "True": True,
    "False": False,
    "inf": float("inf"),
    "-inf": float("-inf"),
    "nan": float("nan"),
}
"""What is a word of its own."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_NUMBER = re.compile(r"[+-]?\.?[0-9]")


@dataclass(frozen=True, slots=True)
class Static:
    """What is no operand: a number, a text, a bool or None, as Python writes it.

    The text is what tells values apart: 1 and True are equal.

    >>> Static("'x'").value, Static("2.0").value, Static("None").value
    ('x', 2.0, None)
    """

    text: str

    @property
    def value(self) -> Any:
        """What the text stands for."""
        if self.text in _WORDS:
            return _WORDS[self.text]
        if self.text[0] in "'\"":
            from ast import literal_eval  # here, since few signatures have texts

            return literal_eval(self.text)
        return _number(self.text)


@dataclass(frozen=True, slots=True)
class Collection:
    """A tuple `()`, a list `[]`, a dict `{}`, or a named tuple.

    Attributes:
        kind: one of the brackets, or the name of the named tuple's class.
        items: what is in it.
        keys: of a dict's items; names of a named tuple's fields; nothing for the others.
    """

    kind: str
    items: tuple[Node, ...]
    keys: tuple[Node, ...] = ()


Node = int | Static | Collection
"""An argument or a part of one; a number is an operand."""


def static_of(value: Any) -> Static:
    """A value as a signature has it.

    Raises:
        TypeError: it is of a type that signatures have no words for.

    >>> static_of(1e3), static_of("same"), static_of(1 - 2j)
    (Static(text='1000.0'), Static(text="'same'"), Static(text='1-2j'))
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return Static(repr(value))
    if kind is complex and isfinite(value.real) and isfinite(value.imag):
        return Static(repr(value).strip("()"))
    raise TypeError(kind.__name__)


def static_word(word: str) -> Static | None:
    """What a word that is no text stands for, if it is a value.

    >>> static_word("-1e3"), static_word("None"), static_word("f4")
    (Static(text='-1000.0'), Static(text='None'), None)
    """
    if word in _WORDS:
        return Static(word)
    try:
        return static_of(_number(word)) if word.isascii() and _NUMBER.match(word) else None
    except (ValueError, TypeError):
        return None


def _number(text: str) -> int | float | complex:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return complex(text)


def text_of(node: Node, operand: Callable[[int], str]) -> str:
    """An argument as signatures have it.

    Args:
        node: the argument.
        operand: the text of each operand.

    >>> layer = Collection("{}", (0, Static("None")), (Static("'w'"), Static("'b 1'")))
    >>> text_of(Collection("()", (layer,)), "abc".__getitem__)
    "({w: a, 'b 1': None},)"
    """
    if isinstance(node, int):
        return operand(node)
    if isinstance(node, Static):
        return node.text
    parts = [text_of(each, operand) for each in node.items]
    if node.kind == "()":
        return f"({', '.join(parts)}{',' * (len(parts) == 1)})"
    if node.kind == "[]":
        return f"[{', '.join(parts)}]"
    named = zip(node.keys, parts, strict=True)
    if node.kind == "{}":
        return f"{{{', '.join(f'{_key(key)}: {part}' for key, part in named)}}}"
    fields = [f"{key.value}={part}" for key, part in named if isinstance(key, Static)]
    return f"{node.kind}({', '.join(fields)})"


def _key(node: Node) -> str:
    """A key, without quotes if it is a plain name."""
    text = text_of(node, str)
    plain = text[0] in "'\"" and _NAME.fullmatch(text[1:-1]) and text[1:-1] not in _WORDS
    return text[1:-1] if plain else text


def filled_in(node: Node, operands: Sequence[Any], class_of: Callable[[str], Any]) -> Any:
    """An argument with these operands.

    Args:
        node: the argument.
        operands: all of the signature's.
        class_of: finds the class of a named tuple by its name.

    Raises:
        EinsumError: (a ValueError) a named tuple has other fields.

    >>> filled_in(Collection("[]", (1, Static("2"))), ["A", "B"], str)
    ['B', 2]
    """
    if isinstance(node, int):
        return operands[node]
    if isinstance(node, Static):
        return node.value
    items = [filled_in(each, operands, class_of) for each in node.items]
    if node.kind in ("()", "[]"):
        return items if node.kind == "[]" else tuple(items)
    keys = [filled_in(each, operands, class_of) for each in node.keys]
    named = dict(zip(keys, items, strict=True))
    if node.kind == "{}":
        return named
    try:
        return class_of(node.kind)(**named)
    except TypeError as error:
        raise EinsumError(f"{node.kind} cannot be made: {error}") from None
