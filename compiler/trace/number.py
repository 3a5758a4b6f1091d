"""Numbers that are sizes or arguments, `x.shape[0]` or a rate, and what is computed from them.

They are not known while a function is traced, so that one trace serves all sizes and all values.
Where Python needs to know, since the function branches on a size, counts to it or hands it to a
function of the standard library, the number is the one of the call that is being traced, and the
trace is good only for calls in which it is the same: it becomes a *guard*.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..records import dataclass

__all__ = ["Argument", "Guards", "Number", "Shapes", "number_of"]

Shapes = Mapping[object, tuple[Any, ...]]
"""The shape of every node of a graph, and for every `Argument` its value, alone in a tuple."""


@dataclass(frozen=True, slots=True)
class Argument:
    """A number that is an argument of the function: a Python float, by its position among them."""

    position: int


class Guards:
    """What a trace relies on: numbers and the values that they must have."""

    def __init__(self) -> None:
        self._values: dict[Number, Any] = {}

    def add(self, number: Number) -> Any:
        """Rely on a number being what it is now, and return that."""
        self._values.setdefault(number, number.now)
        return number.now

    def hold(self, shapes: Shapes) -> bool:
        """Whether everything is as it was, for these shapes."""
        return all(number.value(shapes) == value for number, value in self._values.items())

    def __len__(self) -> int:
        return len(self._values)

    @property
    def given(self) -> bool:
        """Whether a number that follows from arguments is among them."""
        return any(number.given for number in self._values)


class Number:
    """A number that follows from sizes and from numbers among the arguments.

    Attributes:
        now: its value in the call that is traced.
        given: whether it follows from an argument, so that it may be another one in each call.
    """

    __slots__ = ("_arguments", "_function", "_guards", "given", "now")

    def __init__(
        self, function: Callable[..., Any] | None, arguments: tuple[Any, ...], now: Any, to: Guards
    ) -> None:
        self._function = function  # None: the arguments are a node or `Argument`, and its axis
        self._arguments = arguments
        self._guards = to
        self.given: bool = any(
            each.given if isinstance(each, Number) else isinstance(each, Argument)
            for each in arguments
        )
        self.now = now

    def value(self, shapes: Shapes) -> Any:
        """Its value for these shapes."""
        if self._function is None:
            node, axis = self._arguments
            return shapes[node][axis]
        return self._function(*(number_of(argument, shapes) for argument in self._arguments))

    def _apply(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A function of this number and others, as a number; NotImplemented for other arguments."""
        if not all(isinstance(each, Number | int | float | complex) for each in arguments):
            return NotImplemented
        now = function(*(a.now if isinstance(a, Number) else a for a in arguments))
        return Number(function, arguments, now, self._guards)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's functions of numbers are numbers; traced arrays take care of themselves.

        What is computed with an array that is not traced has to be known.
        """
        if any(hasattr(each, "_traced_node") for each in inputs):
            return NotImplemented
        if method != "__call__" or options or any(_is_array(each) for each in inputs):
            known = (
                self._guards.add(each) if isinstance(each, Number) else each for each in inputs
            )
            return getattr(ufunc, method)(*known, **options)
        return self._apply(ufunc, *inputs)

    # What Python has to know.

    def __bool__(self) -> bool:
        return bool(self._guards.add(self))

    def __int__(self) -> int:
        return int(self._guards.add(self))

    def __float__(self) -> float:
        return float(self._guards.add(self))

    def __index__(self) -> int:
        return operator.index(self._guards.add(self))

    def __round__(self, digits: int | None = None) -> Any:
        return round(self._guards.add(self), digits)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self._guards.add(self), dtype)

    def __format__(self, spec: str) -> str:
        return format(self._guards.add(self), spec)

    def __str__(self) -> str:
        return str(self._guards.add(self))

    def __repr__(self) -> str:
        return f"<a {'number' if self.given else 'size'}, {self.now!r} now>"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return self._apply(operator.eq, self, other)

    def __ne__(self, other: object) -> Any:
        return self._apply(operator.ne, self, other)


def _is_array(value: Any) -> bool:
    """Whether a value is an array, or a scalar that is not one of Python's."""
    return isinstance(value, np.ndarray | np.generic) and not isinstance(value, float | complex)


def number_of(value: Any, shapes: Shapes) -> Any:
    """The value of a number, or what was given if it is none."""
    return value.value(shapes) if isinstance(value, Number) else value


def _define(name: str) -> None:
    function = getattr(operator, name, None) or {"divmod": divmod}[name]

    def forward(self: Number, *others: Any) -> Any:
        return self._apply(function, self, *others)

    def backward(self: Number, other: Any) -> Any:
        return self._apply(function, other, self)

    setattr(Number, f"__{name}__", forward)
    if name in _BOTH_SIDES:
        setattr(Number, f"__r{name}__", backward)


_BOTH_SIDES = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")

for _name in (*_BOTH_SIDES, "neg", "pos", "abs", "lt", "le", "gt", "ge"):
    _define(_name)


def is_integer(value: Any) -> bool:
    """Whether a value, or a number now, is an integer."""
    now = value.now if isinstance(value, Number) else value
    return isinstance(now, int | np.integer) and not isinstance(now, bool)
