"""Split a product of many factors into steps, along a contraction path.

    out[i,l] = sum_{j,k} a[i,j] * b[j,k] * c[k,l]

along the path `[(0, 1), (0, 1)]` becomes

    t0[i,k] = sum_j a[i,j] * b[j,k]
    out[i,l] = sum_k t0[i,k] * c[k,l]

A path is a list of contractions, each the positions of the factors that it takes from the list of
those that are left; its result goes to the end of that list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from .affine import Affine, axis_index
from .errors import EinsumError
from .paths import Path
from .program import Access, Program, Statement
from .records import dataclass, replace

__all__ = ["follow"]


def follow(program: Program, path: Path) -> Program:
    """Split the last statement of a program along a path; raises EinsumError if it does not fit.

    A contraction keeps the indices that are needed later. They are ordered for the steps that write
    and read it: first those that are a batch's for the step that reads it (each of its factors has
    them, and it sums others), then those that several factors of the step that writes it have, then
    those of one factor after the other, and last the index along which the elements of the whole
    program's result are neighbours, unless it is one of the first.

    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("bij,bjk,bk->bi"), [(2, 3, 4), (2, 4, 5), (2, 5)]))
    >>> print(follow(program, ((1, 2), (0, 1))))
    t0[b,j] = sum_k b[b,j,k] * c[b,k]
    out[b,i] = sum_j a[b,i,j] * t0[b,j]
    """
    *before, statement = program.statements
    _check(path, len(statement.factors))
    if not path:
        return program
    contractions = _contractions(statement, path, program.shapes, program.sizes)
    fresh: dict[str, int] = {}  # extents of indices that stand for an affine axis
    made: list[Access] = []
    readers = {f: c for c in contractions for _, f in c.taken if isinstance(f, int)}
    steps = []
    for name, contraction in zip(program.fresh_names(), contractions, strict=False):
        stand_ins = {}
        for number, (axis, extent) in enumerate(contraction.whole.items()):
            index = axis_index(name, number)
            stand_ins[axis], fresh[index] = Affine.index(index), extent
        product = tuple(
            _standing_in(made[f] if isinstance(f, int) else f, stand_ins)
            for _, f in contraction.taken
        )
        if contraction is contractions[-1]:
            steps.append(replace(statement, factors=product))
        else:
            kept = _ordered(contraction, readers[len(made)], statement.kept[-1:])
            made.append(Access(name, tuple(kept)))
            steps.append(Statement(_standing_in(made[-1], stand_ins), product))
    program = replace(program, extents=(*program.extents, *fresh.items()))
    return program.with_statements([*before, *steps])


def _standing_in(access: Access, stand_ins: Mapping[Affine, Affine]) -> Access:
    """An access with other axes in place of some."""
    if not stand_ins:
        return access
    return Access(access.tensor, tuple(stand_ins.get(axis, axis) for axis in access.subscripts))


@dataclass(frozen=True, slots=True)
class _Contraction:
    """A step before its result has axes.

    An axis is an index; or an affine axis that is *whole*: it goes into the step's result as it is,
    and is read there as it would have been here. With `c` summed first, `sum_c a[c,y+k] * w[c,r]`
    is `t0[r,Y]`, which is read as `t0[r,y+k]`, instead of a `t0[r,y,k]` with all windows unfolded.

    Attributes:
        taken: the factors, those that earlier steps make by their numbers; each with the first of
            the operands in it, by which they are sorted: steps read from left to right as the
            equation does.
        kept: the axes of its result.
        shared: how many of the factors have each axis.
        whole: the axes that are whole, and their extents.
    """

    taken: tuple[tuple[int, Access | int], ...]
    kept: tuple[Affine, ...]
    shared: Counter[Affine]
    whole: Mapping[Affine, int]


@dataclass(frozen=True, slots=True)
class _Part:
    """A factor that is left, with its axes and their extents; see `_Contraction.taken`."""

    place: int
    source: Access | int
    axes: tuple[Affine, ...]
    extents: tuple[int, ...]

    @property
    def names(self) -> set[str]:
        return {name for axis in self.axes for name in axis.names}


def _contractions(
    statement: Statement,
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
) -> list[_Contraction]:
    """The steps of a path, the last one keeping what the statement's epilogue needs."""
    needed = [index for index in statement.indices if index not in statement.contracted]
    left = [
        _Part(place, factor, factor.subscripts, shapes[factor.tensor])
        for place, factor in enumerate(statement.factors)
    ]
    uses = Counter(index for factor in statement.factors for index in factor.names)
    uses.update(needed)
    found: list[_Contraction] = []
    for positions in path:
        taken = sorted((left[position] for position in positions), key=lambda part: part.place)
        for position in sorted(positions, reverse=True):
            del left[position]
        uses.subtract(index for part in taken for index in part.names)
        is_last = len(found) == len(path) - 1
        whole = {} if is_last else _whole_axes(taken, uses, sizes)
        shared = Counter(axis for part in taken for axis in dict.fromkeys(_split(part.axes, whole)))
        kept = tuple(axis for axis in shared if axis in whole or uses[axis.names[0]])
        uses.update({name for axis in kept for name in axis.names})
        extents = tuple(whole[axis] if axis in whole else sizes[axis.names[0]] for axis in kept)
        left.append(_Part(taken[0].place, len(found), kept, extents))
        sources = tuple((part.place, part.source) for part in taken)
        found.append(_Contraction(sources, kept, shared, whole))
    return found


def _split(axes: Iterable[Affine], whole: Mapping[Affine, int]) -> Iterable[Affine]:
    """The axes that are whole, and the indices of all others."""
    for axis in axes:
        if axis in whole:
            yield axis
        else:
            yield from map(Affine.index, axis.names)


def _whole_axes(
    parts: Sequence[_Part], uses: Mapping[str, int], sizes: Mapping[str, int]
) -> dict[Affine, int]:
    """The affine axes that a step leaves alone, and their extents.

    Nothing else in the step has their indices, and some later one needs them. An axis of which only
    some positions are read, as by a stride that is longer than the window, is better cut to those.
    """
    users = Counter(name for part in parts for axis in part.axes for name in axis.names)
    return {
        axis: extent
        for part in parts
        for axis, extent in zip(part.axes, part.extents, strict=True)
        if not axis.is_index
        and all(users[name] == 1 for name in axis.names)
        and any(uses[name] for name in axis.names)
        and extent < prod(sizes[name] for name in axis.names)
    }


def _ordered(step: _Contraction, reader: _Contraction, unit: Sequence[str]) -> list[Affine]:
    """The axes that a step keeps, in the order of its result's."""
    sums = reader.shared.keys() - {*reader.kept}
    batch = {i for i in reader.kept if sums and reader.shared[i] == len(reader.taken)}
    own = any(step.shared[axis] == 1 for axis in step.kept)

    def key(axis: Affine) -> tuple[bool, bool, bool]:
        alone = step.shared[axis] == 1
        is_last = not {*unit}.isdisjoint(axis.names) and axis not in batch and (alone or not own)
        return axis not in batch, is_last, alone

    return sorted(step.kept, key=key)


def _check(path: Path, factors: int) -> None:
    """Raise EinsumError if a path does not contract so many factors to one."""
    left = factors
    for step in path:
        if not step or len({*step}) < len(step) or not 0 <= min(step) <= max(step) < left:
            operands = "1 operand is" if left == 1 else f"{left} operands are"
            raise EinsumError(f"invalid path {list(path)}: at step {step}, {operands} left")
        left += 1 - len(step)
    if left > 1:
        raise EinsumError(f"invalid path {list(path)}: it leaves {left} operands uncontracted")
