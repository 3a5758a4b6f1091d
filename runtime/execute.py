"""Bind an expression to the layouts of its operands, and run it.

Preparing factorizes the expression, chooses a schedule for each step, obtains the kernels and lays
out every argument but the addresses. What is prepared may then be called with any arrays of the
same dtypes, shapes and strides, from any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from ..compiler.errors import EinsumError
from ..compiler.factorize import Factorization, factorize
from ..compiler.geometry import Geometry
from ..compiler.inside import ZERO, boxes_of, kept_inside, with_margins
from ..compiler.machine import Target
from ..compiler.paths import pairwise
from ..compiler.program import Program, Statement, from_expression
from ..compiler.records import dataclass, replace
from ..compiler.relayout import relayout
from ..compiler.schedule import Schedule
from ..compiler.sliced import Element, Sliced, arrange
from ..compiler.spread import in_registers
from ..compiler.subscripts import Expression
from . import settings, workspaces
from .bound import Bound
from .kernels import Kernel, KernelMissing, kernel
from .machine import machine
from .pieces import Pieces, bind_pieces
from .step import Layouts, Step, Steps, element, geometry_of, moving, strides_of
from .work import ZERO_AT, Work

__all__ = ["Execution", "prepare", "prepare_layouts", "same_arrays"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Execution:
    """A prepared expression. Calling it writes the result into `out`.

    Python runs between the steps, so Ctrl-C ends a long sequence of them.

    Attributes:
        program: what is computed, in the order of execution. If it is sliced, the extents are those
            of a piece.
        factorization: how it was chosen.
        temporaries: shape and dtype of each intermediate.
        sliced: the loops around the statements, and where intermediates lie.
        bound: the steps. If the last block of a sliced index is shorter than the others there is an
            entry for that, and so on: keys tell for each slice whether the block is a whole one.
    """

    program: Program
    factorization: Factorization
    temporaries: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    sliced: Sliced
    bound: Mapping[tuple[bool, ...], Bound]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps for whole blocks."""
        return cast("tuple[Step, ...]", next(iter(self.bound.values())).steps)

    @property
    def every_step(self) -> tuple[Step, ...]:
        """The steps for blocks of any length."""
        bound = (cast("tuple[Step, ...]", each.steps) for each in self.bound.values())
        return tuple(step for steps in bound for step in steps)

    @property
    def levels(self) -> tuple[int, ...]:
        """For each of them how many of the slices' loops are around it."""
        return next(iter(self.bound.values())).levels

    def __call__(self, operands: Sequence[Array], out: Array) -> None:
        """Compute into ``out``; the arrays have the layouts that were prepared for."""
        addresses = [array.__array_interface__["data"][0] for array in operands]
        addresses.append(out.__array_interface__["data"][0])
        placed = self.sliced.workspace
        if not placed.size:
            addresses.append(ZERO_AT)
            return self.bound[()].run(addresses)
        buffer = workspaces.take(placed.size)
        addresses += [buffer.address + offset for offset in placed.offsets.values()]
        addresses.append(ZERO_AT)
        if self.sliced.slices:
            pieces = Pieces(self.sliced, self.bound)
            pieces.run(np.array(addresses), {self.program.result: out}, buffer)
        else:
            self.bound[()].run(addresses)
        # An exception leaves this out: then the memory is freed.
        workspaces.give_back(buffer)
        return None

    def work(self) -> Work | None:
        """The same for the native entry, which runs all but pieces."""
        stored = self.storable()
        return stored[2].settled() if stored is not None else None

    def storable(self) -> tuple[list[str], list[tuple[int, str]], Work] | None:
        """What `stored_plan.keep` wants to know, unless there are pieces."""
        if self.sliced.slices:
            return None
        bound, placed = self.bound[()], self.sliced.workspace
        given, offsets = len(self.program.inputs) + 1, tuple(placed.offsets.values())
        work = bound.work(given, offsets, placed.size)
        return bound.keys(), bound.codes(), work


def prepare(
    expression: Expression,
    operands: Sequence[Array],
    out: Array,
    optimize: Any = True,
    memory_limit: int | None = None,
) -> Execution:
    """Plan an expression for operands and an output of these layouts, and obtain its kernels.

    All operands are of one dtype, aligned and in native byte order; ``out`` has that dtype, is
    writable and overlaps no operand. No extent is zero. Intermediates take at most ``memory_limit``
    bytes.
    """
    dtype, strides = operands[0].dtype, [array.strides for array in operands]
    same = same_arrays(operands)
    if stages := settings.current().show:
        from .explain import print_stages

        print_stages(stages, expression, dtype, strides, out.strides, optimize, same, memory_limit)
    return prepare_layouts(
        expression, dtype, strides, out.strides, optimize, same, memory_limit=memory_limit
    )


