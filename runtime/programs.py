"""Run a program of any number of statements and results.

Every statement that a kernel can do is one step or more with a kernel, as those of an equation are
(`execute.py`); others, such as the root of a complex number, are evaluated by NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, cast

import numpy as np

from ..compiler.axis_order import with_ordered_axes
from ..compiler.finish import finish_of, has_kernel, operands_of
from ..compiler.machine import Machine, Target
from ..compiler.pad import pad
from ..compiler.program import Program, Statement, evaluate_statement, scattered
from ..compiler.records import dataclass, replace
from ..compiler.regions import ZERO, boxes
from ..compiler.relayout import relayout
from ..compiler.schedule import Schedule
from ..compiler.steps import Stepped, elements_of, steps, with_elements
from ..compiler.workspace import Workspace, ordered
from . import workspaces
from .bound import ZERO_AT, Bound, bind_steps
from .buffers import Buffer
from .entry import Work
from .kernels import Kernel, kernel
from .machine import machine
from .operands import KERNEL_DTYPES
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
        workspace: where the intermediates lie.
        stages: steps that are bound together, and between them what NumPy evaluates.
    """

    program: Program
    stepped: Stepped
    steps: tuple[Step, ...]
    dtypes: Mapping[str, np.dtype[Any]]
    workspace: Workspace
    stages: tuple[Bound | Statement, ...]

    def __call__(self, operands: Sequence[Array], results: Sequence[Array]) -> None:
        """Compute into ``results``; all arrays have the layouts that were prepared for."""
        addresses = [array.__array_interface__["data"][0] for array in (*operands, *results)]
        size, buffer = self.workspace.size, None
        if size:
            buffer = workspaces.take(size)
            addresses += [buffer.address + offset for offset in self.workspace.offsets.values()]
        addresses.append(ZERO_AT)
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
        if len(self.stages) != 1 or len(self.program.results) != 1:
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
) -> ProgramExecution:
    """Plan a program for operands and results of these layouts, and obtain its kernels.

    Args:
        program: every tensor has an element type.
        layouts: of the operands and the results: strides in bytes, and dtypes.
        optimize: how to choose the order of contraction.
        obtain: gets the kernels.
    """
    host = machine()
    stepped = steps(program, optimize, host)
    program = with_elements(pad(stepped.program))
    program = _well_laid_out(program, layouts, host)
    dtypes = _dtypes(program)
    shapes, sizes = program.shapes, program.sizes
    known = _layouts(program, dtypes, layouts)
    intermediates = {
        name: prod(shapes[name]) * dtypes[name].itemsize for name in dtypes if name not in layouts
    }
    statements, placed = ordered(program.statements, intermediates)
    program = replace(program, statements=tuple(statements))
    tensors = (*program.inputs, *program.results, *placed.offsets)
    numbers = {name: number for number, name in enumerate(tensors)}
    numbers[ZERO] = -1
    makers = {dtype: Steps(host, obtain, dtype) for dtype in {*map(_wide, dtypes.values())}}
    made: list[Step] = []
    stages: list[Bound | Statement] = []

    def bind(since: int) -> None:
        if since < len(made):
            part = made[since:]
            stages.append(bind_steps(part, numbers, [[]] * len(part), [0] * len(part)))

    since = 0
    for statement in program.statements:
        if not _has_kernel(statement, dtypes, sizes):
            bind(since)
            since = len(made)
            stages.append(statement)
            continue
        dtype = dtypes[statement.factors[0].tensor]
        maker = makers[_wide(dtype)]
        known[ZERO] = (), dtype
        whole = partial(maker.windows, shapes, known)
        for box in boxes(statement, shapes, sizes, whole=whole):
            made.append(maker.make(box.statement, box.extents, known, box.windows))
    bind(since)
    return ProgramExecution(program, stepped, tuple(made), dtypes, placed, tuple(stages))


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
