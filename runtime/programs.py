"""Run a program of any number of statements and results.

Every statement that a kernel can do is one step or more with a kernel, as those of an equation are
(`execute.py`); others, such as the root of a complex number, are evaluated by NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from ..compiler.axis_order import with_ordered_axes
from ..compiler.chains import Chain, chains, common_workspace
from ..compiler.common_names import with_common_names
from ..compiler.evaluate import evaluate_statement, scattered
from ..compiler.finish import finish_of, has_kernel
from ..compiler.inside import ZERO, boxes_of, kept_inside
from ..compiler.machine import Machine, Target
from ..compiler.paths import pairwise
from ..compiler.program import Program, Statement
from ..compiler.records import dataclass, replace
from ..compiler.relayout import relayout
from ..compiler.schedule import Schedule
from ..compiler.sliced import Element, Sliced, arrange
from ..compiler.steps import Stepped, elements_of, steps, with_elements
from ..compiler.workspace import Workspace
from . import workspaces
from .bound import Bound, bind_steps
from .buffers import Buffer
from .chain import ChainStep, bind_chain, chain_runner, runs_of
from .kernels import Kernel, KernelMissing, kernel
from .machine import machine
from .operands import KERNEL_DTYPES
from .pieces import Pieces, bind_pieces
from .step import Layouts, Step, Steps, element, geometry_of, moving, strides_of
from .work import ZERO_AT, Work

__all__ = ["ProgramExecution", "prepare_apart", "prepare_program"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class ProgramExecution:
    """A prepared program. Calling it writes the results.

    Attributes:
        program: what is computed, in the order of execution.
        stepped: how it was cut into steps.
        dtypes: of every tensor.
        sliced: the loops around the statements, and where intermediates lie.
        stages: steps that are bound together, and between them what NumPy evaluates; of the pieces
            with whole blocks, if it is sliced.
        pieces: what runs if it is.
        chains: statements that run block by block, with their numbers.
    """

    program: Program
    stepped: Stepped
    dtypes: Mapping[str, np.dtype[Any]]
    sliced: Sliced
    stages: tuple[Bound | Statement, ...]
    pieces: Pieces | None = None
    chains: tuple[Chain, ...] = ()

    @property
    def workspace(self) -> Workspace:
        """Where the intermediates lie."""
        return self.sliced.workspace

    @property
    def steps(self) -> tuple[Step, ...]:
        """Those with kernels, those of chains for a whole block.

        A statement on windows may have several, one that NumPy evaluates has none.
        """
        return tuple(step for step, _, _ in self.runs)

    @property
    def runs(self) -> tuple[tuple[Step, int, ChainStep | None], ...]:
        """The same with how often each runs, and its chain."""
        bound = (stage for stage in self.stages if isinstance(stage, Bound))
        return tuple(each for stage in bound for each in runs_of(stage, self.sliced))

    def __call__(self, operands: Sequence[Array], results: Sequence[Array]) -> None:
        """Compute into ``results``; all arrays have the layouts that were prepared for."""
        addresses = [array.__array_interface__["data"][0] for array in (*operands, *results)]
        size, buffer = self.workspace.size, None
        if size:
            buffer = workspaces.take(size)
            addresses += [buffer.address + offset for offset in self.workspace.offsets.values()]
        addresses.append(ZERO_AT)
        if self.pieces is not None and buffer is not None:
            named = dict(zip(self.program.results, results, strict=True))
            self.pieces.run(np.array(addresses), named, buffer)
        else:
            for stage in self.stages:
                if isinstance(stage, Bound):
                    stage.run(addresses)
                else:
                    self._by_numpy(stage, operands, results, buffer)
        if buffer is not None:
            workspaces.give_back(buffer)

    def _by_numpy(
        self,
        statement: Statement,
        operands: Sequence[Array],
        results: Sequence[Array],
        buffer: Buffer | None,
    ) -> None:
        """Do a statement without a kernel: of unknown dtypes or functions, or of no elements."""
        program = self.program
        arrays = dict(zip(program.inputs, operands, strict=True))
        arrays.update(zip(program.results, results, strict=True))
        for access in (*statement.accesses, statement.target):
            name = access.tensor
            if name not in arrays:
                place = (program.shapes[name], self.dtypes[name])
                if buffer is None:  # of no elements
                    arrays[name] = np.empty(*place)
                else:
                    offset = self.workspace.offsets[name]
                    arrays[name] = np.ndarray(*place, cast("Any", buffer.pages), offset)
        target = statement.target
        value = evaluate_statement(statement, arrays, program.sizes)
        if not target.is_plain:
            value = scattered(value, target, program.shapes[target.tensor])
        np.copyto(arrays[target.tensor], value, casting="unsafe")

    def storable(self) -> tuple[list[str], list[tuple[int, str]], Work] | None:
        """What `stored_plan.keep` wants to know, if kernels are all there is to run.

        Tensors are the operands, then the results, then the workspace.
        """
        if self.pieces is not None or len(self.stages) != 1:
            return None
        (bound,) = self.stages
        if not isinstance(bound, Bound):
            return None
        given = len(self.program.inputs) + len(self.program.results)
        placed = self.workspace
        work = bound.work(given, tuple(placed.offsets.values()), placed.size)
        return bound.keys(), bound.codes(), work

    def work(self, constants: Sequence[Array]) -> Work | None:
        """The same for the native entry, if kernels do it all.

        Args:
            constants: the last of the operands, which the plan has at fixed addresses.
        """
        stored = self.storable()
        if stored is None:
            return None
        return stored[2].with_constants(len(self.program.inputs), constants)


def prepare_program(
    program: Program,
    layouts: Layouts,
    optimize: Any = True,
    obtain: Callable[[Schedule, Target], Kernel] = kernel,
    memory_limit: int | None = None,
    stepped: Stepped | None = None,
) -> ProgramExecution:
    """Plan a program for operands and results of these layouts, and obtain its kernels.

    Args:
        program: every tensor has an element type.
        layouts: of the operands and the results: strides in bytes, and dtypes.
        optimize: how to choose the order of contraction.
        obtain: gets the kernels.
        memory_limit: bytes that intermediates may take.
        stepped: the program in steps, if that is known; it does not depend on strides.

    Raises:
        EinsumError: (a ValueError) there is no way to keep within the memory limit.
        KernelMissing: kernels may not be compiled, and there is no way to do with those that exist.
    """
    prepared = partial(_prepared, program, layouts, optimize, obtain, memory_limit, stepped)
    try:
        return prepared(in_chains=optimize is True and memory_limit is None)
    except KernelMissing:
        try:
            return prepared(in_chains=False)  # with kernels that others may have asked for
        except KernelMissing:
            if optimize is not True or memory_limit is not None:
                raise
            return prepare_apart(program, layouts, obtain)


def prepare_apart(
    program: Program,
    layouts: Layouts,
    obtain: Callable[[Schedule, Target], Kernel] = kernel,
    stepped: Stepped | None = None,
) -> ProgramExecution:
    """The same in steps of two operands at most, each statement on its own and without copies.

    What kernels that takes does not depend on sizes: a signature's store has them for any.
    """
    return _prepared(program, layouts, pairwise, obtain, None, stepped, in_chains=False, apart=True)


def _prepared(
    program: Program,
    layouts: Layouts,
    optimize: Any,
    obtain: Callable[[Schedule, Target], Kernel],
    memory_limit: int | None,
    stepped: Stepped | None,
    *,
    in_chains: bool,
    apart: bool = False,
) -> ProgramExecution:
    """The execution, with chains where they are faster or without; or with statements `apart`."""
    host = machine()
    stepped = stepped or steps(program, optimize, host, memory_limit, apart)
    if memory_limit is None:
        made = with_elements(kept_inside(stepped.program))
        if in_chains:
            made = with_common_names(made)
        if not apart:
            made = _well_laid_out(made, layouts, host)
        sliced = arrange(made, Element(stepped.element, stepped.element))
    else:
        stepped, sliced = _within(stepped, memory_limit, layouts, host)
    program = sliced.program
    dtypes = _dtypes(program)
    has_kernel = partial(_has_kernel, dtypes=dtypes, sizes=program.sizes)
    runner = chain_runner(obtain) if in_chains else None
    found = [] if runner is None else chains(program, stepped.element, host, has_kernel)
    if found:
        sliced = replace(sliced, workspace=common_workspace(program, found, sliced.sizes))
    tensors = (*program.inputs, *program.results, *sliced.workspace.offsets)
    numbers = {name: number for number, name in enumerate(tensors)}
    numbers[ZERO] = -1
    makers = {dtype: Steps(host, obtain, dtype) for dtype in {*map(_wide, dtypes.values())}}
    blocks = {each.index for each in sliced.slices}
    given = {name: each for name, each in layouts.items() if name not in sliced.added}

    def made_of(
        statement: Statement,
        part: Program,
        given: Layouts = given,
        blocks: Collection[str] = blocks,
    ) -> list[Step]:
        known, sizes = _layouts(part, dtypes, given), part.sizes
        dtype = dtypes[statement.factors[0].tensor]
        maker = makers[_wide(dtype)]
        known[ZERO] = (), dtype
        whole = partial(maker.windows, part.shapes, known)
        found = boxes_of(statement, part.shapes, sizes, whole)
        return [maker.make(b.statement, b.extents, known, b.windows, blocks) for b in found]

    def all_of(part: Program) -> list[tuple[Step, int]]:
        leveled = zip(part.statements, sliced.levels, strict=True)
        return [(step, level) for each, level in leveled for step in made_of(each, part)]

    if sliced.slices:
        pieces = Pieces(sliced, bind_pieces(sliced, numbers, given, all_of))
        return ProgramExecution(program, stepped, dtypes, sliced, (pieces.whole,), pieces)
    stages: list[Bound | Statement] = []
    waiting: list[Step | ChainStep] = []

    def bind() -> None:
        if waiting:
            stages.append(bind_steps(waiting, numbers, [[]] * len(waiting), [0] * len(waiting)))
            waiting.clear()

    def chained(chain: Chain) -> ChainStep:
        every = _layouts(program, dtypes, given)
        common = {name: each for name, each in every.items() if name not in chain.local}
        loops = {each.index for each in chain.slices}

        def make(part: Program) -> list[Step]:
            inside = part.statements[chain.first : chain.last]
            return [step for each in inside for step in made_of(each, part, common, loops)]

        return bind_chain(chain, program, common, make, host, runner or 0, stepped.element)

    begins = {chain.first: chain for chain in found}
    inside = {number for chain in found for number in range(chain.first, chain.last)}
    for number, statement in enumerate(program.statements):
        if number in begins:
            waiting.append(chained(begins[number]))
        elif number in inside:
            continue
        elif has_kernel(statement):
            waiting += made_of(statement, program)
        else:
            bind()
            stages.append(statement)
    bind()
    return ProgramExecution(program, stepped, dtypes, sliced, tuple(stages), chains=tuple(found))


def _within(
    stepped: Stepped, limit: int, layouts: Layouts, host: Machine
) -> tuple[Stepped, Sliced]:
    """The fastest of the candidates that keeps within a memory limit, sliced if need be."""
    from ..compiler.slices import fit  # the search: few calls have a limit

    candidates = {
        name: with_elements(kept_inside(each)) for name, each in stepped.candidates.items()
    }
    elements = Element(stepped.element, stepped.element)
    fixed = {
        index
        for each in candidates.values()
        for statement in each.statements
        if not _has_kernel(statement, _dtypes(each), each.sizes)
        for index in each.sizes
    }
    chosen, sliced = fit(candidates, limit, elements, host, fixed)
    copied = _well_laid_out(sliced.program, layouts, host)
    again = arrange(copied, elements, sliced.slices, sliced.hoisted)
    return stepped.choosing(chosen), again if again.workspace.size <= limit else sliced


def _well_laid_out(program: Program, layouts: Layouts, host: Machine) -> Program:
    """The program with the axes of intermediates in the order that steps like, and with copies of
    small operands that a step would read badly.
    """
    dtypes = _dtypes(program)
    simple = len({*dtypes.values()}) == 1 and all(
        _has_kernel(statement, dtypes, program.sizes) for statement in program.statements
    )
    if not simple or not program.statements:
        return program
    (dtype,) = {*dtypes.values()}
    sizes, wide = program.sizes, _wide(dtype)
    moved = moving(_layouts(program, dtypes, layouts), sizes, wide)
    program = with_ordered_axes(program, moved, element(wide), host)
    geometry = partial(geometry_of, _layouts(program, dtypes, layouts), sizes, wide)
    return with_elements(relayout(program, geometry, host))


def _dtypes(program: Program) -> dict[str, np.dtype[Any]]:
    return {name: np.dtype(element) for name, element in elements_of(program).items()}


def _layouts(
    program: Program, dtypes: Mapping[str, np.dtype[Any]], given: Layouts
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """The given layouts, and for all other tensors those of C-ordered arrays."""
    shapes = program.shapes
    return {
        name: given.get(name) or (strides_of(shapes[name], dtype.itemsize), dtype)
        for name, dtype in dtypes.items()
    }


_HALVES = {np.dtype("f2"), np.dtype("f4")}


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What sums are accumulated in."""
    return np.dtype("f4") if dtype == np.float16 else dtype


def _has_kernel(
    statement: Statement, dtypes: Mapping[str, np.dtype[Any]], sizes: Mapping[str, int]
) -> bool:
    """Whether there is code for a statement's types and functions, and something to compute."""
    accesses = (*statement.operands, statement.target)
    if not all(sizes[index] for index in statement.indices):
        return False
    if not {dtypes[access.tensor] for access in accesses} <= KERNEL_DTYPES:
        return False
    factors = {dtypes[factor.tensor] for factor in statement.factors}
    if factors == _HALVES:
        factors = {np.dtype("f4")}
    finish = finish_of(statement)
    if finish is None:
        target = dtypes[statement.target.tensor]
        return len(factors) == 1 and (target in factors or {target, *factors} == _HALVES)
    reads = statement.operands[len(statement.factors) :]
    elements = [f"{d.kind}{d.itemsize}" for d in (*factors, *(dtypes[r.tensor] for r in reads))]
    return len(factors) == 1 and has_kernel(finish.formula, elements)
