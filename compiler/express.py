"""A formula as tile operations of generated source.

    convert(value_1, f4)     where value_1 = exp(multiply(acc, c0_f4))

Each part of a formula has the type that NumPy would give it; where an operation wants another one,
there is a conversion. What occurs more than once is computed once, under a name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .finish import element_name, is_simple, sample
from .formula import COMPARISONS, Apply, Constant, Input, Parameter, Value
from .records import dataclass, field

__all__ = ["Expression"]


@dataclass
class Expression:
    """Makes the text of formulas.

    ``inputs`` are the names of the tiles that formulas are applied to, and ``elements`` their
    types. ``define`` names an operation's result, and ``parameter`` the number at a place, of a
    kind, as an element type.
    """

    inputs: Sequence[str]
    elements: tuple[str, ...]
    define: Callable[[str], str]
    parameter: Callable[[int, str, str], str]
    names: dict[Value, str] = field(default_factory=dict)
    counts: Counter[Value] = field(default_factory=Counter)

    def text(self, value: Value, element: str) -> str:
        """A formula as an element type."""
        self.counts.update(_parts(value))
        return self._as(value, element)

    def element(self, value: Value) -> str:
        """The type that a formula has by itself."""
        return element_name(sample(value, self.elements))

    def _as(self, value: Value, element: str) -> str:
        match value:
            case Parameter(position, kind):
                return self.parameter(position, kind, element)
            case Input(position):
                text = self.inputs[position]
            case Apply():
                text = self._named(value)
            case _:
                raise TypeError(f"{value} has no place in a kernel")
        own = self.element(value)
        return text if own == element else f"convert({text}, {element})"

    def _named(self, value: Apply) -> str:
        if value not in self.names:
            text = self._operation(value)
            if self.counts[value] == 1:
                return text
            self.names[value] = self.define(text)
        return self.names[value]

    def _operation(self, value: Apply) -> str:
        own, function = self.element(value), value.function
        match value:
            case Apply("power", (base, Constant() as exponent)) if is_simple(exponent):
                return self._power(self._as(base, own), float(exponent.number.real), own)
            case Apply("absolute" | "conjugate", (argument,)):
                wanted = [self.element(argument)]
            case Apply("where"):
                wanted = ["b1", own, own]
            case Apply("logical_and" | "logical_or" | "logical_not"):
                wanted = ["b1"] * len(value.arguments)
            case _ if function in COMPARISONS:
                samples = [sample(argument, self.elements) for argument in value.arguments]
                wanted = [element_name(np.ones(0, np.result_type(*samples)))] * 2
            case _:
                wanted = [own] * len(value.arguments)
        arguments = map(self._as, value.arguments, wanted)
        return f"{function}({', '.join(arguments)})"

    def _power(self, base: str, exponent: float, element: str) -> str:
        """A power by multiplication, half of one being a root, a negative one a quotient."""
        base = self.define(base)
        if exponent == 0:
            return f"power_zero({base})"
        left, half = divmod(abs(exponent), 1)
        product = f"sqrt({base})" if half else ""
        count = int(left)
        while count:
            if count & 1:
                product = f"multiply({product}, {base})" if product else base
            count >>= 1
            if count:
                base = self.define(f"multiply({base}, {base})")
        return product if exponent > 0 else f"reciprocal({product})"


def _parts(value: Value) -> list[Value]:
    """A formula and all that it is made of, as often as it occurs."""
    if not isinstance(value, Apply):
        return []
    return [value, *(part for argument in value.arguments for part in _parts(argument))]
