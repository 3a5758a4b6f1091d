"""Run a program of any number of statements and results.

Every statement that a kernel can do is one step or more with a kernel, as those of an equation are
(`execute.py`); others, such as the root of a complex number, are evaluated by NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from ..compiler.axis_order import with_ordered_axes
from ..compiler.finish import finish_of, has_kernel, operands_of
from ..compiler.machine import Machine, Target
from ..compiler.pad import pad
from ..compiler.program import Program, Statement, evaluate_statement, scattered
from ..compiler.records import dataclass
from ..compiler.regions import ZERO, boxes
from ..compiler.relayout import relayout
from ..compiler.schedule import Schedule
from ..compiler.slices import Element, Sliced, arrange, fit
from ..compiler.steps import Stepped, elements_of, steps, with_elements
from ..compiler.workspace import Workspace
from . import workspaces
from .bound import ZERO_AT, Bound, bind_steps
from .buffers import Buffer
from .entry import Work
from .kernels import Kernel, kernel
from .machine import machine
from .operands import KERNEL_DTYPES
from .pieces import Pieces, bind_pieces
from .step import Layouts, Step, Steps, element, geometry_of, moving, strides_of

__all__ = ["ProgramExecution", "prepare_program"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class ProgramExecution:
    """A prepared program. Calling it writes the results.

    Attributes:
        program: what is computed, in the order of execution.
        stepped: how it was cut into steps.
        steps: those with kernels. A statement on windows may have several, one that NumPy evaluates
            has none.
        dtypes: of every tensor.
        sliced: the loops around the statements, and where intermediates lie.
        stages: steps that are bound together, and between them what NumPy evaluates; of the pieces
            with whole blocks, if it is sliced.
        pieces: what runs if it is.
    """

    program: Program
    stepped: Stepped
    steps: tuple[Step, ...]
    dtypes: Mapping[str, np.dtype[Any]]
    sliced: Sliced
    stages: tuple[Bound | Statement, ...]
    pieces: Pieces | None = None

    @property
    def workspace(self) -> Workspace:
        """Where the intermediates lie."""
        return self.sliced.workspace

    @property
    def levels(self) -> tuple[int, ...]:
        """For each of the steps how many of the slices' loops are around it."""
        return tuple(n for each in self.stages if isinstance(each, Bound) for n in each.levels)

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

    def work(self, constants: Sequence[Array]) -> Work | None:
        """The same for the native entry, if kernels do it all and there is one result.

        Args:
            constants: the last of the operands, which the plan has at fixed addresses.
        """
        if self.pieces is not None or len(self.stages) != 1 or len(self.program.results) != 1:
            return None
        (bound,) = self.stages
        if not isinstance(bound, Bound):
            return None
        places = [*self.workspace.offsets.values()]
        fixed = [array.__array_interface__["data"][0] for array in constants]
        given = len(self.program.inputs) - len(constants)
        result = len(self.program.inputs)
        fills, arguments = [], bound.arguments.copy()
        for place, tensor, offset in bound.filled():
            if tensor == -1:
                arguments[place] = ZERO_AT + offset
            elif tensor < given:
                fills.append((place, tensor, offset))
            elif tensor < result:
                arguments[place] = fixed[tensor - given] + offset
            elif tensor == result:
                fills.append((place, given, offset))
            else:
                fills.append((place, given + 1, places[tensor - result - 1] + offset))
        return Work(bound.timed_calls(), arguments, tuple(fills), self.workspace.size)


def prepare_program(
    program: Program,
    layouts: Layouts,
    optimize: Any = True,
    obtain: Callable[[Schedule, Target], Kernel] = kernel,
    memory_limit: int | None = None,
) -> ProgramExecution:
    """Plan a program for operands and results of these layouts, and obtain its kernels.

    Args:
        program: every tensor has an element type.
        layouts: of the operands and the results: strides in bytes, and dtypes.
        optimize: how to choose the order of contraction.
        obtain: gets the kernels.
        memory_limit: bytes that intermediates may take.

    Raises:
        EinsumError: (a ValueError) there is no way to keep within the memory limit.
    """
    host = machine()
    stepped = steps(program, optimize, host, memory_limit)
    if memory_limit is None:
        made = _well_laid_out(with_elements(pad(stepped.program)), layouts, host)
        sliced = arrange(made, Element(stepped.element, stepped.element))
    else:
        stepped, sliced = _within(stepped, memory_limit, layouts, host)
    program = sliced.program
    dtypes = _dtypes(program)
    tensors = (*program.inputs, *program.results, *sliced.workspace.offsets)
    numbers = {name: number for number, name in enumerate(tensors)}
    numbers[ZERO] = -1
    makers = {dtype: Steps(host, obtain, dtype) for dtype in {*map(_wide, dtypes.values())}}
    blocks = {each.index for each in sliced.slices}
    given = {name: each for name, each in layouts.items() if name not in sliced.added}

    def made_of(statement: Statement, part: Program) -> list[Step]:
        known, sizes = _layouts(part, dtypes, given), part.sizes
        dtype = dtypes[statement.factors[0].tensor]
        maker = makers[_wide(dtype)]
        known[ZERO] = (), dtype
        whole = partial(maker.windows, part.shapes, known)
        found = boxes(statement, part.shapes, sizes, whole=whole)
        return [maker.make(b.statement, b.extents, known, b.windows, blocks) for b in found]

    def all_of(part: Program) -> list[tuple[Step, int]]:
        leveled = zip(part.statements, sliced.levels, strict=True)
        return [(step, level) for each, level in leveled for step in made_of(each, part)]

    if sliced.slices:
        pieces = Pieces(sliced, bind_pieces(sliced, numbers, given, all_of))
        whole = pieces.whole
        return ProgramExecution(program, stepped, whole.steps, dtypes, sliced, (whole,), pieces)
    stages: list[Bound | Statement] = []
    waiting: list[Step] = []
    every: list[Step] = []

    def bind() -> None:
        if waiting:
            stages.append(bind_steps(waiting, numbers, [[]] * len(waiting), [0] * len(waiting)))
            every.extend(waiting)
            waiting.clear()

    for statement in program.statements:
        if _has_kernel(statement, dtypes, program.sizes):
            waiting += made_of(statement, program)
        else:
            bind()
            stages.append(statement)
    bind()
    return ProgramExecution(program, stepped, tuple(every), dtypes, sliced, tuple(stages))


def _within(
    stepped: Stepped, limit: int, layouts: Layouts, host: Machine
) -> tuple[Stepped, Sliced]:
    """The fastest of the candidates that keeps within a memory limit, sliced if need be."""
    candidates = {name: with_elements(pad(each)) for name, each in stepped.candidates.items()}
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
    accesses = (*operands_of(statement), statement.target)
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
    reads = operands_of(statement)[len(statement.factors) :]
    elements = [f"{d.kind}{d.itemsize}" for d in (*factors, *(dtypes[r.tensor] for r in reads))]
    return len(factors) == 1 and has_kernel(finish.formula, elements)
