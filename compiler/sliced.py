"""A program with loops around its statements, and a place for each of its intermediates.

What the loops are for, and how they are found where there is a limit: see :mod:`.slices`. Without
slices there are none, and a program is run once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod

from .program import Program, Statement, Tensor
from .records import dataclass, replace
from .workspace import Workspace, ordered, workspace

__all__ = [
    "TOTAL",
    "Element",
    "Slice",
    "Sliced",
    "arrange",
    "dependences",
    "intermediate_bytes",
    "with_extents",
]


@dataclass(frozen=True, slots=True)
class Element:
    """The element type of the operands and the result, and that of the intermediates."""

    operand: str
    intermediate: str

    @property
    def intermediate_bytes(self) -> int:
        """The size of an intermediate's elements."""
        return int(self.intermediate[1:])

    @property
    def operand_bytes(self) -> int:
        """The size of the operands' and the result's."""
        return int(self.operand[1:])


@dataclass(frozen=True, slots=True)
class Slice:
    """A loop over blocks of an index; the last block may be shorter."""

    index: str
    extent: int
    block: int
    reduced: bool

    @property
    def count(self) -> int:
        """The number of blocks.

        >>> Slice("i", extent=100, block=40, reduced=False).count
        3
        """
        return -(-self.extent // self.block)

    def __str__(self) -> str:
        """What it does: `i in 3 blocks of 40`."""
        if self.block == 1:
            return f"{self.index} in {self.count} steps"
        return f"{self.index} in {self.count} blocks of {self.block}"


@dataclass(frozen=True, slots=True)
class Sliced:
    """A program that is run piece by piece, or, without slices, once.

    Attributes:
        program: what a piece computes: its extents are those of whole blocks.
        slices: the loops, outermost first; those over kept indices come before the summed ones.
        levels: for each statement how many of the loops are around it; they do not fall.
        sizes: the bytes of each intermediate. If pieces have to be added up, there is one with the
            name of the result, which is a piece of it, and where intermediates are wider than the
            result one called `TOTAL`, their sum.
        workspace: where the intermediates lie.
        hoisted: whether statements are outside of the loops on which they do not depend.
    """

    program: Program
    slices: tuple[Slice, ...]
    levels: tuple[int, ...]
    sizes: Mapping[str, int]
    workspace: Workspace
    hoisted: bool = True

    @property
    def adds(self) -> bool:
        """Whether pieces of the result are added up."""
        return any(each.reduced for each in self.slices)

    def runs(self, level: int) -> int:
        """How often the statements of a level run."""
        return prod(each.count for each in self.slices[:level])

    def pieces(self) -> Iterator[tuple[int, ...]]:
        """The first position of each sliced index, for one run of the innermost loop after another.

        >>> a, b = Slice("a", 2, 1, False), Slice("b", 100, 40, True)
        >>> list(Sliced(None, (a, b), (), {}, None).pieces())
        [(0, 0), (0, 40), (0, 80), (1, 0), (1, 40), (1, 80)]
        """
        return product(*(range(0, each.extent, each.block) for each in self.slices))


TOTAL = "sum of pieces"
"""No tensor of an equation has this name."""


def arrange(
    program: Program, element: Element, slices: Sequence[Slice] = (), hoisted: bool = True
) -> Sliced:
    """Order the statements of a program, and place its intermediates.

    Without slices the statements stay in their order unless `depth_first` needs less memory.

    Args:
        program: its extents are those of whole blocks.
        element: sizes of elements.
        slices: the loops, outermost first.
        hoisted: whether to take statements out of the loops on which they do not depend.
    """
    sizes = intermediate_bytes(program, program.sizes, slices, element)
    levels = _levels(program.statements, [each.index for each in slices], hoisted)
    order = sorted(range(len(levels)), key=levels.__getitem__)  # those of outer loops come first
    statements: Sequence[Statement] = [program.statements[n] for n in order]
    levels = [levels[n] for n in order]
    if slices:
        placed = workspace(statements, sizes, levels)
    else:
        statements, placed = ordered(statements, sizes)
    program = replace(program, statements=tuple(statements))
    return Sliced(program, tuple(slices), tuple(levels), sizes, placed, hoisted)


def with_extents(program: Program, extents: Mapping[str, int]) -> Program:
    """The program with other extents of some indices; operands keep their shapes."""
    sizes = {**program.sizes, **extents}
    axes = _shapes(program, sizes)
    tensors = tuple(Tensor(t.name, axes.get(t.name, t.axes)) for t in program.tensors)
    return replace(program, tensors=tensors, extents=tuple(sizes.items()))


def _shapes(program: Program, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of what is written; sums of indices are not sliced, and as long as they were."""
    before = program.shapes
    return {
        target.tensor: tuple(
            sizes[axis.names[0]] if axis.is_index else extent
            for axis, extent in zip(target.subscripts, before[target.tensor], strict=True)
        )
        for target in (statement.target for statement in program.statements)
    }


def intermediate_bytes(
    program: Program, extents: Mapping[str, int], slices: Sequence[Slice], element: Element
) -> dict[str, int]:
    """The bytes of each intermediate."""
    adds = any(each.reduced for each in slices)
    sizes = {
        name: prod(shape) * element.intermediate_bytes
        for name, shape in _shapes(program, extents).items()
        if adds or name != program.result
    }
    if adds and element.intermediate_bytes != element.operand_bytes:
        sizes[TOTAL] = sizes[program.result]
    return sizes


def _levels(statements: Sequence[Statement], loops: Sequence[str], hoisted: bool) -> list[int]:
    """How many loops are around each statement."""
    if not hoisted or not loops:
        return [len(loops)] * len(statements)
    depth = {index: level for level, index in enumerate(loops, start=1)}
    return [
        max((depth[index] for index in names if index in depth), default=0)
        for names in dependences(statements)
    ]


def dependences(statements: Sequence[Statement]) -> list[set[str]]:
    """The indices on which each statement depends, itself or through what it reads."""
    made: dict[str, set[str]] = {}
    found = []
    for statement in statements:
        read = (made.get(factor.tensor, set()) for factor in statement.accesses)
        found.append({*statement.indices}.union(*read))
        made[statement.target.tensor] = found[-1]
    return found
