"""Bind an expression to the layouts of its operands, and run it.

Preparing factorizes the expression, chooses a schedule for each step, obtains the kernels and lays
out every argument but the addresses. What is prepared may then be called with any arrays of the
same dtypes, shapes and strides, from any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from typing import Any

import numpy as np

from ..compiler.choose import Choice, choose
from ..compiler.factorize import Factorization, factorize
from ..compiler.geometry import Geometry, canonical
from ..compiler.machine import TARGETS, Machine, Target
from ..compiler.program import Access, Program, Statement, from_expression
from ..compiler.relayout import relayout
from ..compiler.schedule import Schedule
from ..compiler.subscripts import Expression
from . import settings, target, threads
from .bind import argument_array, argument_values
from .entry import Call, Work
from .kernels import Kernel, kernel

Array = np.ndarray[Any, Any]

_LINE = 64  # intermediates begin on a cache line


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a factorized program, bound to layouts: a kernel and its arguments."""

    statement: Statement
    geometry: Geometry
    choice: Choice
    kernel: Kernel
    operands: tuple[str, ...]  # tensors in the kernel's order, the output last
    arguments: Array  # int64; the addresses at its head are filled in for each call
    tiles: int
    scratch_bytes: int
    work_ns: float


@dataclass(frozen=True, slots=True)
class Execution:
    """A prepared expression. Calling it writes the result into ``out``."""

    program: Program
    factorization: Factorization
    temporaries: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    steps: tuple[Step, ...]

    def __call__(self, operands: Sequence[Array], out: Array) -> None:
        """Compute into ``out``; the arrays have the layouts that were prepared for."""
        arrays = dict(zip(self.program.inputs, operands, strict=False))
        arrays[self.program.result] = out
        for name, (shape, dtype) in self.temporaries.items():
            arrays[name] = np.empty(shape, dtype)
        for step in self.steps:
            arguments = step.arguments.copy()
            for place, name in enumerate(step.operands):
                arguments[place] = arrays[name].__array_interface__["data"][0]
            threads.run(
                step.kernel.address,
                arguments.__array_interface__["data"][0],
                step.tiles,
                step.scratch_bytes,
                work_ns=step.work_ns,
            )

    def work(self) -> Work:
        """The same for the native entry, which calls the kernels without Python."""
        names = (*self.program.inputs, self.program.result)  # an array given twice has one name
        numbers = {name: n for n, name in enumerate(names)}
        offsets, size = {}, 0
        for name, (shape, dtype) in self.temporaries.items():
            offsets[name] = size
            size += -(-prod(shape) * dtype.itemsize // _LINE) * _LINE
        calls, fills, begin = [], [], 0
        for step in self.steps:
            calls.append(
                Call(step.kernel.address, 8 * begin, step.tiles, step.scratch_bytes, step.work_ns)
            )
            for place, name in enumerate(step.operands, begin):
                fills.append((place, numbers.get(name, len(names)), offsets.get(name, 0)))
            begin += len(step.arguments)
        arguments = np.concatenate([step.arguments for step in self.steps])
        return Work(tuple(calls), arguments, tuple(fills), size)


def prepare(
    expression: Expression, operands: Sequence[Array], out: Array, optimize: Any = True
) -> Execution:
    """Plan an expression for operands and an output of these layouts, and obtain its kernels.

    All operands are of one dtype, aligned and in native byte order; ``out`` has that dtype, is
    writable and overlaps no operand. No extent is zero.
    """
    strides = [array.strides for array in operands]
    same = same_arrays(operands)
    if stages := settings.current().show:
        from .explain import print_stages

        print_stages(stages, expression, operands[0].dtype, strides, out.strides, optimize, same)
    return prepare_layouts(expression, operands[0].dtype, strides, out.strides, optimize, same)


def prepare_layouts(
    expression: Expression,
    dtype: np.dtype[Any],
    strides: Sequence[tuple[int, ...]],
    out_strides: tuple[int, ...],
    optimize: Any = True,
    same: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    obtain: Callable[[Schedule, Target], Kernel] = kernel,
) -> Execution:
    """The same from layouts alone, before any array exists.

    ``strides`` are each operand's in bytes; ``same[i]`` is the first operand that is the same array
    as operand ``i``; ``names`` are what the operands are called; ``obtain`` gets the kernels.
    """
    host = machine()
    program = from_expression(expression, names, same)
    factorization = factorize(program, optimize, host, dtype.itemsize)
    program = factorization.program
    wide = np.dtype("f4") if dtype == np.float16 else dtype
    layouts = {
        name: (operand, dtype) for name, operand in zip(program.inputs, strides, strict=False)
    }
    layouts[program.result] = (out_strides, dtype)
    temporaries: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    _lay_out(program, layouts, temporaries, wide)
    program = relayout(program, partial(_geometry, layouts, dict(program.extents), wide), host)
    _lay_out(program, layouts, temporaries, wide)
    extents = dict(program.extents)
    steps = tuple(
        _step(statement, layouts, extents, wide, host, obtain) for statement in program.statements
    )
    return Execution(program, factorization, temporaries, steps)


def _lay_out(
    program: Program,
    layouts: dict[str, tuple[tuple[int, ...], np.dtype[Any]]],
    temporaries: dict[str, tuple[tuple[int, ...], np.dtype[Any]]],
    dtype: np.dtype[Any],
) -> None:
    """Give every intermediate that has no layout yet the one of a C-ordered array."""
    for tensor in program.tensors:
        if tensor.name not in layouts:
            temporaries[tensor.name] = (tensor.axes, dtype)
            layouts[tensor.name] = (_c_strides(tensor.axes, dtype.itemsize), dtype)


def _geometry(
    layouts: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    extents: Mapping[str, int],
    accumulator: np.dtype[Any],
    statement: Statement,
) -> Geometry:
    """A statement's sizes and strides, in elements."""
    accesses = (*statement.factors, statement.target)
    return Geometry(
        elements=tuple(element(layouts[a.tensor][1]) for a in accesses),
        accumulator=element(accumulator),
        extents={i: extents[i] for i in statement.indices},
        strides=tuple(_strides(a, *layouts[a.tensor]) for a in accesses),
    )


def _step(
    statement: Statement,
    layouts: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    extents: Mapping[str, int],
    accumulator: np.dtype[Any],
    host: Machine,
    obtain: Callable[[Schedule, Target], Kernel],
) -> Step:
    accesses = (*statement.factors, statement.target)
    step = canonical(_geometry(layouts, extents, accumulator, statement))
    choice = choose(step, host)
    code = obtain(choice.schedule, host.target)
    count = threads.get_num_threads()
    values = argument_values(choice, step, host, count)
    places, scratch_bytes = code.scratch_places(values)
    names = tuple(accesses[i].tensor for i in (*choice.operands, len(accesses) - 1))
    volume = step.volume(tuple(step.extents))
    return Step(
        statement=statement,
        geometry=step,
        choice=choice,
        kernel=code,
        operands=names,
        arguments=argument_array(code.parameters, choice, step, values | places),
        tiles=code.tile_count(values),
        scratch_bytes=scratch_bytes,
        work_ns=volume * 0.1,
    )


def element(dtype: np.dtype[Any]) -> str:
    """A dtype's name in kernels: ``f4``, ``c16``, ``b1``."""
    return f"{dtype.kind}{dtype.itemsize}"


def _strides(access: Access, strides: Sequence[int], dtype: np.dtype[Any]) -> dict[str, int]:
    """An access's stride along every index, in elements: its address is linear in the indices."""
    total: dict[str, int] = {}
    for subscript, stride in zip(access.subscripts, strides, strict=True):
        for name, coefficient in subscript.terms:
            total[name] = total.get(name, 0) + coefficient * (stride // dtype.itemsize)
    return total


def _c_strides(shape: Sequence[int], item: int) -> tuple[int, ...]:
    strides = [item]
    for extent in reversed(shape[1:]):
        strides.append(strides[-1] * extent)
    return tuple(reversed(strides)) if shape else ()


def same_arrays(operands: Sequence[Array]) -> list[int]:
    """For every operand the first one that is the same array: its memory, layout and dtype."""
    seen: dict[Any, int] = {}
    same = []
    for position, array in enumerate(operands):
        identity = (array.__array_interface__["data"][0], array.shape, array.strides)
        same.append(seen.setdefault(identity, position))
    return same


@lru_cache(maxsize=8)
def _machine(name: str) -> Machine:
    level = (target.host_level() or "x86-64-v1") if name == "native" else name
    facts = target.host()
    return Machine(
        TARGETS.get(level, TARGETS["x86-64-v2"]),
        cores=facts.cores,
        l1_bytes=facts.l1d or 32 << 10,
        l2_bytes=facts.l2 or 512 << 10,
        l3_bytes=facts.l3 or 8 << 20,
    )


def machine() -> Machine:
    """The machine that kernels are made for: the host, or its part that EINSUMC_TARGET names."""
    return _machine(settings.current().target)
