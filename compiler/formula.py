"""Formulas: what is computed for each element from a sum and from other tensors.

    where(mask[i,j] != 0, tanh(acc + bias[j]), 0)

A formula is a tree of functions. Its leaves are numbers, tensors at indices, and `CONTRACTED`, the
sum of products that it belongs to. Functions are NumPy's, and mean what they mean there. Where a
kernel is made, nothing has a name: a formula's leaves are `Input` and `Parameter`, by position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .access import Access
from .records import dataclass

__all__ = [
    "COMPARISONS",
    "CONTRACTED",
    "FUNCTIONS",
    "TRUTH",
    "Apply",
    "Constant",
    "Contracted",
    "Input",
    "Parameter",
    "Read",
    "Value",
    "accesses_of",
    "folded",
    "replaced",
    "value_of",
    "with_accesses",
]

COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")

TRUTH = (*COMPARISONS, "logical_and", "logical_or", "logical_not")
"""Functions whose values are truth values."""

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
class Input:
    """In a kernel: the element of one of the tensors that a formula is applied to."""

    position: int

    def text(self, product: str) -> str:
        """The formula as text."""
        return f"${self.position}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """In a kernel: a number that is told when it is called, so that many formulas share a kernel.

    `kind` is NumPy's letter: `b`, `i`, `f` or `c`. Like Python's numbers it takes the type of what
    it is combined with, where that is of its kind.
    """

    position: int
    kind: str

    def text(self, product: str) -> str:
        """The formula as text."""
        return f"c{self.position}"


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


Leaf = Contracted | Read | Input | Parameter
Value = Leaf | Constant | Apply


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

    def leaf(value: Leaf) -> Any:
        return read(value.access) if isinstance(value, Read) else contracted

    return folded(value, leaf, _by_numpy)


def _by_numpy(function: str, *arguments: Any) -> Any:
    return FUNCTIONS[function](*arguments)


def folded(value: Value, leaf: Callable[[Leaf], Any], apply: Callable[..., Any]) -> Any:
    """A formula with something in place of each leaf that is no constant, put together again.

    Args:
        value: the formula.
        leaf: what stands in place of a leaf.
        apply: makes one of the name of a function and what stands for its arguments.

    >>> double = Apply("add", (CONTRACTED, CONTRACTED))
    >>> folded(double, lambda leaf: "x", lambda function, x, y: f"{function}({x}, {y})")
    'add(x, x)'
    """
    match value:
        case Constant(number):
            return number
        case Apply(function, arguments):
            return apply(function, *(folded(a, leaf, apply) for a in arguments))
        case _:
            return leaf(value)


def replaced(value: Value, leaf: Callable[[Leaf], Value]) -> Value:
    """A formula with another one in place of each leaf that is no constant.

    >>> double = Apply("add", (CONTRACTED, CONTRACTED))
    >>> print(replaced(double, lambda leaf: Constant(2)).text(""))
    2 + 2
    """
    match value:
        case Constant():
            return value
        case Apply(function, arguments):
            return Apply(function, tuple(replaced(a, leaf) for a in arguments))
        case _:
            return leaf(value)
