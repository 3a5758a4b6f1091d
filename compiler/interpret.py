"""An interpreter for loop nests: slow, and obviously right.

It runs a nest at any stage of the passes, one element at a time, on Python integers and NumPy
scalars. Tests compare it with ``np.einsum`` after every pass, and kernels with it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from math import prod
from operator import mul
from typing import Any

import numpy as np

from .affine import Affine
from .finish import finished
from .frames import AXES, HEAD, PHASE
from .loopnest import (
    Assign,
    Fill,
    Loop,
    Nest,
    Ref,
    Scope,
    Statement,
    Tabulate,
    Term,
    Tiles,
    Write,
)
from .records import dataclass, field


@dataclass(frozen=True)
class Binding:
    """What a nest's parameters stand for in one call.

    ``members`` gives each group's indices' extents; ``strides`` each tensor's strides (elements) in
    the order of the group's members; ``blocks`` the block sizes. ``memory`` holds each tensor as a
    flat array with the position in it of the element at index zero. ``numbers`` are a formula's,
    ``frame`` and ``taps`` describe frames (see :mod:`.frames`); before these are made, a nest that
    has them cannot be executed.
    """

    members: Mapping[str, Sequence[int]]
    strides: Mapping[tuple[str, str], Sequence[int]]
    blocks: Mapping[str, int]
    memory: Mapping[str, tuple[np.ndarray[Any, Any], int]]
    numbers: Sequence[int] = ()
    frame: Sequence[int] = ()
    taps: Sequence[int] = ()


def interpret(nest: Nest, binding: Binding, tiles: range | None = None) -> None:
    """Execute a nest; ``tiles`` restricts a parallel loop to a range of tile numbers."""
    _Machine(nest, binding, tiles).body(nest.body)()


def offset_in_group(extents: Sequence[int], strides: Sequence[int], position: int) -> int:
    """The offset of a group's position: the last member runs fastest, as in C order."""
    offset = 0
    for extent, stride in zip(reversed(extents), reversed(strides), strict=True):
        position, digit = divmod(position, extent)
        offset += digit * stride
    return offset


