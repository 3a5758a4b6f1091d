"""A schedule: every decision about how one contraction step is executed, as plain data.

:mod:`.lower` and the passes only carry out what a schedule says; choosing one is the business of
:mod:`.choose`. A schedule names no extents and no strides but those that are part of the layout
class, so the kernel that it leads to can be shared by every step with the same schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .records import dataclass

if TYPE_CHECKING:
    from .formula import Value


def vector_lanes(element: str, vector_bytes: int) -> int:
    """How many elements a vector register holds; a complex one fills a register of each part.

    Bytes get half a register: there is no multiplication of them, and their tiles would be huge.
    """
    size = int(element[1:]) // (2 if element[0] == "c" else 1)
    return vector_bytes // max(size, 2)


def wide(element: str) -> str:
    """The type in which elements are computed."""
    return "f4" if element == "f2" else element


@dataclass(frozen=True, slots=True)
class Group:
    """Indices walked as one loop. A composite group reaches tensors through tables of offsets.

    A group may be summed ``over`` what an epilogue has made of the sum over other groups. Before
    fusion every index is a group of its own, and ``into`` names the group that it joins.
    """

    name: str
    composite: bool
    reduced: bool
    into: str | None = None
    over: bool = False

    @property
    def extent(self) -> str:
        """The parameter that holds the product of the members' extents."""
        return self.name.upper() if self.into is None else f"n_{self.name}"


@dataclass(frozen=True, slots=True)
class Split:
    """Cut the loop over ``group`` into ``group_suffix`` loops of the given step."""

    group: str
    suffix: str
    step: int | str

    @property
    def index(self) -> str:
        """The name of the loop that the split makes."""
        return f"{self.group}_{self.suffix}"


MASKED = ("f4", "f8", "i4", "i8", "u4", "u8")
"""Elements that masked vectors can move."""

CACHE_LINE = 64  # bytes

