"""Integer-affine expressions of index names: what one axis of a tensor is read at."""

from __future__ import annotations

from collections.abc import Mapping

from .records import dataclass, field

__all__ = ["Affine", "axis_index"]


def axis_index(tensor: str, axis: int) -> str:
    """The index that stands for an axis as it is, where that is no index but an affine expression.

    No index of an equation is called so, since names have no point.

    >>> axis_index("t0", 1)
    't0.1'
    """
    return f"{tensor}.{axis}"


@dataclass(frozen=True, slots=True)
class Affine:
    """The sum of `coefficient * name` over `terms`, plus `constant`.

    Terms may be given in any order and may repeat a name; they are kept merged, without zeros and
    sorted by name, so that equal expressions compare and hash equal. `names` are the index names.

    >>> axis = Affine((("k", 1), ("y", 2)), -1)
    >>> print(axis)
    2*y+k-1
    >>> axis.evaluate({"y": 3, "k": 0}), axis.names
    (5, ('k', 'y'))
    """

    terms: tuple[tuple[str, int], ...]
    constant: int = 0
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.terms) == 1 and self.terms[0][1]:  # nearly always
            object.__setattr__(self, "names", (self.terms[0][0],))
            return
        merged: dict[str, int] = {}
        for name, coefficient in self.terms:
            merged[name] = merged.get(name, 0) + coefficient
        terms = tuple(sorted((name, c) for name, c in merged.items() if c != 0))
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "names", tuple([name for name, _ in terms]))

    @classmethod
    def index(cls, name: str) -> Affine:
        """The plain index `name`.

        >>> Affine.index("i")
        Affine(terms=(('i', 1),), constant=0)
        """
        return cls(((name, 1),))

    @property
    def is_index(self) -> bool:
        """Whether this is one index and nothing else.

        >>> Affine.index("i").is_index, Affine((("i", 2),)).is_index
        (True, False)
        """
        return self.constant == 0 and len(self.terms) == 1 and self.terms[0][1] == 1

    def evaluate(self, values: Mapping[str, int]) -> int:
        """The value where each index has the value given; raises KeyError if one is missing.

        >>> Affine((("y", 1), ("k", -1))).evaluate({"y": 5, "k": 2})
        3
        """
        return self.constant + sum(c * values[name] for name, c in self.terms)

    def plus(self, constant: int) -> Affine:
        """The same with a number added.

        >>> print(Affine.index("y").plus(-1))
        y-1
        """
        return Affine(self.terms, self.constant + constant)

    def replaced(self, values: Mapping[str, Affine]) -> Affine:
        """The same with other expressions in place of some indices.

        >>> print(Affine((("y", 2), ("k", 1)), -1).replaced({"y": Affine((("y", 1),), 3)}))
        2*y+k+5
        """
        terms: list[tuple[str, int]] = []
        constant = self.constant
        for name, coefficient in self.terms:
            value = values.get(name)
            if value is None:
                terms.append((name, coefficient))
            else:
                terms += [(inner, coefficient * c) for inner, c in value.terms]
                constant += coefficient * value.constant
        return Affine(tuple(terms), constant)

    def __str__(self) -> str:
        """As it is written in an equation, the largest coefficient first."""
        parts = []
        for name, coefficient in sorted(self.terms, key=lambda term: (-term[1], term[0])):
            factor = "" if abs(coefficient) == 1 else f"{abs(coefficient)}*"
            parts.append(f"{'-' if coefficient < 0 else '+'}{factor}{name}")
        if self.constant or not parts:
            parts.append(f"{self.constant:+d}")
        return "".join(parts).removeprefix("+")
