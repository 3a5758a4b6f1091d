"""Run a program statement by statement, of any number of results.

Every statement that a kernel can do is a step with a kernel, as `execute.py` makes them; others,
such as the root of a complex number, are evaluated by NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..compiler.finish import finish_of, has_kernel, operands_of
from ..compiler.machine import Target
from ..compiler.program import Program, Statement, evaluate_statement
from ..compiler.records import dataclass
from ..compiler.schedule import Schedule
from ..compiler.steps import elements_of, steps
from .execute import Layouts, Step, Steps, strides_of
from .kernels import Kernel, kernel
from .machine import machine
from .operands import KERNEL_DTYPES

__all__ = ["ProgramExecution", "prepare_program"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class ProgramExecution:
    """A prepared program. Calling it writes the results.

    Attributes:
        program: what is computed, in the order of execution.
        steps: for each statement its kernel, or None if NumPy evaluates it.
        dtypes: of every tensor.
        last: for each statement the intermediates that are not needed after it.
    """

    program: Program
    steps: tuple[Step | None, ...]
    dtypes: Mapping[str, np.dtype[Any]]
    last: tuple[tuple[str, ...], ...]

    def __call__(self, operands: Sequence[Array], results: Sequence[Array]) -> None:
        """Compute into ``results``; all arrays have the layouts that were prepared for."""
        arrays = dict(zip(self.program.inputs, operands, strict=True))
        arrays.update(zip(self.program.results, results, strict=True))
        shapes, sizes = self.program.shapes, self.program.sizes
        for statement, step, last in zip(
            self.program.statements, self.steps, self.last, strict=True
        ):
            name = statement.target.tensor
            if name not in arrays:
                arrays[name] = np.empty(shapes[name], self.dtypes[name])
            if step is not None:
                step.run(arrays)
            else:
                _by_numpy(statement, arrays, sizes)
            for name in last:
                del arrays[name]


def _by_numpy(statement: Statement, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> None:
    """Do a statement that has no kernel: its dtypes or functions are unknown, or it is empty."""
    target = arrays[statement.target.tensor]
    value = evaluate_statement(statement, arrays, sizes)
    np.copyto(target, value, casting="unsafe")


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
    program = steps(program, optimize, host)
    dtypes = {name: np.dtype(element) for name, element in elements_of(program).items()}
    shapes, sizes = program.shapes, program.sizes
    known = {
        name: layouts.get(name) or (strides_of(shapes[name], dtype.itemsize), dtype)
        for name, dtype in dtypes.items()
    }
    makers = {dtype: Steps(host, obtain, dtype) for dtype in {*map(_wide, dtypes.values())}}
    made: list[Step | None] = []
    for statement in program.statements:
        if not _has_kernel(statement, dtypes, sizes):
            made.append(None)
            continue
        wide = _wide(dtypes[statement.factors[0].tensor])
        made.append(makers[wide].make(statement, sizes, known))
    return ProgramExecution(program, tuple(made), dtypes, _last_uses(program))


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


def _last_uses(program: Program) -> tuple[tuple[str, ...], ...]:
    """For each statement the intermediates that no later one reads."""
    kept = {*program.inputs, *program.results}
    found = []
    for statement in reversed(program.statements):
        names = dict.fromkeys([*(a.tensor for a in statement.accesses), statement.target.tensor])
        found.append(tuple(name for name in names if name not in kept))
        kept.update(names)
    return tuple(reversed(found))
