"""Signatures as records: the operands of calls, what they are arguments of, which are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..compiler.records import dataclass
from .arguments import Node, filled_in, text_of

__all__ = ["DTYPES", "Argument", "OperandSignature", "Signature"]

DTYPES = {
    name: np.dtype(code)
    for code in (
        *("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"),
        *("f2", "f4", "f8", "c8", "c16"),
    )
    for name in (code, np.dtype(code).name)
}
"""What a dtype may be called: codes and names of those that kernels compute in."""

Argument = tuple[str, Node]
"""The name of an argument, "" if it is given by its place, and what it is."""


@dataclass(frozen=True, slots=True)
class OperandSignature:
    """One operand: its dtype, and for each axis an index name (any extent) or its extent.

    >>> print(OperandSignature(np.dtype("f4"), ("n", 128)))
    f4[n,128]
    """

    dtype: np.dtype[Any]
    axes: tuple[str | int, ...]

    def __str__(self) -> str:
        axes = f"[{','.join(map(str, self.axes))}]" if self.axes else ""
        return f"{self.dtype.str[1:]}{axes}"


@dataclass(frozen=True, slots=True)
class Signature:
    """The operands of one einsum, or of one call of a function.

    Attributes:
        operands: all of them, those in collections too.
        arguments: what they are in; nothing if each is an argument by itself, given by its place.
        same: for each operand the first that is the same array; nothing if no two are.

    >>> from .arguments import Collection
    >>> square = OperandSignature(np.dtype("f4"), ("i", "i"))
    >>> print(Signature((square, square)))
    f4[i,i], f4[i,i]
    >>> print(Signature.of([square, square], [("", Collection("[]", (0, 1)))], [0, 0]))
    [f4[i,i] as x, x]
    """

    operands: tuple[OperandSignature, ...]
    arguments: tuple[Argument, ...] = ()
    same: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        operands: Sequence[OperandSignature],
        arguments: Sequence[Argument],
        same: Sequence[int],
    ) -> Signature:
        """The signature in its one form, which leaves out what goes without saying."""
        places = list(range(len(operands)))
        plain = list(arguments) == [("", number) for number in places]
        return cls(
            tuple(operands),
            () if plain else tuple(arguments),
            () if list(same) == places else tuple(same),
        )

    def filled(
        self, operands: Sequence[Any], class_of: Callable[[str], Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call with these operands, by place and by name.

        Args:
            operands: in the order of the signature.
            class_of: finds the class of a named tuple by its name.

        Raises:
            EinsumError: (a ValueError) a named tuple has other fields.
        """
        if not self.arguments:
            return list(operands), {}
        made = [(name, filled_in(node, operands, class_of)) for name, node in self.arguments]
        return [each for name, each in made if not name], {n: each for n, each in made if n}

    def __str__(self) -> str:
        shared = [number for number in dict.fromkeys(self.same) if self.same.count(number) > 1]
        names = {number: "xyz"[k] if k < 3 else f"x{k}" for k, number in enumerate(shared)}

        def operand(number: int) -> str:
            first = self.same[number] if self.same else number
            if first != number:
                return names[first]
            called = f" as {names[number]}" if number in names else ""
            return f"{self.operands[number]}{called}"

        places = [("", number) for number in range(len(self.operands))]
        return ", ".join(
            f"{name}={text_of(node, operand)}" if name else text_of(node, operand)
            for name, node in self.arguments or places
        )
