"""A program with loops around its statements, and a place for each of its intermediates.

What the loops are for, and how they are found where there is a limit: see :mod:`.slices`. Without
slices there are none, and a program is run once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from math import prod

from .program import Access, Program, Statement, Tensor
from .records import dataclass, field, replace
from .workspace import Workspace, ordered, workspace

__all__ = [
    "TOTAL",
    "Element",
    "Slice",
    "Sliced",
    "added_results",
    "adding",
    "arrange",
    "dependences",
    "index_sums",
    "intermediate_bytes",
    "with_extents",
]


@dataclass(frozen=True, slots=True)
class Element:
    """The element type of the operands and the result, and that of the intermediates.

    They are for programs whose tensors have no types of their own.
    """

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
    """A loop over blocks of an index; the last block may be shorter.

    It is `reduced` if it is an index that no result has.
    """

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
        sizes: the bytes of each intermediate. Where pieces have to be added up, there is one with
            the name of the result, which is a piece of it, and where intermediates are wider than
            the result one called `TOTAL`, their sum.
        workspace: where the intermediates lie.
        hoisted: whether statements are outside of the loops on which they do not depend.
        added: the results of which pieces are added up, each with the sliced indices that it sums.
    """

    program: Program
    slices: tuple[Slice, ...]
    levels: tuple[int, ...]
    sizes: Mapping[str, int]
    workspace: Workspace
    hoisted: bool = True
    added: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def adds(self) -> bool:
        """Whether pieces of a result are added up."""
        return bool(self.added)

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
    added = added_results(program, [each.index for each in slices])
    sizes = intermediate_bytes(program, program.sizes, added, element)
    levels = _levels(program.statements, [each.index for each in slices], hoisted)
    order = sorted(range(len(levels)), key=levels.__getitem__)  # those of outer loops come first
    statements: Sequence[Statement] = [program.statements[n] for n in order]
    levels = [levels[n] for n in order]
    if slices:
        sums = [adding(program, name) for name in added]
        placed = workspace([*statements, *sums], sizes, [*levels, *([len(slices)] * len(sums))])
    else:
        statements, placed = ordered(statements, sizes)
    program = replace(program, statements=tuple(statements))
    return Sliced(program, tuple(slices), tuple(levels), sizes, placed, hoisted, added)


def added_results(program: Program, loops: Sequence[str]) -> dict[str, frozenset[str]]:
    """The results that are sums over some of these indices, and over which."""
    if not loops:
        return {}
    sums = index_sums(program.statements)
    found = {name: frozenset(sums[name]).intersection(loops) for name in program.results}
    return {name: indices for name, indices in found.items() if indices}


def adding(program: Program, result: str) -> Statement:
    """What adds a piece of a result to the others; it takes as long as a product of them."""
    target = next(s.target for s in program.statements if s.target.tensor == result)
    parts = Access(result, target.subscripts), Access(TOTAL, target.subscripts)
    return Statement(Access(f"{TOTAL} of {result}", target.subscripts), parts)


def with_extents(
    program: Program, extents: Mapping[str, int], local: Collection[str] | None = None
) -> Program:
    """The program with other extents of some indices; operands keep their shapes.

    So does all that is not `local`, if that is given: a block of a chain may read what others made
    at other positions than its own.
    """
    sizes = {**program.sizes, **extents}
    axes = _shapes(program, sizes)
    if local is not None:
        axes = {name: shape for name, shape in axes.items() if name in local}
    tensors = tuple(Tensor(t.name, axes.get(t.name, t.axes), t.element) for t in program.tensors)
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
    program: Program, extents: Mapping[str, int], added: Collection[str], element: Element
) -> dict[str, int]:
    """The bytes of each intermediate."""
    known = {tensor.name: tensor.element for tensor in program.tensors}
    sizes = {
        name: prod(shape) * int((known[name] or element.intermediate)[1:])
        for name, shape in _shapes(program, extents).items()
        if name in added or name not in program.results
    }
    wider = element.intermediate_bytes != element.operand_bytes
    if wider and any(known[name] is None for name in added):
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


def index_sums(statements: Sequence[Statement]) -> dict[str, Counter[str]]:
    """For each tensor that is written the indices whose sums it is made of.

    It is a product of as many sums over an index as the index is counted. What goes into a formula
    counts twice: what comes out is no sum any more.
    """
    sums: dict[str, Counter[str]] = {}
    for statement in statements:
        made = Counter(statement.contracted)
        for access in statement.accesses:
            made.update(sums.get(access.tensor, {}))
        if statement.epilogue is not None:
            made = Counter({index: 2 * count for index, count in made.items()})
            made.update(statement.epilogue.over)
        sums[statement.target.tensor] = made
    return sums
