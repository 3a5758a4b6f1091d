"""Windows of an exported einsum: statements that stay inside of their tensors, whatever extents.

An equation that Python calls is cut into boxes by its extents (`compiler/regions.py`). Those of an
exported one are not known before it is called, so it is made of steps that are right for any.

A tensor that is read beyond its ends is copied, with zeros around it:

    out[y] = sum_k a[y+k-1] * b[k]      ->      t0[t0.0] = 0
                                                t0[t0.0+1] = a[t0.0]
                                                out[y] = sum_k t0[y+k] * b[k]

The first two have no tiles in a call whose windows all lie inside, and `a` is then read where it
is. A sum into an affine axis is turned round, so that every element is written by one sum:

    out[2*y+k] = a[y] * b[k]            ->      out[2*y'0] = sum_k'0 a[y'0-k'0] * b[2*k'0]
                                                out[2*y'1+1] = sum_k'1 a[y'1-k'1] * b[2*k'1+1]

What is beyond the ends of `a` and of `b` is zero again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, product
from math import gcd

from ..access import Access
from ..affine import Affine
from ..errors import EinsumError
from ..inside import ZERO
from ..program import Program, Statement
from ..records import dataclass, replace
from .sizes import Outside, Pieces, Size, least, leaving, most, reach, total

__all__ = ["Steps", "View", "steps_of"]


@dataclass(frozen=True, slots=True)
class View:
    """Another name for a tensor.

    Attributes:
        tensor: what it is a view of.
        origin: where in that it begins.
        inside: what is read in its place if none of the `tests` is below 0; "" if nothing is.
        tests: sizes.
    """

    tensor: str
    origin: tuple[Size, ...]
    inside: str = ""
    tests: tuple[Size, ...] = ()


@dataclass(frozen=True, slots=True)
class Steps:
    """Statements for any extents.

    Attributes:
        statements: in the order of execution.
        shapes: of every tensor but views.
        sizes: the extents of indices that are not given.
        views: by name.
    """

    statements: tuple[Statement, ...]
    shapes: Mapping[str, tuple[Size, ...]]
    sizes: Mapping[str, Size]
    views: Mapping[str, View]


def steps_of(
    program: Program, shapes: Mapping[str, tuple[Size, ...]], sizes: Mapping[str, Size]
) -> Steps:
    """The steps of a program.

    Args:
        program: with extents that are typical.
        shapes: of what is given, and of the result.
        sizes: the extents of indices that are not given.

    Raises:
        EinsumError: (a ValueError) values meet in elements of the result in a way that cannot be
            turned round.
    """
    made = _Made(program, shapes, sizes)
    for statement in program.statements:
        made.add(statement)
    return made.steps()


class _Made:
    """The steps that were made so far."""

    def __init__(
        self, program: Program, shapes: Mapping[str, tuple[Size, ...]], sizes: Mapping[str, Size]
    ) -> None:
        self.names = program.fresh_names()
        self.typical = program.sizes
        self.statements: list[Statement] = []
        self.shapes, self.sizes = dict(shapes), dict(sizes)
        self.views: dict[str, View] = {}

    def add(self, statement: Statement) -> None:
        target = statement.target
        if target.is_plain:
            self.statements.append(statement)
            self.shapes.setdefault(target.tensor, target.names)
            return
        if len({*target.names}) < sum(len(axis.names) for axis in target.subscripts):
            raise _not_exported(statement, "two of its axes have an index in common")
        parts, complete = [statement], True
        for place, axis in enumerate(target.subscripts):
            if not axis.is_index:
                pivot, starts = self._pivot(statement, axis)
                parts = [new for part in parts for new in self._turned(part, place, pivot, starts)]
                complete &= len(starts) == abs(dict(axis.terms)[pivot])
        if not complete:
            self.statements.append(self._zero(target.tensor))
        self.statements += parts

    def _zero(self, tensor: str) -> Statement:
        """What sets a tensor to zero."""
        names = [f"{tensor}.zero{n}" for n in range(len(self.shapes[tensor]))]
        self.sizes |= dict(zip(names, self.shapes[tensor], strict=True))
        return Statement(Access(tensor, tuple(map(Affine.index, names))), (Access(ZERO, ()),))

    # Sums into affine axes

    def _turned(
        self, statement: Statement, place: int, pivot: str, starts: Mapping[int, dict[str, int]]
    ) -> list[Statement]:
        """A statement for each remainder of positions along an axis of the target.

        With the axis s*v + c*u + C, the element at s*V + r gets the values of all u and v for which
        v = V + (r - C - c*u) / s is a whole number: those of every (s / gcd(s, c))-th u.
        """
        target = statement.target
        axis, extent = target.subscripts[place], self.shapes[target.tensor][place]
        step = dict(axis.terms)[pivot]
        s, sign = abs(step), 1 if step > 0 else -1
        found = []
        for r, start in starts.items():
            name = f"{pivot}'{r}"
            self._index(name, most(0, Pieces(total((extent, 1), (-r, 1)), s)), pivot)
            values: dict[str, Affine] = {}
            terms = [(name, sign)]
            for u, t in start.items():
                c, p, inner = dict(axis.terms)[u], _period(axis, pivot, u), u
                if p > 1:
                    inner = f"{u}'{t}"
                    self._index(inner, most(1, Pieces(total((u, 1), (-t, 1)), p)), u)
                    values[u] = Affine(((inner, p),), t)
                terms.append((inner, -sign * (c * p // s)))
            constant = (r - axis.evaluate({pivot: 0, **start})) // s
            values[pivot] = Affine(tuple(terms), sign * constant)
            axes = list(target.subscripts)
            axes[place] = Affine(((name, s),), r)
            factors = tuple(factor.replaced(values) for factor in statement.factors)
            found.append(Statement(Access(target.tensor, tuple(axes)), factors))
        return found

    def _pivot(self, statement: Statement, axis: Affine) -> tuple[str, dict[int, dict[str, int]]]:
        """The index of an axis of the target that is found from the others, and where they begin.

        That is said for each remainder of the positions that anything is added to. What is beyond
        the end of an index has to be zero, and so it has to be an axis of a factor.
        """
        plain = {a.names[0] for f in statement.factors for a in f.subscripts if a.is_index}
        steps = dict(axis.terms)
        for pivot in sorted(
            plain.intersection(steps), key=lambda n: (-abs(steps[n]), -self.typical[n], n)
        ):
            periods = {u: _period(axis, pivot, u) for u in steps if u != pivot}
            if any(p > 1 and u not in plain for u, p in periods.items()):
                continue
            s = abs(steps[pivot])
            starts: dict[int, list[dict[str, int]]] = {}
            for start in product(*map(range, periods.values())):
                named = dict(zip(periods, start, strict=True))
                starts.setdefault(axis.evaluate({pivot: 0, **named}) % s, []).append(named)
            if all(len(those) == 1 for those in starts.values()):
                return pivot, {r: starts[r][0] for r in sorted(starts)}
        raise _not_exported(statement, f"sums cannot be taken apart that meet in {axis}")

    def _index(self, name: str, size: Size, like: str) -> None:
        self.sizes[name] = size
        self.typical[name] = self.typical[like]

    # Reads beyond the ends

    def steps(self) -> Steps:
        """All statements, with copies before what reads them."""
        reads: dict[str, list[Access]] = {}
        for statement in self.statements:
            for factor in statement.factors:
                if not self._stays(factor):
                    reads.setdefault(factor.tensor, []).append(factor)
        copied: dict[str, str] = {}
        statements: list[Statement] = []
        for statement in self.statements:
            factors = []
            for factor in statement.factors:
                if not self._stays(factor):
                    if factor.tensor not in copied:
                        copied[factor.tensor], copies = self._copied(reads[factor.tensor])
                        statements += copies
                    factor = replace(factor, tensor=copied[factor.tensor])
                factors.append(factor)
            statements.append(replace(statement, factors=tuple(factors)))
        return Steps(tuple(statements), self.shapes, self.sizes, self.views)

    def _copied(self, reads: Sequence[Access]) -> tuple[str, list[Statement]]:
        """What is to be read in place of a tensor, and what makes the copy, if one may be needed.

        All of `reads` get the same copy, which is as large as the farthest of them.
        """
        tensor = reads[0].tensor
        shape = self.shapes[tensor]
        ends = [
            self._ends([read.subscripts[n] for read in reads], size) for n, size in enumerate(shape)
        ]
        tests = [leaving(low, high, n) for (low, high), n in zip(ends, shape, strict=True)]
        needed = tuple(dict.fromkeys(chain.from_iterable(tests)))
        if not needed:
            return tensor, []
        copy = next(self.names)
        self.shapes[copy] = tuple(total((high, 1), (low, -1), (1, 1)) for low, high in ends)
        self.shapes[copy] = (Outside(needed, self.shapes[copy][0]), *self.shapes[copy][1:])
        # The middle is what the tensor has of all that is read.
        first = [most(0, low) for low, _ in ends]
        counts = [
            most(0, total((least(total((high, 1), (1, 1)), n), 1), (begin, -1)))
            for (_, high), n, begin in zip(ends, shape, first, strict=True)
        ]
        counts[0] = Outside(needed, counts[0])
        names = [f"{copy}.middle{n}" for n in range(len(shape))]
        self.sizes |= dict(zip(names, counts, strict=True))
        middle, source, read = f"{copy}.middle", f"{copy}.source", f"{copy}.read"
        lows = [low for low, _ in ends]
        ahead = [total((begin, 1), (low, -1)) for begin, low in zip(first, lows, strict=True)]
        self.views[middle] = View(copy, tuple(ahead))
        self.views[source] = View(tensor, tuple(first))
        self.views[read] = View(copy, tuple(total((low, -1)) for low in lows), tensor, needed)
        axes = tuple(map(Affine.index, names))
        moved = Statement(Access(middle, axes), (Access(source, axes),))
        return read, [self._zero(copy), moved]

    def _stays(self, access: Access) -> bool:
        """Whether each axis is read at an index of its extent, or at the one position it has."""
        shape = self.shapes.get(access.tensor, ())  # the tensor that is zero has no axes
        return all(map(self._is_whole, access.subscripts, shape))

    def _is_whole(self, axis: Affine, extent: Size) -> bool:
        """Whether an axis is read from its first element to its last, whatever extents are.

        An index may have another extent than the axis it is read at: where a sum into `2*y+1` is
        turned round, `a[y]` is read at an index that counts elements of the output.
        """
        if axis.is_index:
            name = axis.names[0]
            return self.sizes.get(name, name) == extent
        return axis == Affine(())

    def _ends(self, axes: Sequence[Affine], extent: Size) -> tuple[Size, Size]:
        """The least and the greatest position of an axis that is read."""
        ends = [
            (0, total((extent, 1), (-1, 1))) if self._is_whole(axis, extent) else reach(axis)
            for axis in dict.fromkeys(axes)
        ]
        low, high = ends[0]
        for begin, end in ends[1:]:
            low, high = least(low, begin), most(high, end)
        return low, high


def _period(axis: Affine, pivot: str, index: str) -> int:
    """Every so-manieth position of an index meets the same remainder of those of the pivot."""
    step = abs(dict(axis.terms)[pivot])
    return step // gcd(step, dict(axis.terms)[index])


def _not_exported(statement: Statement, why: str) -> EinsumError:
    return EinsumError(f"the output {statement.target} cannot be exported: {why}")
