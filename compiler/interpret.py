"""An interpreter for loop nests: slow, and obviously right.

It runs a nest at any stage of the passes, one element at a time, on Python integers and NumPy
scalars. Tests compare it with ``np.einsum`` after every pass, and kernels with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from .affine import Affine
from .finish import finished
from .loopnest import Assign, Loop, Nest, Ref, Scope, Statement, Tabulate, Tiles
from .records import dataclass, field


@dataclass(frozen=True)
class Binding:
    """What a nest's parameters stand for in one call.

    ``members`` gives each group's indices' extents; ``strides`` each tensor's strides (elements) in
    the order of the group's members; ``blocks`` the block sizes. ``memory`` holds each tensor as a
    flat array with the position in it of the element at index zero. ``numbers`` are a formula's.
    """

    members: Mapping[str, Sequence[int]]
    strides: Mapping[tuple[str, str], Sequence[int]]
    blocks: Mapping[str, int]
    memory: Mapping[str, tuple[np.ndarray[Any, Any], int]]
    numbers: Sequence[int] = ()


def interpret(nest: Nest, binding: Binding, tiles: range | None = None) -> None:
    """Execute a nest; ``tiles`` restricts a parallel loop to a range of tile numbers."""
    _Machine(nest, binding, tiles).run(nest.body)


def offset_in_group(extents: Sequence[int], strides: Sequence[int], position: int) -> int:
    """The offset of a group's position: the last member runs fastest, as in C order."""
    offset = 0
    for extent, stride in zip(reversed(extents), reversed(strides), strict=True):
        position, digit = divmod(position, extent)
        offset += digit * stride
    return offset


@dataclass
class _Machine:
    nest: Nest
    binding: Binding
    tiles: range | None
    names: dict[str, int] = field(default_factory=dict)
    composite: dict[str, str] = field(default_factory=dict)
    cells: dict[tuple[str, int], Any] = field(default_factory=dict)

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

    def run(self, body: Sequence[Statement]) -> None:
        for statement in body:
            match statement:
                case Loop(index=index, step=step):
                    start = statement.start.evaluate(self.names)
                    if statement.lead is not None:
                        start = max(0, start - self.names[statement.lead])
                    for position in range(start, self.least(statement.stop), self.number(step)):
                        self.names[index] = position
                        self.run(statement.body)
                case Tiles(axes=axes):
                    ranges = [range(0, self.names[e], self.number(step)) for _, e, step in axes]
                    for number, positions in enumerate(itertools.product(*ranges)):
                        if self.tiles is None or number in self.tiles:
                            for (index, _, _), position in zip(axes, positions, strict=True):
                                self.names[index] = position
                            self.run(statement.body)
                case Tabulate():
                    self.tabulate(statement)
                case Assign():
                    self.assign(statement)

    def tabulate(self, statement: Tabulate) -> None:
        tensor = self.nest.tensors[statement.slot].name
        extents = self.binding.members[statement.group]
        strides = self.binding.strides[tensor, statement.group]
        start = statement.start.evaluate(self.names)
        lead = 0 if statement.lead is None else self.names[statement.lead]
        for position in range(max(0, start - lead), self.least(statement.stop)):
            offset = offset_in_group(extents, strides, position)
            self.cells[statement.table, position - start + lead] = offset

    def assign(self, statement: Assign) -> None:
        first, others = statement.factors[:1], statement.factors[1:]
        values = [self.total(ref) if statement.total else self.read(ref) for ref in first]
        values += [self.read(ref) for ref in others]
        value = self.product(values)
        if statement.formula is not None:
            value = finished(statement.formula, values, self.binding.numbers)
        add = statement.add
        if add is True or (isinstance(add, str) and self.is_again(add)):
            value = self.sum(self.read(statement.target), value)
        self.write(statement.target, value)

    def is_again(self, loops: str) -> bool:
        """Whether any of some loops is past its first round."""
        return any(self.names[name] > 0 for name in loops.split(" + "))

    def total(self, tile: Ref) -> Any:
        """The sum over the lanes of one row: the last term of a tile's offset counts lanes."""
        row = self.offset(Ref(tile.buffer, tile.terms[:-1]))
        width = tile.terms[0].stride if len(tile.terms) > 1 else None
        found = sorted(p for b, p in self.cells if b == tile.buffer)
        cells = [p for p in found if width is None or row <= p < row + self.number(width)]
        value = self.cells[tile.buffer, cells[0]]
        for p in cells[1:]:
            value = self.sum(value, self.cells[tile.buffer, p])
        return value

    def product(self, values: Sequence[Any]) -> Any:
        if not values:
            return 0
        result = values[0]
        for value in values[1:]:
            result = result * value
        return result

    def sum(self, x: Any, y: Any) -> Any:
        return np.logical_or(x, y) if self.nest.output.element == "b1" else x + y

    def offset(self, ref: Ref) -> int:
        offset = 0
        for term in ref.terms:
            position = term.position.evaluate(self.names)
            if term.table is not None:
                offset += self.cells[term.table, position]
            elif (group := self.composite.get(str(term.stride))) is not None:
                extents = self.binding.members[group]
                strides = self.binding.strides[ref.buffer, group]
                offset += offset_in_group(extents, strides, position)
            else:
                offset += position * self.number(term.stride)
        return offset

    def read(self, ref: Ref) -> Any:
        offset = self.offset(ref)
        if self.nest.buffer(ref.buffer).scope is Scope.MEMORY:
            array, base = self.binding.memory[ref.buffer]
            value = array[base + offset]
            return np.float32(value) if array.dtype == np.float16 else value
        return self.cells[ref.buffer, offset]

    def write(self, ref: Ref, value: Any) -> None:
        offset = self.offset(ref)
        if self.nest.buffer(ref.buffer).scope is Scope.MEMORY:
            array, base = self.binding.memory[ref.buffer]
            array[base + offset] = value
        else:
            self.cells[ref.buffer, offset] = value

    def number(self, value: int | str) -> int:
        if isinstance(value, int):
            return value
        return prod(self.names[name] for name in value.split("*"))

    def least(self, stops: Sequence[Affine]) -> int:
        return min(stop.evaluate(self.names) for stop in stops)
