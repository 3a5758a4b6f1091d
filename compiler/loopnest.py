"""The loop-nest IR: what one contraction step does, as loops over positions.

A step combines its operands element by element and sums over reduced indices. Indices that play
the same part are walked together as one *group* (``m`` may stand for the index pair ``(a, c)``), so
one nest, and the kernel made from it, serves any number of indices, any extents and any strides:

    for m in 0..M:
        for n in 0..N:
            acc = 0
            for k in 0..K:
                acc += x0[m, k] * x1[k, n]
            out[m, n] = acc

A loop variable is an absolute position in its group. Splitting a loop therefore changes the loops
and no access: ``m`` in steps of 96 is ``for m_block in 0..M by 96: for m in m_block..min(m_block +
96, M)``. Names in capitals (extents ``M``, block sizes ``M_BLOCK``) are run-time parameters.

An element's offset is a sum of terms, each ``position * stride`` or ``table[position]``. Strides of
tensors are parameters named ``x0_m``; a stride that the layout class fixes is a number. Groups of
several indices have no single stride: a :class:`Tabulate` statement fills a table of offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from .affine import Affine
from .formula import Value
from .records import dataclass, replace
from .schedule import Group


class Kind(StrEnum):
    """How the positions of a loop are executed."""

    SERIAL = "serial"
    UNROLLED = "rows"  # the rows of a register tile
    VECTOR = "lanes"  # the columns of a register tile
    RUN = "run"  # neighbours in the output, of any number, written past the caches


class Scope(StrEnum):
    """Where a buffer lives."""

    MEMORY = "memory"  # an operand or the output, of any layout
    SCRATCH = "scratch"  # the thread's own memory, meant to stay in cache
    REGISTERS = "registers"  # a register tile


@dataclass(frozen=True, slots=True)
class Buffer:
    """A place for elements. ``size`` (a product of numbers and parameters) is for scratch only."""

    name: str
    element: str
    scope: Scope
    size: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True)
class Term:
    """One addend of an offset: ``position * stride``, or ``table[position]``.

    A stride is a number, a parameter, or a product of parameters as in ``R_BLOCK*V_BLOCK``.
    ``runs``: along the innermost index of a composite group the elements are neighbours, so that
    the tensor can be read in vectors wherever the index does not wrap around.
    """

    position: Affine
    stride: int | str = 1
    table: str | None = None
    runs: bool = False


@dataclass(frozen=True, slots=True)
class Ref:
    """One element of a buffer; its offset is the sum of the terms."""

    buffer: str
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class Assign:
    """``target = product of factors``, or ``+=``. No factors means zero.

    ``add`` is False, True, or the name of a loop: add from that loop's second round on; or the sum
    of several names, of loops that begin at zero.
    ``total`` sums the first factor's lanes (the register tile's columns) before all else. With a
    ``formula`` the value is that, its inputs being the factors, and not their product.
    ``half`` is how far right of a symmetric matrix' diagonal the value belongs: above the diagonal
    it counts twice, below it not at all.
    """

    target: Ref
    factors: tuple[Ref, ...]
    add: bool | str = False
    total: bool = False
    formula: Value | None = None
    half: Affine | None = None


@dataclass(frozen=True, slots=True)
class Loop:
    """Run the body at ``start, start + step, ...`` below the least of ``stop``.

    With a ``lead`` it begins so many positions earlier, but not below zero: what those positions
    compute is computed again for the sake of a neighbouring block.
    """

    index: str
    start: Affine
    stop: tuple[Affine, ...]
    step: int | str
    kind: Kind
    body: tuple[Statement, ...]
    lead: str | None = None


@dataclass(frozen=True, slots=True)
class Tabulate:
    """``table[i] = offset of position start + i of a composite group``, for i below the count.

    ``slot`` says whose strides: 0, 1, ... for the operands in order and then the output. With a
    ``lead`` the table begins so many positions earlier, but not below zero: ``table[lead + i]``.
    """

    table: str
    group: str
    slot: int
    start: Affine
    stop: tuple[Affine, ...]
    lead: str | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """Copy a block of an operand into the frame ``buffer``: see :mod:`.frames`.

    ``source`` is where the operand begins for this tile. Flat positions are those from ``start`` to
    the least of ``stop`` and what their windows reach, positions of ``k`` from ``first`` to the
    least of ``last``. The table ``taps`` says where each of them lies in the frame.
    """

    buffer: str
    source: Ref
    start: Affine
    stop: tuple[Affine, ...]
    first: Affine
    last: tuple[Affine, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """Write rows of sums of flat positions, but those that belong to no element of the output.

    ``target`` is where the output begins for this tile, ``rows`` its stride along ``m``; the rows
    in ``buffer`` are those from ``first`` to the least of ``last``.
    """

    target: Ref
    buffer: str
    rows: int | str
    first: Affine
    last: tuple[Affine, ...]
    start: Affine
    stop: tuple[Affine, ...]


@dataclass(frozen=True, slots=True)
class Tiles:
    """The parallel loop: the loops of ``axes`` (index, extent, step), flattened into tile numbers.

    A call of the kernel runs a range of tiles. Every tile writes its own part of the output.
    """

    axes: tuple[tuple[str, str, int | str], ...]
    body: tuple[Statement, ...]


Statement = Assign | Loop | Tabulate | Fill | Write | Tiles


@dataclass(frozen=True, slots=True)
class Nest:
    """A kernel in the making: its tensors, groups, scratch buffers and loops.

    ``operands`` and ``output`` are in the order of the kernel's arguments; ``strides`` says for
    every (tensor, group) that a tensor depends on which stride it has there: a number that the
    layout class fixes, or a parameter's name. ``blocks`` are the block-size parameters, and so many
    ``numbers`` of 64 bits are what formulas call their parameters.
    """

    operands: tuple[Buffer, ...]
    output: Buffer
    groups: tuple[Group, ...]
    strides: tuple[tuple[str, str, int | str], ...]
    buffers: tuple[Buffer, ...]
    blocks: tuple[str, ...]
    body: tuple[Statement, ...]
    numbers: int = 0

    def group(self, name: str) -> Group:
        """The group called ``name``."""
        return next(g for g in self.groups if g.name == name)

    def stride(self, tensor: str, group: str) -> int | str | None:
        """The stride of a tensor along a group; None where it does not depend on it."""
        found = (s for t, g, s in self.strides if (t, g) == (tensor, group))
        return next(found, None)

    def buffer(self, name: str) -> Buffer:
        """The buffer called ``name``, wherever it lives."""
        return next(b for b in (*self.operands, self.output, *self.buffers) if b.name == name)

    @property
    def tensors(self) -> tuple[Buffer, ...]:
        """The operands, then the output."""
        return (*self.operands, self.output)


def at(*names: str) -> Affine:
    """The sum of the named positions; a name with a leading minus is subtracted."""
    return Affine(tuple((n.removeprefix("-"), -1 if n[0] == "-" else 1) for n in names))


def parameters(nest: Nest) -> tuple[str, ...]:
    """What a kernel's argument array holds, in order, by name.

    The addresses of the tensors (by the tensors' names), the groups' extents, the block sizes, the
    strides that the layout class leaves open, a formula's numbers (``c0``), for every scratch
    buffer its place in the thread's memory in bytes (``x0_panel_place``), and for every composite
    group the place of its description within the array (``m_group``): its rank, its extents, and
    then each tensor's strides in the order of the tensors. Where there are frames, ``frame`` and
    ``taps`` are the places of their description and of their table.
    """
    composite = {group.name for group in nest.groups if group.composite}
    strides = (s for _, g, s in nest.strides if isinstance(s, str) and g not in composite)
    return (
        *(tensor.name for tensor in nest.tensors),
        *(group.extent for group in nest.groups),
        *nest.blocks,
        *strides,
        *(f"c{number}" for number in range(nest.numbers)),
        *(place_of(buffer) for buffer in scratch_buffers(nest)),
        *(f"{group.name}_group" for group in nest.groups if group.composite),
        *(("frame", "taps") if any(isinstance(s, Fill) for s in walk(nest.body)) else ()),
    )


def scratch_buffers(nest: Nest) -> list[Buffer]:
    """The buffers in the thread's own memory, in their order there."""
    return [buffer for buffer in nest.buffers if buffer.scope is Scope.SCRATCH]


def place_of(buffer: Buffer) -> str:
    """The parameter that tells where a scratch buffer begins."""
    return f"{buffer.name}_place"


def children(statement: Statement) -> tuple[Statement, ...]:
    """The statements directly inside ``statement``."""
    return statement.body if isinstance(statement, Loop | Tiles) else ()


def with_body(statement: Loop | Tiles, body: tuple[Statement, ...]) -> Statement:
    """The same loop around another body."""
    return replace(statement, body=body)


def walk(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """Every statement in program order, outer ones first."""
    for statement in body:
        yield statement
        yield from walk(children(statement))


def nested(loops: list[Loop], body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """``body`` inside the headers of ``loops``, the first one outermost."""
    for loop in reversed(loops):
        body = (replace(loop, body=body),)
    return body
