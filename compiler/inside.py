"""Programs that may leave their tensors, and those that cannot.

Most equations have an index of its own on each axis of each tensor, and stay inside of all. Others
read windows or diagonals; what there is to do about these is imported for programs that have any:

    margin     copies with zeros around them, where that is faster
    pad        such copies, where there is no other way
    regions    the boxes in which a statement stays inside of its tensors
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .machine import Machine
from .program import Program, Statement
from .records import dataclass

if TYPE_CHECKING:
    from .frames import Windows

__all__ = ["ZERO", "Box", "boxes_of", "kept_inside", "stays_inside", "with_margins"]

ZERO = "0"
"""The tensor without axes that is zero; no tensor of an equation has this name."""


@dataclass(frozen=True, slots=True)
class Box:
    """A statement that stays inside of its tensors, with the extents of its indices.

    With `windows` it may leave that factor, where it is zero.
    """

    statement: Statement
    extents: Mapping[str, int]
    windows: Windows | None = None


def with_margins(program: Program, element: str, machine: Machine) -> Program:
    """The program with copies where these save time: see :mod:`.margin`."""
    if _is_plain(program):
        return program
    from . import margin

    return margin.with_margins(program, element, machine)


def kept_inside(program: Program) -> Program:
    """The program with copies where boxes will not do: see :mod:`.pad`.

    Raises:
        EinsumError: (a ValueError) an affine output is cut into more pieces than there may be.
    """
    shapes, sizes = program.shapes, program.sizes
    if _is_plain(program) and all(_fits(each, shapes, sizes) for each in program.statements):
        return program
    from .pad import pad

    return pad(program)


def boxes_of(
    statement: Statement,
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    whole: Callable[[Statement, Mapping[str, int]], Windows | None],
) -> list[Box]:
    """The boxes of a statement that `kept_inside` has seen; see :func:`.regions.boxes`."""
    if statement.is_plain and _fits(statement, shapes, sizes):
        windows = whole(statement, sizes)  # of a view whose axes overlap
        return [Box(statement, {name: sizes[name] for name in statement.indices}, windows)]
    from .regions import boxes

    return boxes(statement, shapes, sizes, whole=whole)


def stays_inside(
    statement: Statement, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> bool:
    """Whether a statement leaves none of its factors, and its target is plain."""
    if statement.is_plain and _fits(statement, shapes, sizes):
        return True
    from .regions import leaves

    return not leaves(statement, shapes, sizes)


def _fits(
    statement: Statement, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> bool:
    """Whether a plain statement ends within its factors: copies with zeros behind them do not."""
    return all(f.ends_within(shapes.get(f.tensor, ()), sizes) for f in statement.factors)


def _is_plain(program: Program) -> bool:
    return all(statement.is_plain for statement in program.statements)
