"""Formulas: what is computed for each element from a sum and from other tensors.

    where(mask[i,j] != 0, tanh(acc + bias[j]), 0)

A formula is a tree of functions. Its leaves are numbers, tensors at indices, and `CONTRACTED`, the
sum of products that it belongs to. Functions are NumPy's, and mean what they mean there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .access import Access

__all__ = [
    "CONTRACTED",
    "FUNCTIONS",
    "Apply",
    "Constant",
    "Contracted",
    "Read",
    "Value",
    "accesses_of",
    "value_of",
    "with_accesses",
]

_SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "power": "**",
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "logical_and": "and",
    "logical_or": "or",
}
"""Functions of two arguments that print between them."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name)
    for name in (
        *_SIGNS,
        *("negative", "absolute", "sqrt", "exp", "log", "tanh", "conjugate", "logical_not"),
        *("minimum", "maximum", "where"),
    )
}
"""What a formula may apply: each is the function of this name in NumPy."""


@dataclass(frozen=True, slots=True)
class Contracted:
    """The sum of products that a formula belongs to."""

    def text(self, product: str) -> str:
        """The formula as text, with the sum written as given."""
        return f"({product})" if " " in product else product


CONTRACTED = Contracted()


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, the same for all elements."""

    number: float | complex

    def text(self, product: str) -> str:
        """The formula as text."""
        return f"{self.number:g}" if isinstance(self.number, float) else str(self.number)


@dataclass(frozen=True, slots=True)
class Read:
    """An element of a tensor."""

    access: Access

    def text(self, product: str) -> str:
        """The formula as text."""
        return str(self.access)


@dataclass(frozen=True, slots=True)
class Apply:
    """One of `FUNCTIONS` of other formulas.

    >>> print(Apply("add", (CONTRACTED, Constant(1))).text("a[i] * b[i]"))
    (a[i] * b[i]) + 1
    """

    function: str
    arguments: tuple[Value, ...]

    def text(self, product: str) -> str:
        """The formula as text, with the sum of products written as given."""
        if self.function == "multiply" and self.arguments[0] == self.arguments[1]:
            return f"square({_bare(self.arguments[0].text(product))})"
        texts = [argument.text(product) for argument in self.arguments]
        if self.function in _SIGNS:
            inner = (
                f"({text})" if isinstance(a, Apply) and a.function in _SIGNS else text
                for a, text in zip(self.arguments, texts, strict=True)
            )
            return f" {_SIGNS[self.function]} ".join(inner)
        return f"{self.function}({', '.join(map(_bare, texts))})"


Value = Contracted | Constant | Read | Apply


def _bare(text: str) -> str:
    """A text without parentheses around the whole of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1]


def accesses_of(value: Value) -> Iterator[Access]:
    """Every tensor that a formula reads, in the order of its text, as often as it is read."""
    match value:
        case Read(access):
            yield access
        case Apply(_, arguments):
            for argument in arguments:
                yield from accesses_of(argument)


def with_accesses(value: Value, made: Callable[[Access], Access]) -> Value:
    """The same formula of other tensors, or of the same ones at other places."""
    match value:
        case Read(access):
            return Read(made(access))
        case Apply(function, arguments):
            return Apply(function, tuple(with_accesses(each, made) for each in arguments))
    return value


def value_of(value: Value, contracted: Any, read: Callable[[Access], Any]) -> Any:
    """The value of a formula, by NumPy.

    Args:
        value: the formula.
        contracted: what `CONTRACTED` stands for.
        read: the elements of an access.

    >>> value_of(Apply("maximum", (CONTRACTED, Constant(0))), np.array([-1, 2]), lambda access: ...)
    array([0, 2])
    """
    match value:
        case Contracted():
            return contracted
        case Constant(number):
            return number
        case Read(access):
            return read(access)
        case Apply(function, arguments):
            return FUNCTIONS[function](*(value_of(a, contracted, read) for a in arguments))