def prepare_layouts(
    expression: Expression,
    dtype: np.dtype[Any],
    strides: Sequence[tuple[int, ...]],
    out_strides: tuple[int, ...],
    optimize: Any = True,
    same: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    obtain: Callable[[Schedule, Target], Kernel] = kernel,
    memory_limit: int | None = None,
) -> Execution:
    """The same from layouts alone, before any array exists.

    ``strides`` are each operand's in bytes; ``same[i]`` is the first operand that is the same array
    as operand ``i``; ``names`` are what the operands are called; ``obtain`` gets the kernels.

    Raises:
        EinsumError: (a ValueError) there is no way to keep within the memory limit.
        KernelMissing: kernels may not be compiled, and there is no way to do with those that exist.
    """
    prepared = partial(
        _prepared,
        expression,
        dtype,
        strides,
        out_strides,
        same=same,
        names=names,
        obtain=obtain,
        memory_limit=memory_limit,
    )
    try:
        best = prepared(optimize)
    except KernelMissing:
        if optimize is not True:
            raise
        best = None
    if best is not None and (optimize is not True or not any(s.is_general for s in best.steps)):
        return best
    # Of two operands a step, without copies: what a signature's kernels do for any sizes.
    try:
        apart = prepared(pairwise, copies=False)
    except (KernelMissing, EinsumError):
        if best is None:
            raise
        return best
    return apart if best is None else min(best, apart, key=_seconds_with_kernels)


GENERAL = 10
"""How many times as long a step takes with a general kernel (see docs/coverage.md)."""


def _seconds_with_kernels(execution: Execution) -> float:
    return sum(step.seconds * (GENERAL if step.is_general else 1) for step in execution.steps)


def _prepared(
    expression: Expression,
    dtype: np.dtype[Any],
    strides: Sequence[tuple[int, ...]],
    out_strides: tuple[int, ...],
    optimize: Any,
    *,
    same: Sequence[int] | None,
    names: Sequence[str] | None,
    obtain: Callable[[Schedule, Target], Kernel],
    memory_limit: int | None,
    copies: bool = True,
) -> Execution:
    """The execution with one order of contraction; with copies of what is badly laid out or not."""
    host = machine()
    program = from_expression(expression, names, same)
    inputs = program.inputs
    wide = np.dtype("f4") if dtype == np.float16 else dtype
    elements = Element(element(dtype), element(wide))
    largest = None if memory_limit is None else memory_limit // wide.itemsize
    factorization = factorize(program, optimize, host, element(dtype), largest)
    given = {name: (each, dtype) for name, each in zip(inputs, strides, strict=True)}
    given[program.result] = (out_strides, dtype)

    maker = Steps(host, obtain, wide)

    def well_laid_out(program: Program) -> Program:
        if not copies:
            return program
        sizes = program.sizes
        if len(program.statements) > 1:
            from ..compiler.axis_order import with_ordered_axes

            moved = moving(_layouts(program, given, wide), sizes, wide)
            program = with_ordered_axes(program, moved, element(dtype), host)
        layouts, shapes = _layouts(program, given, wide), program.shapes

        def geometry(statement: Statement) -> Geometry:
            windows = maker.windows(shapes, layouts, statement, sizes)
            return geometry_of(layouts, sizes, wide, statement, windows)

        return relayout(program, geometry, host)

    if memory_limit is None:
        if optimize is True and copies:
            program = with_margins(factorization.program, element(dtype), host)
            program = in_registers(program, element(dtype), host)
            factorization = replace(factorization, program=program)
        program = kept_inside(factorization.program)
        sliced = arrange(well_laid_out(program), elements)
    else:
        from ..compiler.slices import fit  # the search: few calls have a limit

        candidates = {name: kept_inside(each) for name, each in factorization.programs.items()}
        chosen, sliced = fit(candidates, memory_limit, elements, host)
        program = factorization.programs[chosen]
        factorization = replace(factorization, program=program, chosen=chosen)
        if sliced.adds:
            del given[program.result]  # kernels write pieces of it, which are intermediates
        program = well_laid_out(sliced.program)
        copied = arrange(program, elements, sliced.slices, sliced.hoisted)
        if copied.workspace.size <= memory_limit:
            sliced = copied
    program, offsets = sliced.program, sliced.workspace.offsets
    numbers = {name: number for number, name in enumerate([*inputs, program.result, *offsets])}
    numbers[ZERO] = -1
    blocks = {each.index for each in sliced.slices}

    def steps(part: Program) -> list[tuple[Step, int]]:
        layouts, extents, axes = _layouts(part, given, wide), part.sizes, part.shapes
        made = []
        for statement, level in zip(part.statements, sliced.levels, strict=True):
            layouts[ZERO] = (), layouts[statement.target.tensor][1]
            whole = partial(maker.windows, axes, layouts)
            for box in boxes_of(statement, axes, extents, whole):
                step = maker.make(box.statement, box.extents, layouts, box.windows, blocks)
                made.append((step, level))
        return made

    bound = bind_pieces(sliced, numbers, given, steps)
    shapes = program.shapes
    temporaries = {name: (shapes[name], wide) for name in sliced.sizes if name in shapes}
    return Execution(program, factorization, temporaries, sliced, bound)


def _layouts(
    program: Program, given: Layouts, dtype: np.dtype[Any]
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """The given layouts, and for all other tensors those of C-ordered arrays."""
    made = {
        tensor.name: (strides_of(tensor.axes, dtype.itemsize), dtype)
        for tensor in program.tensors
        if tensor.name not in given
    }
    return {**given, **made}


def same_arrays(operands: Sequence[Array]) -> list[int]:
    """For every operand the first one that is the same array: its memory, layout and dtype."""
    seen: dict[Any, int] = {}
    same = []
    for position, array in enumerate(operands):
        identity = (array.__array_interface__["data"][0], array.shape, array.strides)
        same.append(seen.setdefault(identity, position))
    return same
