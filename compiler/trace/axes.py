"""Axes that are several: what is left of `(a, b)` where a reshape has made one axis of both.

An axis of a traced array consists of *atoms*, outermost first, whose extents multiply to its own:
none if it has extent 1, one if nothing was merged. An array is read at one affine expression for
each atom. Where two arrays meet whose axes are cut in different places, both are read in the finer
of the two; there is one where every cut of the one goes with those of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod

from ..affine import Affine
from ..errors import EinsumError
from ..records import dataclass, field

__all__ = ["At", "Atom", "Atoms", "axis", "coarser", "refined", "regrouped"]


@dataclass(frozen=True, slots=True)
class Atom:
    """A part of an axis, and what its index was called, if it had a name."""

    extent: int
    name: str | None = field(default=None, compare=False)


Atoms = tuple[Atom, ...]

At = tuple[Affine, ...]
"""Where an axis is read: an expression for each of its atoms."""


def axis(extent: int, name: str | None = None) -> Atoms:
    """An axis that nothing was merged into.

    >>> axis(3), axis(1)
    ((Atom(extent=3, name=None),), ())
    """
    return () if extent == 1 else (Atom(extent, name),)


def refined(several: Iterable[Atoms]) -> Atoms:
    """The coarsest atoms that all of these are made of; they are as long together.

    Raises:
        EinsumError: (a ValueError) there are none.

    >>> [atom.extent for atom in refined([axis(12), (Atom(2), Atom(6)), (Atom(4), Atom(3))])]
    [2, 2, 3]
    """
    several = [atoms for atoms in dict.fromkeys(several) if atoms]
    if not several:
        return ()
    if len(several) == 1:
        return several[0]
    total = prod(atom.extent for atom in several[0])
    names: dict[tuple[int, int], str | None] = {}
    cuts = {total}
    for atoms in several:
        inner = total
        for atom in atoms:
            outer, inner = inner, inner // atom.extent if atom.extent else 0
            cuts.add(inner)
            names.setdefault((outer, inner), atom.name)
    if not total:
        return axis(0, next((name for name in names.values() if name), None))
    edges = sorted(cuts, reverse=True)
    if any(outer % inner for outer, inner in pairwise(edges)):
        listed = " and ".join(str(tuple(atom.extent for atom in atoms)) for atoms in several)
        raise EinsumError(f"axes that were merged of {listed} cannot be walked together")
    return tuple(
        Atom(outer // inner, names.get((outer, inner))) for outer, inner in pairwise(edges)
    )


def coarser(at: At, fine: Atoms, coarse: Atoms) -> At:
    """Where coarser atoms are read, if the finer ones that they are made of are read here.

    >>> i, j = map(Affine.index, "ij")
    >>> [str(each) for each in coarser((i, j), (Atom(2), Atom(3)), axis(6))]
    ['3*i+j']
    """
    if not prod(atom.extent for atom in (*fine, *coarse)):
        empty = next(sub for sub, atom in zip(at, fine, strict=True) if not atom.extent)
        return tuple(Affine(()) if atom.extent else empty for atom in coarse)
    result, left = [], list(zip(at, fine, strict=True))
    for atom in coarse:
        total, place = Affine(()), atom.extent
        while place > 1:
            sub, part = left.pop(0)
            place //= part.extent
            total = plus(total, times(sub, place))
        result.append(total)
    return tuple(result)


def regrouped(axes: Sequence[Atoms], shape: Sequence[int]) -> tuple[Atoms, ...]:
    """The axes of another shape, made of the same atoms or of parts of them.

    Raises:
        EinsumError: (a ValueError) an atom would have to be cut where its extent does not allow.

    >>> [[atom.extent for atom in axis] for axis in regrouped([axis(4), axis(6)], (2, 12))]
    [[2], [2, 6]]
    """
    whole = tuple(atom for atoms in axes for atom in atoms)
    if not prod(shape):
        return tuple(axis(extent) for extent in shape)
    wanted = tuple(Atom(extent) for extent in shape if extent != 1)
    try:
        atoms = list(refined([whole, wanted]))
    except EinsumError:
        before = tuple(prod(atom.extent for atom in atoms) for atoms in axes)
        raise EinsumError(
            f"shape {before} cannot become {tuple(shape)} without a copy in another order: axes "
            "may be split or merged, not both at once"
        ) from None
    result = []
    for extent in shape:
        taken: list[Atom] = []
        while prod(atom.extent for atom in taken) < extent:
            taken.append(atoms.pop(0))
        result.append(tuple(taken))
    return tuple(result)


def plus(first: Affine, second: Affine) -> Affine:
    """The sum of two expressions."""
    return Affine((*first.terms, *second.terms), first.constant + second.constant)


def times(affine: Affine, factor: int) -> Affine:
    """A multiple of an expression."""
    return Affine(tuple((name, factor * c) for name, c in affine.terms), factor * affine.constant)