STRIP = 8
"""Positions of ``k`` along which whole lines of an operand are packed before the next ones are."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Copy what a tile of ``operand`` needs into scratch, at the head of the loop ``inside``.

    The panel holds ``width`` positions of ``group`` side by side, for one position of the reduced
    group ``k`` after the other: the order in which the microkernel reads them. Panel after panel
    is filled, or several at once in ``strips`` of a few positions of ``k``.

    ``also`` is another operand that reads the same panels, the same tensor as the first: see
    :mod:`.passes.pack`. These begin at position 0, and hold whole register tiles of both sides.
    """

    operand: str
    inside: str
    group: str
    width: int
    depth: int  # positions of k that are moved at once, as the rows of a register tile
    strips: bool = True
    also: str | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """Hold a block of an operand in scratch, lanes beside each other: see :mod:`.passes.panels`.

    ``groups`` are those that the operand depends on but for the lanes, outermost first; the last
    one has the neighbours in memory, of which ``rows`` are moved at once.
    """

    operand: str
    groups: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Collect a block of the output in scratch, and write it from there in whole cache lines.

    ``inside`` is the loop whose every round makes one block. ``run`` are the groups, outermost
    first, along which the output's elements are neighbours; ``rows`` is the group of the block's
    rows, if it has several. Row follows row at a distance of ``PITCH`` elements, and every row
    begins with the last ``LEAD`` positions of the block before it along the first group of the run:
    so a cache line that two blocks share is written by one of them, whole.
    """

    inside: str
    run: tuple[str, ...]
    rows: str | None


@dataclass(frozen=True, slots=True)
class Ahead:
    """Ask for what lies ``AHEAD`` positions further on in an operand: see :mod:`.pack_source`.

    Its neighbours lie ``along`` a group, the summed one or that of the operand's rows or lanes. A
    tile asks for ``ASKED`` lines of those that one line's positions of ``k`` need.
    """

    operand: str
    along: str

    @property
    def group(self) -> str:
        """The group of the operand's rows or lanes."""
        return "m" if self.operand == "x0" else "n"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How to run one step. See :mod:`.choose` for the recipes that fill it in.

    ``strides`` lists (tensor, group, stride) for every group that a tensor depends on: None for a
    stride that is known at run time, 1 where the layout class says that the group's positions, or
    those of its innermost index, are neighbours.
    ``outer`` are the loops around a register tile, outermost first, of which the first
    ``parallel`` ones are split over threads; ``inner`` are the loops between the clearing of
    the register tile and its storing. ``rows`` and ``lanes`` name the groups of the tile.
    A ``mirrored`` output is symmetric in rows and lanes: what is below its diagonal is copied from
    above, or what is above from below.
    Sums of blocks are ``collected`` in scratch, where the output cannot hold them.
    What lies ``ahead`` in an operand is asked for while a tile's products are summed.
    ``linear`` lists (tensor, group, stride) for composite groups that the tensor has one stride
    along all the same, a number or an extent's name: it needs no table there.
    ``formula`` is what becomes of the sum of products before it is written (see :mod:`.finish`).
    It ``reads`` the last operands, and has so many ``numbers`` that each call brings. Groups that
    are summed after it say so themselves.
    """

    recipe: str
    elements: tuple[str, ...]  # operands, then output
    accumulator: str
    groups: tuple[Group, ...]
    strides: tuple[tuple[str, str, int | None], ...]
    splits: tuple[Split, ...]
    outer: tuple[str, ...]
    inner: tuple[str, ...]
    parallel: int
    rows: str | None
    lanes: str
    row_tile: int
    lane_tile: int
    vector_bytes: int
    packs: tuple[Pack, ...] = ()
    panels: tuple[Panel, ...] = ()
    partial: str | None = None  # the inner loop whose every round sums into a tile of its own
    stage: Stage | None = None
    linear: tuple[tuple[str, str, int | str], ...] = ()  # the one stride of a composite group
    mirrored: bool = False
    collected: bool = False
    ahead: Ahead | None = None
    framed: str | None = None  # the operand that is held in frames: see :mod:`.frames`
    formula: Value | None = None
    reads: int = 0
    numbers: int = 0

    @property
    def factors(self) -> int:
        """How many operands are multiplied; those that follow are read by the formula."""
        return len(self.elements) - 1 - self.reads

    @property
    def total(self) -> str:
        """The element type in which the formula's values are summed."""
        return wide(self.elements[-1])

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names in the kernel: ``x0, x1, ..., out``."""
        return (*(f"x{i}" for i in range(len(self.elements) - 1)), "out")

    @property
    def blocks(self) -> tuple[str, ...]:
        """The run-time block sizes, in order of use."""
        steps = dict.fromkeys(s.step for s in self.splits if isinstance(s.step, str))
        return (
            *steps,
            *(("PITCH", "LEAD") if self.stage else ()),
            *(("FRAME",) if self.framed else ()),
            *(("AHEAD", "ASKED") if self.ahead else ()),
        )

    @property
    def is_general(self) -> bool:
        """Whether it is for any layout: all offsets come from tables, and no stride is known."""
        composite = all(group.composite for group in self.groups)
        return composite and all(stride is None for _, _, stride in self.strides)

    @property
    def in_place(self) -> str | None:
        """The factor of a packed product whose rows are read where they are, if there is one."""
        packed = {name for pack in self.packs for name in (pack.operand, pack.also)}
        return "x0" if self.recipe == "packed" and "x0" not in packed else None

    @property
    def below(self) -> bool:
        """Whether a mirrored output's tiles on and below its diagonal are those computed."""
        loops = (*self.outer, *self.inner)
        return self.mirrored and loops.index(f"{self.rows}_tile") < loops.index(
            f"{self.lanes}_tile"
        )

    @property
    def asked_positions(self) -> int:
        """Elements of the operand that is asked for ahead on a cache line."""
        assert self.ahead is not None
        element = self.elements[self.names.index(self.ahead.operand)]
        return max(1, CACHE_LINE // int(element[1:]))

    @property
    def asked_lines(self) -> int:
        """Cache lines that so many positions of ``k`` of one tile's rows or lanes lie on."""
        assert self.ahead is not None
        if self.ahead.along != "k":
            return self.asked_positions
        return self.row_tile if self.ahead.group == "m" else self.lane_tile

    def split_of(self, group: str) -> list[Split]:
        """The splits of one group, outermost first."""
        return [split for split in self.splits if split.group == group]

    def group_of(self, index: str) -> str:
        """The group that a loop walks, whole or in blocks."""
        return next((s.group for s in self.splits if s.index == index), index)
