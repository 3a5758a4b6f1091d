"""Sizes that are known when an exported function is called: formulas of the extents it is given.

A size is a number, the name of an index (its extent), or one of the records here, which are made of
sizes. `evaluate` computes one with numbers; `compiler/driver/code.py` writes code that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias, Union

from ..affine import Affine
from ..records import dataclass

__all__ = ["Extreme", "Outside", "Pieces", "Size", "Sum"]
__all__ += ["evaluate", "least", "leaving", "most", "reach", "total"]


@dataclass(frozen=True, slots=True)
class Sum:
    """A number, and sizes times numbers."""

    constant: int
    terms: tuple[tuple[Size, int], ...]


@dataclass(frozen=True, slots=True)
class Pieces:
    """How many steps a size has, the last one perhaps shorter; not above 0 where it is not."""

    size: Size
    step: int


@dataclass(frozen=True, slots=True)
class Extreme:
    """The greater of two sizes, or the smaller."""

    greater: bool
    sizes: tuple[Size, Size]


@dataclass(frozen=True, slots=True)
class Outside:
    """A size, or 0 where none of the tests is below 0."""

    tests: tuple[Size, ...]
    size: Size


Size: TypeAlias = Union[int, str, Sum, Pieces, Extreme, Outside]  # noqa: UP007 (names to come)


def total(*terms: tuple[Size, int]) -> Size:
    """A sum of sizes times numbers.

    >>> total(("i", 2), (3, 1), (total(("i", 1), (1, 1)), -2))
    1
    """
    constant = 0
    found: dict[Size, int] = {}
    for size, factor in terms:
        if isinstance(size, int):
            constant += factor * size
            continue
        parts = size.terms if isinstance(size, Sum) else ((size, 1),)
        constant += factor * (size.constant if isinstance(size, Sum) else 0)
        for part, times in parts:
            found[part] = found.get(part, 0) + factor * times
    left = tuple((size, factor) for size, factor in found.items() if factor)
    if not left:
        return constant
    alone = not constant and len(left) == 1 and left[0][1] == 1
    return left[0][0] if alone else Sum(constant, left)


def most(one: Size, other: Size) -> Size:
    """The greater of two sizes."""
    return _extreme(True, one, other)


def least(one: Size, other: Size) -> Size:
    """The smaller of two sizes."""
    return _extreme(False, one, other)


def _extreme(greater: bool, one: Size, other: Size) -> Size:
    difference = total((one, 1), (other, -1))
    if isinstance(difference, int):
        return one if (difference > 0) is greater else other
    return Extreme(greater, (one, other))


def reach(axis: Affine) -> tuple[Size, Size]:
    """The least and the greatest position that is read along an axis.

    >>> low, high = reach(Affine((("y", 2), ("k", -1)), 1))
    >>> evaluate(low, {"y": 5, "k": 3}), evaluate(high, {"y": 5, "k": 3})
    (-1, 9)
    """

    def side(sign: int) -> Size:
        terms = [(name, c) for name, c in axis.terms if c * sign > 0]
        return total(*terms, (axis.constant - sum(c for _, c in terms), 1))

    return side(-1), side(1)


def evaluate(size: Size, sizes: Mapping[str, int]) -> int:
    """A size where indices have these extents."""
    match size:
        case int():
            return size
        case str():
            return sizes[size]
        case Sum(constant, terms):
            return constant + sum(factor * evaluate(part, sizes) for part, factor in terms)
        case Pieces(whole, step):
            return -(-evaluate(whole, sizes) // step)
        case Extreme(greater, (one, other)):
            pair = evaluate(one, sizes), evaluate(other, sizes)
            return max(pair) if greater else min(pair)
        case Outside(tests, inner):
            leaves = any(evaluate(test, sizes) < 0 for test in tests)
            return evaluate(inner, sizes) if leaves else 0


def leaving(low: Size, high: Size, extent: Size) -> Iterable[Size]:
    """Sizes of which one is below 0 where positions from low to high leave an axis of an extent.

    >>> list(leaving(0, total(("y", 1), (1, 1)), "h"))
    [Sum(constant=-2, terms=(('h', 1), ('y', -1)))]
    """
    for test in (low, total((extent, 1), (high, -1), (-1, 1))):
        if not isinstance(test, int) or test < 0:
            yield test
