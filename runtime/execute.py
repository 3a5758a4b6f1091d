"""Bind an expression to the layouts of its operands, and run it.

Preparing factorizes the expression, chooses a schedule for each step, obtains the kernels and lays
out every argument but the addresses. What is prepared may then be called with any arrays of the
same dtypes, shapes and strides, from any number of threads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, cast

import numpy as np

from ..compiler.axis_order import with_ordered_axes
from ..compiler.factorize import Factorization, factorize
from ..compiler.finish import operands_of
from ..compiler.geometry import Geometry
from ..compiler.machine import Target
from ..compiler.margin import with_margins
from ..compiler.merge import in_registers
from ..compiler.pad import pad
from ..compiler.paths import pairwise
from ..compiler.program import Program, Statement, from_expression
from ..compiler.records import dataclass, replace
from ..compiler.regions import ZERO, boxes
from ..compiler.relayout import relayout
from ..compiler.schedule import Schedule
from ..compiler.slices import TOTAL, Element, Sliced, arrange, fit, with_extents
from ..compiler.subscripts import Expression
from . import settings, threads, workspaces
from .bound import ZERO_AT, Bound, bind_steps
from .buffers import Buffer
from .entry import Work
from .kernels import Kernel, KernelMissing, kernel
from .machine import machine
from .step import Layouts, Step, Steps, element, geometry_of, moving, steps_along, strides_of

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
        return next(iter(self.bound.values())).steps

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
            with np.errstate(all="ignore"):  # kernels do not warn either
                self._run_slices(np.array(addresses), out, buffer)
        else:
            self.bound[()].run(addresses)
        # An exception leaves this out: then the memory is freed.
        workspaces.give_back(buffer)
        return None

    def _run_slices(self, addresses: Array, out: Array, buffer: Buffer) -> None:
        """Run the pieces one after the other, and add them up where that is asked for."""
        sliced, slices = self.sliced, self.sliced.slices
        # Statements in loops whose index is where it was have run for a piece already.
        firsts = {
            key: [bisect_left(bound.levels, level) for level in range(1, len(slices) + 1)]
            for key, bound in self.bound.items()
        }
        arguments = {key: bound.arguments.copy() for key, bound in self.bound.items()}
        bases = {k: addresses[bound.tensors] + bound.offsets for k, bound in self.bound.items()}
        before: tuple[int, ...] = ()
        for piece in sliced.pieces():
            key = tuple(p + s.block <= s.extent for p, s in zip(piece, slices, strict=True))
            bound = self.bound[key]
            arguments[key][bound.places] = bases[key] + np.array(piece) @ bound.moves
            changed = (n for n, p in enumerate(before) if p != piece[n])
            first = firsts[key][next(changed)] if before else 0
            begin = arguments[key].__array_interface__["data"][0]
            for code, offset, tiles, scratch_bytes, most in bound.calls[first:]:
                threads.run(code, begin + offset, tiles, scratch_bytes, most=most)
            if sliced.adds:
                self._add(piece, out, buffer)
            before = piece

    def _add(self, piece: tuple[int, ...], out: Array, buffer: Buffer) -> None:
        """Add a piece of the result to what there is of it, in the accumulator's dtype."""
        slices = {s.index: (p, s) for p, s in zip(piece, self.sliced.slices, strict=True)}
        reduced = [(p, s) for p, s in slices.values() if s.reduced]
        part = []
        for axis in self.program.statements[-1].target.subscripts:
            begin, each = slices.get(axis.names[0], (0, None))
            part.append(slice(begin, begin + each.block) if each else slice(None))
        target: Array = out[cast("Any", (*part, ...))]
        dtype = self.temporaries[self.program.result][1]

        def intermediate(name: str) -> Array:
            offset = self.sliced.workspace.offsets[name]
            return np.ndarray(target.shape, dtype, cast("Any", buffer.pages), offset)

        new = intermediate(self.program.result)
        total = intermediate(TOTAL) if TOTAL in self.sliced.sizes else target
        if all(p == 0 for p, _ in reduced):
            np.copyto(total, new)
        else:
            np.add(total, new, out=total)
        if total is not target and all(p + s.block >= s.extent for p, s in reduced):
            np.copyto(target, total, casting="same_kind")

    def work(self) -> Work | None:
        """The same for the native entry, which runs all but pieces and what sets to zero."""
        if self.sliced.slices:
            return None
        bound, placed = self.bound[()], self.sliced.workspace
        given, offsets = len(self.program.inputs) + 1, tuple(placed.offsets.values())
        if -1 in bound.tensors:
            return None  # the constant zero is this process' own
        fills = []
        for place, tensor, offset in bound.filled():
            if tensor < given:
                fills.append((place, tensor, offset))
            else:
                fills.append((place, given, offsets[tensor - given] + offset))
        return Work(bound.timed_calls(), bound.arguments, tuple(fills), placed.size)


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
        return prepared(optimize)
    except KernelMissing:
        if optimize is not True:
            raise
        # Of two operands a step, without copies: what a signature's kernels do for any sizes.
        return prepared(pairwise, copies=False)


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
        sizes, before = program.sizes, _layouts(program, given, wide)
        program = with_ordered_axes(program, moving(before, sizes, wide), element(dtype), host)
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
        program = pad(factorization.program)
        sliced = arrange(well_laid_out(program), elements)
    else:
        candidates = {name: pad(each) for name, each in factorization.programs.items()}
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
    bound: dict[tuple[bool, ...], Bound] = {}
    for key in product(*((True, False) if s.extent % s.block else (True,) for s in sliced.slices)):
        ends = {
            each.index: each.extent % each.block
            for each, is_whole in zip(sliced.slices, key, strict=True)
            if not is_whole
        }
        part = with_extents(program, ends) if ends else program
        layouts, extents, axes = _layouts(part, given, wide), part.sizes, part.shapes
        steps, levels = [], []
        for statement, level in zip(part.statements, sliced.levels, strict=True):
            layouts[ZERO] = (), layouts[statement.target.tensor][1]
            whole = partial(maker.windows, axes, layouts)
            for box in boxes(statement, axes, extents, whole=whole):
                steps.append(maker.make(box.statement, box.extents, layouts, box.windows, blocks))
                levels.append(level)
        moves = [_moves(each, sliced, given) for each in steps]
        bound[key] = bind_steps(steps, numbers, moves, levels)
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


def _moves(step: Step, sliced: Sliced, given: Layouts) -> list[list[int]]:
    """For each slice, by how many bytes each operand's address grows with the sliced index.

    Intermediates are those of a piece, and stay where they are.
    """
    accesses = (*operands_of(step.statement), step.statement.target)
    order = (*step.form.numbered_choice.operands, len(accesses) - 1)
    grow = []
    for access in [accesses[n] for n in order] if sliced.slices else ():
        strides, dtype = given.get(access.tensor, ((0,) * len(access.subscripts), np.dtype("i1")))
        steps = steps_along(access, strides, dtype)
        grow.append({index: stride * dtype.itemsize for index, stride in steps.items()})
    return [[each.get(s.index, 0) for each in grow] for s in sliced.slices]


def same_arrays(operands: Sequence[Array]) -> list[int]:
    """For every operand the first one that is the same array: its memory, layout and dtype."""
    seen: dict[Any, int] = {}
    same = []
    for position, array in enumerate(operands):
        identity = (array.__array_interface__["data"][0], array.shape, array.strides)
        same.append(seen.setdefault(identity, position))
    return same
