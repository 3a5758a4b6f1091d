"""The kernels of an exported einsum: for every step one for C order, and one for any strides."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ..choose import Choice, block_sizes
from ..geometry import Geometry, canonical
from ..inside import ZERO
from ..machine import Machine
from ..pipeline import Signature, signature
from ..program import Access, Statement
from ..records import dataclass
from ..schedule import Schedule
from .windows import Steps

__all__ = ["ExportedKernel", "Layout", "wanted_kernels"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of an exported program before it is called.

    Attributes:
        indices: what a caller gives the extents of, in that order: the indices of the equation,
            then axes that are no index, such as `a.2`.
        fixed: the extents that are always the same, by index.
        elements: the element type of every tensor that is no view.
        given: the tensors that a caller gives, in that order, the output last.
        steps: the statements, with the shapes of tensors and the extents of other indices.
        typical: the extents of all indices that kernels are chosen for.
    """

    indices: tuple[str, ...]
    fixed: Mapping[str, int]
    elements: Mapping[str, str]
    given: tuple[str, ...]
    steps: Steps
    typical: Mapping[str, int]

    def element(self, access: Access) -> str:
        """The element type at an access."""
        view = self.steps.views.get(access.tensor)
        return self.elements[view.tensor if view else access.tensor]


@dataclass(frozen=True, slots=True)
class ExportedKernel:
    """A kernel of a step, and how to call it.

    Attributes:
        symbol: the name of its function; steps may have one in common.
        statement: what it computes.
        choice: its schedule, over indices that are those of the statement.
        blocks: its block sizes.
    """

    symbol: str
    statement: Statement
    choice: Choice
    blocks: Mapping[str, int]

    @property
    def called(self) -> Signature:
        """Its calling convention."""
        return signature(self.choice.schedule)

    @property
    def operands(self) -> tuple[Access, ...]:
        """Where it reads and writes, in the order of its parameters."""
        accesses = (*self.statement.factors, self.statement.target)
        return tuple(accesses[n] for n in (*self.choice.operands, len(accesses) - 1))


def wanted_kernels(
    layout: Layout, machine: Machine, accumulator: str
) -> list[list[ExportedKernel]]:
    """For every step of a program its kernels, the one for any strides last."""
    from ..choose.packed import packed
    from ..choose.streamed import streamed
    from ..choose.turned import as_bits

    steps = []
    made: dict[Schedule, str] = {}
    for statement in layout.steps.statements:
        found: list[ExportedKernel] = []
        for unit in (True, False):
            # With typical extents indices may be adjacent that are not in a call: `x` and `y` of
            # an axis `3*y+x`, if 3 is what is typical of `x`.
            step = canonical(_geometry(statement, layout, accumulator, unit), merging=False)
            choice = packed(step, machine) or streamed(as_bits(step), machine)
            if choice.schedule.elements[-1] != choice.schedule.accumulator:
                choice = streamed(as_bits(step), machine)  # sums of any length, without blocks
            extents = {group: step.volume(m) for group, m in choice.members.items()}
            blocks = block_sizes(choice.schedule, extents, machine, 1)
            if found and choice == found[0].choice:
                continue  # operands may have changed places
            symbol = made.setdefault(choice.schedule, f"kernel_{len(made)}")
            found.append(ExportedKernel(symbol, statement, choice, blocks))
        steps.append(found)
    return steps


def _geometry(statement: Statement, layout: Layout, accumulator: str, unit: bool) -> Geometry:
    """A step on strides of which nothing can be concluded but, if `unit`, that the last is 1.

    Rows lie apart, as those of a part of an array do: extents and strides of every index count by
    themselves when the kernel is called.
    """
    sizes = layout.typical
    accesses = (*statement.factors, statement.target)
    own = layout.steps.shapes.keys() - {*layout.given}

    def strides(access: Access) -> dict[str, int]:
        apart = 1 if unit or access.tensor in own else 3
        found: dict[str, int] = {}
        for axis in reversed(access.subscripts):
            for name, factor in axis.terms:
                found[name] = found.get(name, 0) + factor * apart
            apart *= prod(sizes[name] for name in axis.names) + 3
        return found

    return Geometry(
        elements=tuple(layout.element(a if a.tensor != ZERO else accesses[-1]) for a in accesses),
        accumulator=accumulator,
        extents={index: sizes[index] for index in statement.indices},
        strides=tuple(map(strides, accesses)),
    )
