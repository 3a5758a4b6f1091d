"""Axis order: every intermediate lies in memory as the steps that write and read it like best.

Before, each step reading what the one before it wrote::

    t1[c,g,i,j,e,d] = sum_{h,l} ..
    t2[a,f,c,g,j,d] = sum_{e,i} x[a,e,f,i] * t1[c,g,i,j,e,d]
    out[a,b,c,d] = sum_{f,g,j} t2[a,f,c,g,j,d] * y[b,f,g,j]

after::

    t1[e,i,g,j,c,d] = sum_{h,l} ..
    t2[f,g,j,a,c,d] = sum_{e,i} x[a,e,f,i] * t1[e,i,g,j,c,d]
    out[a,b,c,d] = sum_{f,g,j} t2[f,g,j,a,c,d] * y[b,f,g,j]

Now `f,g,j` are one index, and `c,d` another, so that panels are copied and tiles written in runs of
400 elements instead of 20. The last step's wishes come first, since its result's order is given;
then those of the step that writes what it reads, and so on. A few orders are tried for each
intermediate: what its writer has side by side, or what its reader has. Predicted time decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import prod

from .access import Access
from .anonymous import form_of
from .cost import statement_cost
from .geometry import Geometry
from .machine import Machine
from .program import Program, Statement, Tensor
from .records import dataclass, replace
from .runs import packed_cycles
from .symmetry import gram_swap

__all__ = ["with_ordered_axes"]

LEAST = 1 << 14
"""Elements of an intermediate from which on its order is worth thinking about."""

SHARE = 0.01
"""Of the whole program's predicted time: what an order could save at least."""

AN_ELEMENT = 4e-9
"""Seconds that a bad order may cost for each element."""

GAIN = 0.97
"""Of the time with the order as it was: what another one has to be predicted at most."""

_Strides = Mapping[str, Sequence[int]]
_Order = tuple[int, ...]


def with_ordered_axes(
    program: Program,
    geometry: Callable[[Statement, _Strides], Geometry],
    element: str,
    machine: Machine,
) -> Program:
    """The program with the axes of its intermediates in other orders, where that is faster.

    Args:
        program: the steps.
        geometry: gives a statement's sizes and strides, given the strides in elements of those
            tensors that do not lie as they were.
        element: the accumulator's type.
        machine: what it is to be fast on.
    """
    search = _Search(program, geometry, element, machine)
    names = search.worthwhile()
    if not names:
        return program
    before = search.seconds()
    undecided = {*names}
    for name in names:
        undecided.discard(name)
        search.improve(name, undecided)
    for name in names:
        search.improve(name, ())
    if search.seconds() > GAIN * before:
        return program
    orders = {name: order for name, order in search.orders.items() if list(order) != sorted(order)}
    return _permuted(program, orders)


def _permuted(program: Program, orders: Mapping[str, _Order]) -> Program:
    """The program with axes in other orders: each is the old positions of the new axes."""

    def access(old: Access) -> Access:
        order = orders.get(old.tensor)
        if order is None:
            return old
        return Access(old.tensor, tuple(old.subscripts[axis] for axis in order))

    def tensor(old: Tensor) -> Tensor:
        order = orders.get(old.name)
        return old if order is None else replace(old, axes=tuple(old.axes[axis] for axis in order))

    return replace(
        program,
        tensors=tuple(map(tensor, program.tensors)),
        statements=tuple(statement.with_accesses(access) for statement in program.statements),
    )


@dataclass(slots=True)
class _Uses:
    """The statements that a tensor is written and read by, and where."""

    writer: int
    readers: list[int]


