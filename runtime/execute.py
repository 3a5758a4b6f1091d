"""Bind an expression to the layouts of its operands, and run it.

Preparing factorizes the expression, chooses a schedule for each step, obtains the kernels and lays
out every argument but the addresses. What is prepared may then be called with any arrays of the
same dtypes, shapes and strides, from any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..compiler.errors import EinsumError
from ..compiler.factorize import Factorization, factorize
from ..compiler.geometry import Geometry
from ..compiler.inside import ZERO, boxes_of, kept_inside, with_margins
from ..compiler.machine import Machine, Target
from ..compiler.paths import pairwise
from ..compiler.program import Program, Statement, from_expression
from ..compiler.records import dataclass, replace
from ..compiler.relayout import relayout
from ..compiler.schedule import Schedule
from ..compiler.sliced import Element, Sliced, arrange
from ..compiler.spread import in_registers
from ..compiler.subscripts import Expression
from . import settings, workspaces
from .bound import Bound, bind_steps
from .kernels import Kernel, KernelMissing, kernel
from .machine import machine
from .pieces import Pieces, bind_pieces
from .step import Layouts, Step, Steps, element, geometry_of, moving, strides_of
from .work import ZERO_AT, Work

if TYPE_CHECKING:
    from ..compiler.chains import Chain
    from .chain import ChainStep

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
        chains: statements that run block by block, with their numbers.
    """

    program: Program
    factorization: Factorization
    temporaries: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    sliced: Sliced
    bound: Mapping[tuple[bool, ...], Bound]
    chains: tuple[Chain, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps for whole blocks."""
        return tuple(step for step, _, _ in self.runs)

    @property
    def runs(self) -> tuple[tuple[Step, int, ChainStep | None], ...]:
        """The same with how often each runs, and its chain."""
        if not self.chains:
            bound = next(iter(self.bound.values()))
            steps = cast("tuple[Step, ...]", bound.steps)
            pairs = zip(steps, bound.levels, strict=True)
            return tuple((step, self.sliced.runs(level), None) for step, level in pairs)
        from .chain import runs_of

        return tuple(runs_of(self.bound[()], self.sliced))

    @property
    def every_step(self) -> tuple[Step, ...]:
        """The steps for blocks of any length, of a plan without chains."""
        bound = (cast("tuple[Step, ...]", each.steps) for each in self.bound.values())
        return tuple(step for steps in bound for step in steps)

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
    in_chains: bool = True,
) -> Execution:
    """The same from layouts alone, before any array exists.

    ``strides`` are each operand's in bytes; ``same[i]`` is the first operand that is the same array
    as operand ``i``; ``names`` are what the operands are called; ``obtain`` gets the kernels.
    Without ``in_chains`` each step is done with before the next one begins.

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
        best = prepared(optimize, in_chains=in_chains and optimize is True and memory_limit is None)
    except KernelMissing:
        if optimize is not True:
            raise
        best = None
    if best is not None and (optimize is not True or not any(s.is_general for s in best.steps)):
        return best
    # Of two operands a step, without copies: what a signature's kernels do for any sizes.
    try:
        apart = prepared(pairwise, copies=False, in_chains=False)
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
    in_chains: bool,
    copies: bool = True,
) -> Execution:
    """The execution with one order of contraction; with copies of what is badly laid out or not.

    And with chains, where they are faster.
    """
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
    program, runner = sliced.program, None
    found: tuple[Chain, ...] = ()
    if in_chains and len(program.statements) > 1 and _leaves_cache(program, wide, host):
        from ..compiler.chains import chains, common_workspace
        from .chain import bind_chain, chain_runner

        runner = chain_runner(obtain)
        found = () if runner is None else tuple(chains(program, element(dtype), host))

    def made_of(
        part: Program, first: int, last: int, given: Layouts, blocks: Collection[str]
    ) -> Iterator[tuple[Step, int]]:
        """The steps of some statements, each with how many loops are around it."""
        layouts, extents, axes = _layouts(part, given, wide), part.sizes, part.shapes
        whole = partial(maker.windows, axes, layouts)
        leveled = zip(part.statements, sliced.levels, strict=True)
        for statement, level in islice(leveled, first, last):
            layouts[ZERO] = (), layouts[statement.target.tensor][1]
            for box in boxes_of(statement, axes, extents, whole):
                step = maker.make(box.statement, box.extents, layouts, box.windows, blocks)
                yield step, level

    def chained(chain: Chain) -> ChainStep:
        every = _layouts(program, given, wide)
        common = {name: each for name, each in every.items() if name not in chain.local}
        loops = {each.index for each in chain.slices}

        def make(part: Program) -> list[Step]:
            return [step for step, _ in made_of(part, chain.first, chain.last, common, loops)]

        return bind_chain(chain, program, common, make, host, runner or 0, element(wide))

    def numbered(placed: Sliced) -> dict[str, int]:
        tensors = [*inputs, program.result, *placed.workspace.offsets]
        return {name: number for number, name in enumerate(tensors)} | {ZERO: -1}

    def in_blocks() -> Execution:
        placed = replace(sliced, workspace=common_workspace(program, found, sliced.sizes))
        made: list[Step | ChainStep] = []
        begin, end = 0, len(program.statements)
        for chain in found:
            made += [step for step, _ in made_of(program, begin, chain.first, given, ())]
            made.append(chained(chain))
            begin = chain.last
        made += [step for step, _ in made_of(program, begin, end, given, ())]
        bound: Mapping[tuple[bool, ...], Bound]
        bound = {(): bind_steps(made, numbered(placed), [[]] * len(made), [0] * len(made))}
        local = {name for chain in found for name in chain.local}
        return Execution(program, factorization, temporaries(local), placed, bound, found)

    def one_by_one() -> Execution:
        blocks = {each.index for each in sliced.slices}

        def steps(part: Program) -> list[tuple[Step, int]]:
            return [*made_of(part, 0, len(part.statements), given, blocks)]

        bound = bind_pieces(sliced, numbered(sliced), given, steps)
        return Execution(program, factorization, temporaries(()), sliced, bound)

    def temporaries(local: Collection[str]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        shapes = program.shapes
        placed = (name for name in sliced.sizes if name in shapes and name not in local)
        return {name: (shapes[name], wide) for name in placed}

    if found:
        with suppress(KernelMissing):  # steps one by one have other kernels
            return in_blocks()
    return one_by_one()


def _leaves_cache(program: Program, dtype: np.dtype[Any], host: Machine) -> bool:
    """Whether a core's own cache is too small for any tensor: nothing smaller is cut in blocks."""
    largest = max(map(prod, program.shapes.values()))
    return largest * dtype.itemsize > host.l2_bytes


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
