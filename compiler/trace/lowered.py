"""What a node of a trace becomes, the names of its indices, and the formulas that read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, count
from math import prod
from typing import Any

import numpy as np

from ..access import Access
from ..affine import Affine
from ..formula import CONTRACTED, Apply, Read, Value, replaced
from ..records import dataclass
from .axes import At, Atom, Atoms

__all__ = [
    "BOOL",
    "ZERO",
    "Indices",
    "Lowered",
    "element",
    "mapped",
    "number_in_python",
    "product",
    "without",
]

BOOL = np.dtype(bool)
ZERO: At = (Affine(()),)
"""Where an axis of extent 1 is read."""

_LETTERS = "ijklmnopqrstuvwxyzabcdefgh"


@dataclass(frozen=True, slots=True)
class Lowered:
    """What a node is.

    Attributes:
        dtype: of the elements.
        axes: its axes' atoms.
        at: the formula of an element, by where each axis is read.
        computes: the dtype that the formula computes in; None if it only reads.
        is_tensor: whether it is a whole tensor, each axis of which is one of its own.
    """

    dtype: np.dtype[Any]
    axes: tuple[Atoms, ...]
    at: Callable[[Sequence[At]], Value]
    computes: np.dtype[Any] | None = None
    is_tensor: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents of its axes."""
        return tuple(prod(atom.extent for atom in atoms) for atoms in self.axes)


class Indices:
    """Names for the indices of one statement.

    An index of the same name has the same extent everywhere in a program.
    """

    def __init__(self, extents: dict[str, int]) -> None:
        self._extents = extents
        self._used: set[str] = set()

    def new(self, atoms: Atoms) -> At:
        """Indices of these extents, with the atoms' names if they are free."""
        return tuple(Affine.index(self._name(atom)) for atom in atoms)

    def _name(self, atom: Atom) -> str:
        numbered = (f"{atom.name or letter}{n}" for n in count(1) for letter in _LETTERS)
        for name in chain([atom.name] if atom.name else _LETTERS, numbered):
            if name in self._used or self._extents.get(name, atom.extent) != atom.extent:
                continue
            self._used.add(name)
            self._extents[name] = atom.extent
            return name
        raise AssertionError


def product(value: Value) -> tuple[Access, ...] | None:
    """The tensors whose product a formula is; None if it is anything else."""
    match value:
        case Read(access):
            return (access,)
        case Apply("multiply", (first, second)):
            left, right = product(first), product(second)
            return None if left is None or right is None else (*left, *right)
    return None


def without(value: Value, main: Access) -> Value:
    """A formula in which the sum takes the place of a tensor."""
    return mapped(value, lambda access: CONTRACTED if access == main else Read(access))


def mapped(value: Value, change: Callable[[Access], Value]) -> Value:
    """A formula with something else in place of each tensor that it reads."""
    return replaced(value, lambda leaf: change(leaf.access) if isinstance(leaf, Read) else leaf)


def number_in_python(number: Any) -> Any:
    """A number as Python has it."""
    return number.item() if isinstance(number, np.generic) else number


def element(dtype: np.dtype[Any], wide: bool = False) -> str:
    """What kernels call a dtype; sums of halves are kept in single precision."""
    if wide and dtype == np.float16:
        return "f4"
    return f"{dtype.kind}{dtype.itemsize}"