class _Search:
    """The orders found so far, and what steps cost with them."""

    def __init__(
        self,
        program: Program,
        geometry: Callable[[Statement, _Strides], Geometry],
        element: str,
        machine: Machine,
    ) -> None:
        self.program, self.geometry = program, geometry
        self.element, self.machine = element, machine
        self.sizes, self.shapes = program.sizes, program.shapes
        self.orders: dict[str, _Order] = {}

    def worthwhile(self) -> list[str]:
        """The intermediates whose order may matter, the last one first."""
        statements = self.program.statements
        costs = [self._plain(statement) for statement in statements]
        least = max(LEAST, SHARE * sum(costs) / AN_ELEMENT)
        self.uses: dict[str, _Uses] = {}
        fixed = {*self.program.inputs, *self.program.results}
        for number, statement in enumerate(statements):
            read = Counter(access.tensor for access in statement.accesses)
            fixed.update(name for name, times in read.items() if times > 1)
            for name in read:
                if name in self.uses:
                    self.uses[name].readers.append(number)
            target = statement.target
            if not target.is_plain or gram_swap(statement) is not None:
                fixed.add(target.tensor)
            self.uses[target.tensor] = _Uses(number, [])
        found = [n for n in self.uses if n not in fixed and prod(self.shapes[n]) >= least]
        for name in found:
            self.orders[name] = tuple(range(len(self.shapes[name])))
        return [name for name in reversed(found) if len(self.shapes[name]) > 1]

    def _plain(self, statement: Statement) -> float:
        return statement_cost(statement, self.sizes, self.element, self.machine).seconds

    def seconds(self) -> float:
        """Of all steps that an order matters to."""
        used = {
            n for name in self.orders for n in (self.uses[name].writer, *self.uses[name].readers)
        }
        return sum(self._seconds(number, ()) for number in sorted(used))

    def improve(self, name: str, undecided: Collection[str]) -> None:
        """Give a tensor the order that is best for its writer and its readers."""
        uses = self.uses[name]
        best, chosen = float("inf"), self.orders[name]
        for order in dict.fromkeys((chosen, *self._candidates(name))):
            self.orders[name] = order
            seconds = sum(self._seconds(n, undecided) for n in (uses.writer, *uses.readers))
            if seconds < (GAIN if best < float("inf") else 1) * best:
                best, chosen = seconds, order
        self.orders[name] = chosen

    def _seconds(self, number: int, undecided: Collection[str]) -> float:
        """What a step takes; but for panels of what has no order yet."""
        statement = self.program.statements[number].with_accesses(self._access)
        moved = {}
        for access in (*statement.accesses, statement.target):
            if access.tensor in self.orders:
                order, shape = self.orders[access.tensor], self.shapes[access.tensor]
                stride, strides = 1, []
                for axis in reversed(order):
                    strides.append(stride)
                    stride *= shape[axis]
                moved[access.tensor] = strides[::-1]
        form = form_of(self.geometry(statement, moved), self.machine)
        ignored = [n for n, f in enumerate(statement.factors) if f.tensor in undecided]
        pieces = packed_cycles(form.numbered_step, form.numbered_choice, self.machine, ignored)
        cost = statement_cost(statement, self.sizes, self.element, self.machine, pieces=pieces)
        return cost.seconds

    def _access(self, access: Access) -> Access:
        order = self.orders.get(access.tensor)
        if order is None:
            return access
        return Access(access.tensor, tuple(access.subscripts[axis] for axis in order))

    def _candidates(self, name: str) -> Iterator[_Order]:
        """Orders that one of the steps would like, as positions of axes."""
        uses = self.uses[name]
        for number in (*uses.readers, uses.writer):
            statement = self.program.statements[number].with_accesses(self._access)
            at = next(
                each for each in (statement.target, *statement.accesses) if each.tensor == name
            )
            current = self.orders[name]
            names = {
                axis: next(iter(subscript.names), "")
                for axis, subscript in zip(current, at.subscripts, strict=True)
            }
            groups = _groups(statement, at, names)
            batch, *sides = groups
            for order in (sides, sides[::-1]):
                yield tuple(axis for group in (batch, *order) for axis in group)


def _groups(
    statement: Statement, at: Access, names: Mapping[int, str]
) -> tuple[list[int], list[int], list[int]]:
    """The axes of a tensor in a step's groups: batch and two sides, each in the order of the other
    tensor that has it.

    For a target the sides are the first factor's and the others'; for a factor they are what is
    summed and what is kept.
    """
    others = [f for f in statement.factors if f.tensor != at.tensor]
    kept = {*statement.kept}
    batch: list[int] = []
    sides: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for axis, name in names.items():
        having = [f for f in others if name in f.names]
        if at is statement.target:
            if len(having) != 1:
                batch.append(axis)
                continue
            side, place = having[0] is not others[0], having[0].names.index(name)
        elif having and name in kept:
            batch.append(axis)
            continue
        elif name in kept:
            side, place = True, statement.kept.index(name)
        else:
            side, place = False, having[0].names.index(name) if having else 0
        sides[side].append((place, axis))
    first, second = ([axis for _, axis in sorted(side)] for side in sides)
    return batch, first, second
