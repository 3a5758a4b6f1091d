"""Straight code in LLVM's language, on 64-bit integers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..workspace import ALIGNMENT
from .sizes import Extreme, Outside, Pieces, Size, Sum

__all__ = ["Code", "function"]


class Code:
    """Straight code on 64-bit integers. Values are numbers or names of LLVM's."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names = 0

    def new(self, text: str) -> str:
        """A value that an instruction makes."""
        self._names += 1
        name = f"%v{self._names}"
        self.lines.append(f"{name} = {text}")
        return name

    def product(self, factors: Iterable[str | int]) -> str | int:
        """The product of values."""
        total: str | int = 1
        for factor in factors:
            if isinstance(total, int) and isinstance(factor, int):
                total *= factor
            elif factor != 1:
                total = factor if total == 1 else self.new(f"mul i64 {total}, {factor}")
        return total

    def total(self, terms: Iterable[str | int]) -> str | int:
        """The sum of values."""
        total: str | int = 0
        for term in terms:
            if isinstance(total, int) and isinstance(term, int):
                total += term
            elif term != 0:
                total = term if total == 0 else self.new(f"add i64 {total}, {term}")
        return total

    def pieces(self, extent: str | int, step: str | int) -> str | int:
        """How many steps an extent has, the last one perhaps shorter; not above 0 for none."""
        if isinstance(extent, int) and isinstance(step, int):
            return -(-extent // step)
        rounded = self.new(f"add i64 {extent}, {step}")
        less = self.new(f"sub i64 {rounded}, 1")
        return self.new(f"sdiv i64 {less}, {step}")

    def padded(self, size: str | int) -> str | int:
        """A size rounded up to whole cache lines."""
        if isinstance(size, int):
            return -(-size // ALIGNMENT) * ALIGNMENT
        more = self.new(f"add i64 {size}, {ALIGNMENT - 1}")
        return self.new(f"and i64 {more}, {-ALIGNMENT}")

    def size(self, size: Size, extent: Callable[[str], str | int]) -> str | int:
        """A formula of extents; `extent` gives the value of that of an index."""

        def value(part: Size) -> str | int:
            return self.size(part, extent)

        match size:
            case int():
                return size
            case str():
                return extent(size)
            case Sum(constant, terms):
                return self.total([constant, *(self.product([value(p), c]) for p, c in terms)])
            case Pieces(whole, step):
                return self.pieces(value(whole), step)
            case Extreme(greater, (one, other)):
                return self.extreme(greater, value(one), value(other))
            case Outside(tests, inner):
                leaves = self.leaves([value(test) for test in tests])
                return self.new(f"select i1 {leaves}, i64 {value(inner)}, i64 0")

    def extreme(self, greater: bool, one: str | int, other: str | int) -> str | int:
        """The greater of two values, or the smaller."""
        if isinstance(one, int) and isinstance(other, int):
            return max(one, other) if greater else min(one, other)
        first = self.new(f"icmp s{'g' if greater else 'l'}t i64 {one}, {other}")
        return self.new(f"select i1 {first}, i64 {one}, i64 {other}")

    def leaves(self, tests: Iterable[str | int]) -> str:
        """Whether one of some values is below 0."""
        found = "false"
        for test in tests:
            found = self.new(f"or i1 {found}, {self.new(f'icmp slt i64 {test}, 0')}")
        return found

    def load(self, kind: str, array: str, place: int) -> str:
        """An element of an array of 64-bit words."""
        return self.new(f"load {kind}, ptr {self.at(array, 8 * place)}")

    def store(self, value: str | int, array: str, place: int) -> None:
        """Write an element of an array of 64-bit words."""
        self.lines.append(f"store i64 {value}, ptr {self.at(array, 8 * place)}")

    def at(self, array: str, offset: str | int) -> str:
        """The address so many bytes behind another."""
        return self.new(f"getelementptr i8, ptr {array}, i64 {offset}")


def function(head: str, code: Code | Sequence[str]) -> str:
    """A function of which the head and the body are given."""
    lines = code.lines if isinstance(code, Code) else code
    return "\n".join([f"define {head} {{", *(f"  {line}" for line in lines), "}"])
