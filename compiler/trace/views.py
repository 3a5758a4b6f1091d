"""Views: what only changes where an array is read. Nothing is written for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from math import prod
from typing import Any

from ..affine import Affine
from ..errors import EinsumError
from ..formula import Value
from ..records import replace
from .axes import At, Atoms, axis, coarser, plus, refined, regrouped, times
from .graph import Diagonal, Slice, positions, sizes
from .lowered import Lowered
from .number import Shapes
from .writer import Writer

__all__ = ["broadcast", "diagonal", "index", "read", "reshaped", "together", "transposed"]


def transposed(value: Lowered, axes: Sequence[int]) -> Lowered:
    """The same with its axes in another order."""

    def at(places: Sequence[At]) -> Value:
        return value.at([places[axes.index(n)] for n in range(len(axes))])

    return replace(value, axes=tuple(value.axes[n] for n in axes), at=at)


def reshaped(value: Lowered, shape: Sequence[int]) -> Lowered:
    """The same elements as an array of another shape."""
    axes = regrouped(value.axes, shape)
    fine = tuple(chain.from_iterable(axes))
    coarse = tuple(chain.from_iterable(value.axes))

    def at(places: Sequence[At]) -> Value:
        subs = iter(coarser(tuple(chain.from_iterable(places)), fine, coarse))
        return value.at([tuple(next(subs) for _ in atoms) for atoms in value.axes])

    return Lowered(value.dtype, axes, at, value.computes)


def broadcast(value: Lowered, shape: Sequence[int]) -> Lowered:
    """The same, repeated along new axes and those of extent 1."""
    new = len(shape) - len(value.axes)
    axes = tuple(
        value.axes[n - new] if n >= new and value.axes[n - new] else axis(extent)
        for n, extent in enumerate(shape)
    )
    return Lowered(value.dtype, axes, lambda places: read(value, places, axes), value.computes)


def together(values: Sequence[Lowered], rank: int) -> tuple[Atoms, ...]:
    """The axes of an array of so many axes to which these broadcast."""
    return tuple(
        refined(value.axes[-place] for value in values if place <= len(value.axes))
        for place in range(rank, 0, -1)
    )


def read(value: Lowered, places: Sequence[At], axes: Sequence[Atoms]) -> Value:
    """An element of a value that broadcasts to these axes."""
    new = len(axes) - len(value.axes)
    return value.at(
        [
            coarser(place, fine, coarse) if coarse else ()
            for place, fine, coarse in zip(places[new:], axes[new:], value.axes, strict=True)
        ]
    )


def diagonal(writer: Writer, value: Lowered, operation: Diagonal) -> Lowered:
    """The diagonal of two axes, as the last one: that of a copy if one was merged of several."""
    first, second, offset = operation.first, operation.second, operation.offset
    shape = value.shape
    rows, columns = shape[first], shape[second]
    length = min(rows + min(offset, 0), columns - max(offset, 0))
    rest = [n for n in range(len(shape)) if n not in (first, second)]
    if length > 0 and max(len(value.axes[first]), len(value.axes[second])) > 1:
        value = writer.framed(value)

    def at(places: Sequence[At]) -> Value:
        full: list[At] = [()] * len(shape)
        for n, place in zip(rest, places, strict=False):
            full[n] = place
        for n, begin in ((first, max(-offset, 0)), (second, max(offset, 0))):
            full[n] = _one_place(places[-1], begin, 1, value.axes[n])
        return value.at(full)

    axes = (*(value.axes[n] for n in rest), axis(max(length, 0)))
    return Lowered(value.dtype, axes, at, value.computes)


def index(value: Lowered, items: Sequence[Any], known: Shapes) -> Lowered:
    """What slices, positions and new axes leave of an array."""
    axes: list[Atoms] = []
    reads: list[Callable[[Sequence[At]], At]] = []
    left = iter(value.axes)
    for item in items:
        if item is None:
            axes.append(())
            continue
        atoms = next(left)
        extent = prod(atom.extent for atom in atoms)
        if isinstance(item, Slice):
            made, read = _slice(positions(item, extent, known), atoms, len(axes))
            axes.append(made)
            reads.append(read)
        else:
            fixed = _fixed(sizes((item,), known)[0] % extent, atoms)
            reads.append(lambda places, fixed=fixed: fixed)  # type: ignore[misc]

    def at(places: Sequence[At]) -> Value:
        return value.at([read(places) for read in reads])

    return Lowered(value.dtype, tuple(axes), at, value.computes)


def _slice(part: range, atoms: Atoms, number: int) -> tuple[Atoms, Callable[[Sequence[At]], At]]:
    """The atoms of a slice that is axis `number` of its array, and where it is read."""
    if part == range(prod(atom.extent for atom in atoms)):
        return atoms, lambda places: places[number]
    if len(part) == 1:
        fixed = _fixed(part[0], atoms)
        return (), lambda places: fixed
    if len(atoms) > 1 and part == range(prod(atom.extent for atom in atoms))[::-1]:
        return atoms, lambda places: _reversed(places[number], atoms)
    if len(atoms) > 1 and len(part):
        raise EinsumError("a part of an axis that was merged of several cannot be taken")
    name = atoms[0].name if len(atoms) == 1 else None
    begin, step = (part.start, part.step) if len(part) else (0, 1)
    return axis(len(part), name), lambda places: _one_place(places[number], begin, step, atoms)


def _one_place(place: At, begin: int, step: int, atoms: Atoms) -> At:
    """Where an axis is read at a multiple of another one, from a position on."""
    if not place:
        return _fixed(begin, atoms)
    if len(atoms) != 1:  # nothing is read: the other axis is empty
        return tuple(place[0] if n == 0 else Affine(()) for n, _ in enumerate(atoms))
    return (plus(Affine((), begin), times(place[0], step)),)


def _reversed(place: At, atoms: Atoms) -> At:
    """Where an axis is read that is walked backwards: so are all its atoms."""
    return tuple(
        plus(Affine((), atom.extent - 1), times(sub, -1))
        for sub, atom in zip(place, atoms, strict=True)
    )


def _fixed(position: int, atoms: Atoms) -> At:
    """One position of an axis."""
    subs: list[Affine] = []
    for atom in reversed(atoms):
        position, place = divmod(position, atom.extent)
        subs.insert(0, Affine((), place))
    return tuple(subs)