@dataclass
class _Machine:
    """Turns every statement into a function without arguments, which executes it.

    What does not change during a call is looked up beforehand: where memory begins, and the values
    of all parameters. Only loop variables and tables change; ``names`` and ``cells`` hold them.
    """

    nest: Nest
    binding: Binding
    tiles: range | None
    names: dict[str, int] = field(default_factory=dict)
    composite: dict[str, str] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    cells: dict[str, dict[int, Any]] = field(default_factory=lambda: defaultdict(dict))

    def __post_init__(self) -> None:
        self.names.update(self.binding.blocks)
        for group in self.nest.groups:
            self.names[group.extent] = int(np.prod(self.binding.members[group.name], dtype=int))
        for tensor, name, stride in self.nest.strides:
            if stride in self.names:
                continue  # another group's extent
            if self.nest.group(name).composite and isinstance(stride, str):
                self.composite[str(stride)] = name
            elif isinstance(stride, str):
                (self.names[stride],) = self.binding.strides[tensor, name]
        self.known = frozenset(self.names)

    def body(self, statements: Sequence[Statement]) -> Callable[[], None]:
        """Execute statements one after another."""
        runs = [self.statement(each) for each in statements]

        def run() -> None:
            for each in runs:
                each()

        return run if len(runs) > 1 else runs[0]

    def statement(self, statement: Statement) -> Callable[[], None]:
        match statement:
            case Loop():
                return self.loop(statement)
            case Tiles():
                return self.parallel(statement)
            case Tabulate():
                return self.tabulate(statement)
            case Fill():
                return self.fill(statement)
            case Write():
                return self.write_rows(statement)
            case Assign():
                return self.assign(statement)

    def loop(self, loop: Loop) -> Callable[[], None]:
        names, index, body = self.names, loop.index, self.body(loop.body)
        first, stops = self.position(loop.start), [*map(self.position, loop.stop)]
        step = self.number(loop.step)
        lead = None if loop.lead is None else self.names[loop.lead]

        def run() -> None:
            start = first() if lead is None else max(0, first() - lead)
            for position in range(start, min(stop() for stop in stops), step):
                names[index] = position
                body()

        return run

    def parallel(self, loop: Tiles) -> Callable[[], None]:
        body = self.body(loop.body)
        steps = [range(0, self.names[extent], self.number(step)) for _, extent, step in loop.axes]

        def run() -> None:
            for number, positions in enumerate(itertools.product(*steps)):
                if self.tiles is None or number in self.tiles:
                    for (index, _, _), position in zip(loop.axes, positions, strict=True):
                        self.names[index] = position
                    body()

        return run

    def tabulate(self, statement: Tabulate) -> Callable[[], None]:
        tensor = self.nest.tensors[statement.slot].name
        extents = self.binding.members[statement.group]
        strides = self.binding.strides[tensor, statement.group]
        first, stops = self.position(statement.start), [*map(self.position, statement.stop)]
        lead = 0 if statement.lead is None else self.names[statement.lead]
        table = self.cells[statement.table]

        def run() -> None:
            start = first() - lead
            for position in range(max(0, start), min(stop() for stop in stops)):
                table[position - start] = offset_in_group(extents, strides, position)

        return run

    def fill(self, statement: Fill) -> Callable[[], None]:
        taps, phases, plane, halo, channel, *_ = self.binding.frame
        self.cells["taps"].update(enumerate(self.binding.taps))
        frame, source = self.cells[statement.buffer], statement.source
        array, base = self.binding.memory[source.buffer]
        place = self.offset(source.terms, source.buffer, base)
        begin, end = self.span(statement.start, statement.stop)
        first, last = self.span(statement.first, statement.last)

        def run() -> None:
            channels, positions = (
                range(first() // taps, last() // taps),
                range(begin(), end() + halo),
            )
            for c, phase, position in itertools.product(channels, range(phases), positions):
                at, *bounds = self.binding.frame[HEAD + phase * PHASE :][:PHASE]
                digits = self.digits(position)
                limits = zip(digits, bounds[::2], bounds[1::2], strict=True)
                inside = all(low <= digit < high for digit, low, high in limits)
                at += place() + c * channel
                at += sum(x * step for x, step in zip(digits, self.described(0), strict=True))
                to = ((c - channels[0]) * phases + phase) * plane + position - positions[0]
                frame[to] = array[at] if inside else array.dtype.type(0)

        return run

    def write_rows(self, statement: Write) -> Callable[[], None]:
        held, target = self.cells[statement.buffer], statement.target
        array, base = self.binding.memory[target.buffer]
        place = self.offset(target.terms, target.buffer, base)
        begin, end = self.span(statement.start, statement.stop)
        first, last = self.span(statement.first, statement.last)
        pitch, step = self.names["N_TASK"], self.number(statement.rows)

        def run() -> None:
            for row, position in itertools.product(range(last() - first()), range(begin(), end())):
                digits = self.digits(position)
                if all(x < n for x, n in zip(digits, self.described(2), strict=True)):
                    at = place() + row * step
                    at += sum(x * by for x, by in zip(digits, self.described(1), strict=True))
                    array[at] = held[row * pitch + position - begin()]

        return run

    def span(
        self, start: Affine, stop: Sequence[Affine]
    ) -> tuple[Callable[[], int], Callable[[], int]]:
        """Where a block begins and ends."""
        stops = [*map(self.position, stop)]
        return self.position(start), lambda: min(end() for end in stops)

    def digits(self, position: int) -> list[int]:
        """The digits of a flat position, the first one being open."""
        digits: list[int] = []
        for count in reversed(self.binding.frame[5 : 4 + AXES]):
            position, digit = divmod(position, count)
            digits.insert(0, digit)
        return [position, *digits]

    def described(self, what: int) -> Sequence[int]:
        """For each axis 0: the image's stride, 1: the output's stride, 2: the output's extent."""
        begin = 4 + AXES + what * AXES
        return self.binding.frame[begin : begin + AXES]

    def assign(self, statement: Assign) -> Callable[[], None]:
        factors = [
            self.total(ref) if statement.total and not number else self.read(ref)
            for number, ref in enumerate(statement.factors)
        ]
        write, before = self.write(statement.target), self.read(statement.target)
        formula, add = statement.formula, statement.add
        right = None if statement.half is None else self.position(statement.half)
        loops = add.split(" + ") if isinstance(add, str) else []

        def run() -> None:
            values = [factor() for factor in factors]
            if formula is not None:
                value = finished(formula, values, self.binding.numbers)
            else:
                value = reduce(mul, values) if values else 0
            if right is not None:
                there = right()
                value = self.sum(value, value) if there > 0 else value if not there else 0 * value
            # From the second round on of any of the loops.
            if add is True or any(self.names[name] > 0 for name in loops):
                value = self.sum(before(), value)
            write(value)

        return run

    def total(self, tile: Ref) -> Callable[[], Any]:
        """The sum over the lanes of one row: the last term of a tile's offset counts lanes."""
        cells, row = self.cells[tile.buffer], self.offset(tile.terms[:-1], tile.buffer)
        width = self.number(tile.terms[0].stride) if len(tile.terms) > 1 else None

        def total() -> Any:
            begin = row()
            found = (p for p in sorted(cells) if width is None or begin <= p < begin + width)
            return reduce(self.sum, (cells[p] for p in found))

        return total

    def sum(self, x: Any, y: Any) -> Any:
        return np.logical_or(x, y) if self.nest.output.element == "b1" else x + y

    def read(self, ref: Ref) -> Callable[[], Any]:
        if self.nest.buffer(ref.buffer).scope is not Scope.MEMORY:
            cells, offset = self.cells[ref.buffer], self.offset(ref.terms, ref.buffer)
            return lambda: cells[offset()]
        array, base = self.binding.memory[ref.buffer]
        place = self.offset(ref.terms, ref.buffer, base)
        if array.dtype == np.float16:
            return lambda: np.float32(array[place()])
        return lambda: array[place()]

    def write(self, ref: Ref) -> Callable[[Any], None]:
        memory: Any = self.cells[ref.buffer]
        base = 0
        if self.nest.buffer(ref.buffer).scope is Scope.MEMORY:
            memory, base = self.binding.memory[ref.buffer]
        place = self.offset(ref.terms, ref.buffer, base)

        def write(value: Any) -> None:
            memory[place()] = value

        return write

    def offset(self, terms: Sequence[Term], buffer: str, base: int = 0) -> Callable[[], int]:
        """The sum of a reference's terms and of where the buffer begins."""
        plain, others = base, list[Callable[[], int]]()
        linear: list[tuple[str, int]] = []
        for term in terms:
            if term.table is not None:
                table = self.cells[term.table]
                others.append(_composed(table.__getitem__, self.position(term.position)))
            elif (group := self.composite.get(str(term.stride))) is not None:
                extents = self.binding.members[group]
                strides = self.binding.strides[buffer, group]
                found = partial(offset_in_group, extents, strides)
                others.append(_composed(found, self.position(term.position)))
            else:
                stride = self.number(term.stride)
                plain += stride * term.position.constant
                linear += [(name, stride * factor) for name, factor in term.position.terms]
        begin = self.position(Affine(tuple(linear), plain))
        return (lambda: begin() + sum(other() for other in others)) if others else begin

    def position(self, position: Affine) -> Callable[[], int]:
        """The value of an expression of parameters and loop variables."""
        names = self.names
        known = {name: Affine((), names[name]) for name in position.names if name in self.known}
        rest = position.replaced(known)
        terms, constant = rest.terms, rest.constant
        if not terms:
            return lambda: constant
        if len(terms) == 1:
            ((name, factor),) = terms
            return lambda: constant + factor * names[name]

        def value() -> int:
            found = constant
            for name, factor in terms:
                found += factor * names[name]
            return found

        return value

    def number(self, value: int | str) -> int:
        if isinstance(value, int):
            return value
        return prod(self.names[name] for name in value.split("*"))


def _composed(outer: Callable[[int], int], inner: Callable[[], int]) -> Callable[[], int]:
    return lambda: outer(inner())
