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

from ..compiler.anonymous import Form, form_of
from ..compiler.choose import Choice, substitutes
from ..compiler.cost import statement_cost, worthwhile_threads
from ..compiler.factorize import Factorization, factorize
from ..compiler.finish import finish_of, operands_of
from ..compiler.geometry import Geometry
from ..compiler.machine import Machine, Target
from ..compiler.merge import in_registers
from ..compiler.pad import pad
from ..compiler.paths import pairwise
from ..compiler.program import Access, Program, Statement, from_expression
from ..compiler.records import dataclass, replace
from ..compiler.regions import ZERO, boxes
from ..compiler.relayout import relayout
from ..compiler.schedule import Schedule
from ..compiler.slices import TOTAL, Element, Sliced, arrange, fit, with_extents
from ..compiler.subscripts import Expression
from . import settings, threads
from .bind import argument_array, argument_values
from .buffers import Buffer, Kept
from .entry import Call, Work
from .kernels import Kernel, KernelMissing, kernel
from .machine import machine
from .memory import available_memory

Array = np.ndarray[Any, Any]


Layouts = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""The strides, in bytes, and the dtype of every tensor."""

_FEW = 16
"""So few addresses are filled in faster by a loop than by NumPy."""

_kept = Kept("intermediates")

_zero = np.zeros(1, "c16")
"""What is read where a statement sets elements to zero."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a factorized program, or a box of one, bound to layouts.

    It is a kernel and its arguments. `extents` are those of the statement's indices.
    """

    statement: Statement
    extents: Mapping[str, int]
    form: Form
    kernel: Kernel
    operands: tuple[str, ...]  # tensors in the kernel's order, the output last
    offsets: tuple[int, ...]  # bytes from where each of them begins to where the step does
    arguments: Array  # int64; the addresses at its head are filled in for each call
    tiles: int
    scratch_bytes: int
    threads: int  # worth having for its work
    seconds: float  # that one thread would take, by the cost model

    def run(self, arrays: Mapping[str, Array]) -> None:
        """Compute on arrays of the layouts that it was bound to, by the names of the tensors."""
        arguments = self.arguments.copy()
        for place, (name, offset) in enumerate(zip(self.operands, self.offsets, strict=True)):
            arguments[place] = arrays[name].__array_interface__["data"][0] + offset
        threads.run(
            self.kernel.address,
            arguments.__array_interface__["data"][0],
            self.tiles,
            self.scratch_bytes,
            most=self.threads,
        )

    @property
    def geometry(self) -> Geometry:
        """The statement's canonical form."""
        return self.form.step

    @property
    def choice(self) -> Choice:
        """How it is computed."""
        return self.form.choice


@dataclass(frozen=True, slots=True)
class Bound:
    """Steps with their arguments in one array.

    Attributes:
        steps: in order.
        arguments: those of all steps, without addresses.
        places: where addresses belong.
        tensors: whose, by number; -1 for the constant zero.
        offsets: bytes to add to each.
        fills: places, tensors and offsets, if they are so few that a loop fills them in faster than
            NumPy.
        moves: for each slice and place, by how many bytes the address grows with the sliced index.
        calls: for each step what `threads.run` wants to know, the byte at which its arguments begin
            in place of their address.
        levels: for each step how many of the slices' loops are around it.
    """

    steps: tuple[Step, ...]
    arguments: Array
    places: Array
    tensors: Array
    offsets: Array
    fills: tuple[tuple[int, int, int], ...]
    moves: Array
    calls: tuple[tuple[int, int, int, int, int], ...]
    levels: tuple[int, ...]


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
            addresses.append(_ZERO_AT)
            return self._run(addresses)
        if placed.size >= _CHECK_FROM:
            _check_room(placed.size)
        buffer = _kept.take(placed.size)
        addresses += [buffer.address + offset for offset in placed.offsets.values()]
        addresses.append(_ZERO_AT)
        if self.sliced.slices:
            with np.errstate(all="ignore"):  # kernels do not warn either
                self._run_slices(np.array(addresses), out, buffer)
        else:
            self._run(addresses)
        # An exception leaves this out: then the memory is freed.
        _kept.give_back(buffer)
        return None

    def _run(self, addresses: list[int]) -> None:
        bound = self.bound[()]
        arguments = bound.arguments.copy()
        if bound.fills:
            for place, tensor, offset in bound.fills:
                arguments[place] = addresses[tensor] + offset
        else:
            arguments[bound.places] = np.array(addresses)[bound.tensors] + bound.offsets
        begin = arguments.__array_interface__["data"][0]
        for code, offset, tiles, scratch_bytes, most in bound.calls:
            threads.run(code, begin + offset, tiles, scratch_bytes, most=most)

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
        columns = (each.tolist() for each in (bound.places, bound.tensors, bound.offsets))
        for place, tensor, offset in zip(*columns, strict=True):
            if tensor < given:
                fills.append((place, tensor, offset))
            else:
                fills.append((place, given, offsets[tensor - given] + offset))
        calls = tuple(
            Call(*call, 1e9 * step.seconds)
            for call, step in zip(bound.calls, bound.steps, strict=True)
        )
        return Work(calls, bound.arguments, tuple(fills), placed.size)


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

    def with_copies(program: Program, layouts: Layouts) -> Program:
        if not copies:
            return program
        return relayout(program, partial(geometry_of, layouts, program.sizes, wide), host)

    if memory_limit is None:
        if optimize is True and copies:
            program = in_registers(factorization.program, element(dtype), host)
            factorization = replace(factorization, program=program)
        program = pad(factorization.program)
        layouts = _layouts(program, given, wide)
        sliced = arrange(with_copies(program, layouts), elements)
    else:
        candidates = {name: pad(each) for name, each in factorization.programs.items()}
        chosen, sliced = fit(candidates, memory_limit, elements, host)
        program = factorization.programs[chosen]
        factorization = replace(factorization, program=program, chosen=chosen)
        if sliced.adds:
            del given[program.result]  # kernels write pieces of it, which are intermediates
        program = with_copies(sliced.program, _layouts(sliced.program, given, wide))
        copied = arrange(program, elements, sliced.slices, sliced.hoisted)
        if copied.workspace.size <= memory_limit:
            sliced = copied
    program, offsets = sliced.program, sliced.workspace.offsets
    numbers = {name: number for number, name in enumerate([*inputs, program.result, *offsets])}
    numbers[ZERO] = -1
    bound: dict[tuple[bool, ...], Bound] = {}
    maker = Steps(host, obtain, wide)
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
            for box in boxes(statement, axes, extents):
                steps.append(maker.make(box.statement, box.extents, layouts))
                levels.append(level)
        moves = [_moves(each, sliced, given) for each in steps]
        bound[key] = _bound(steps, numbers, moves, levels)
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
        steps = _strides(access, strides, dtype)
        grow.append({index: stride * dtype.itemsize for index, stride in steps.items()})
    return [[each.get(s.index, 0) for each in grow] for s in sliced.slices]


_ZERO_AT = _zero.__array_interface__["data"][0]


def _bound(
    steps: Sequence[Step],
    numbers: Mapping[str, int],
    moves: Sequence[list[list[int]]],
    levels: Sequence[int],
) -> Bound:
    """Put steps together; `numbers` are the tensors', `moves` what `_moves` says of each step."""
    places: list[int] = []
    tensors: list[int] = []
    offsets: list[int] = []
    begin, calls = 0, []
    for step in steps:
        places += range(begin, begin + len(step.operands))
        tensors += [numbers[name] for name in step.operands]
        offsets += step.offsets
        calls.append((step.kernel.address, 8 * begin, step.tiles, step.scratch_bytes, step.threads))
        begin += len(step.arguments)
    return Bound(
        steps=tuple(steps),
        arguments=np.concatenate([step.arguments for step in steps]),
        places=np.array(places),
        tensors=np.array(tensors),
        offsets=np.array(offsets),
        fills=tuple(zip(places, tensors, offsets, strict=True)) if len(places) <= _FEW else (),
        moves=np.concatenate([np.array(each, np.int64) for each in moves], axis=-1),
        calls=tuple(calls),
        levels=tuple(levels),
    )


_CHECK_FROM = 1 << 26
"""Workspaces of so many bytes are compared with the memory that is there, which takes 0.1 ms."""


def _check_room(size: int) -> None:
    there = available_memory()
    if there is not None and size > there:
        raise MemoryError(
            f"the intermediates take {size:,} bytes, but {there:,} are available; memory_limit= "
            "makes them take less"
        )


def geometry_of(
    layouts: Layouts,
    extents: Mapping[str, int],
    accumulator: np.dtype[Any],
    statement: Statement,
) -> Geometry:
    """A statement's sizes and strides, in elements."""
    accesses = (*operands_of(statement), statement.target)
    return Geometry(
        elements=tuple(element(layouts[a.tensor][1]) for a in accesses),
        accumulator=element(accumulator),
        extents={i: extents[i] for i in statement.indices},
        strides=tuple(_strides(a, *layouts[a.tensor]) for a in accesses),
        twins=len(accesses) == 3 and _begin_together(*accesses[:2]),
        finish=finish_of(statement),
    )


def _begin_together(first: Access, second: Access) -> bool:
    """Whether two accesses are of one tensor, and at the same place where all indices are zero."""
    return first.tensor == second.tensor and all(
        one.constant == other.constant
        for one, other in zip(first.subscripts, second.subscripts, strict=True)
    )


class Steps:
    """Makes steps. Those that differ in names alone share their arguments and all else."""

    def __init__(
        self,
        host: Machine,
        obtain: Callable[[Schedule, Target], Kernel],
        accumulator: np.dtype[Any],
    ) -> None:
        self._host, self._obtain, self._accumulator = host, obtain, accumulator
        self._threads = threads.get_num_threads()
        self._made: dict[object, Step] = {}

    def make(self, statement: Statement, extents: Mapping[str, int], layouts: Layouts) -> Step:
        """The step that computes a statement with tensors of these layouts."""
        form = form_of(geometry_of(layouts, extents, self._accumulator, statement), self._host)
        alike = self._made.get(form.key) or self._made.setdefault(
            form.key, self._first(statement, extents, form)
        )
        choice = alike.form.numbered_choice
        accesses = (*operands_of(statement), statement.target)
        order = (*choice.operands, len(accesses) - 1)
        operands = tuple([accesses[i].tensor for i in order])
        form = form if choice is form.numbered_choice else replace(form, numbered_choice=choice)
        offsets = tuple([_offset(accesses[i], layouts[accesses[i].tensor][0]) for i in order])
        return replace(
            alike,
            statement=statement,
            extents=extents,
            form=form,
            operands=operands,
            offsets=offsets,
        )

    def _first(self, statement: Statement, extents: Mapping[str, int], form: Form) -> Step:
        choice, code = self._kernel(form)
        step, form = form.numbered_step, replace(form, numbered_choice=choice)
        cost = statement_cost(statement, extents, step.accumulator, self._host)
        count = worthwhile_threads(cost.seconds, self._host, self._threads)
        values = argument_values(choice, step, self._host, count)
        places, scratch_bytes = code.scratch_places(values)
        return Step(
            statement=statement,
            extents=extents,
            form=form,
            kernel=code,
            operands=(),
            offsets=(),
            arguments=argument_array(code.parameters, choice, step, values | places),
            tiles=code.tile_count(values),
            scratch_bytes=scratch_bytes,
            threads=count,
            seconds=cost.seconds,
        )

    def _kernel(self, form: Form) -> tuple[Choice, Kernel]:
        """A step's schedule and its kernel: the best one, or if it may not be compiled, the most
        suitable one that there is.
        """
        best = form.numbered_choice
        try:
            return best, self._obtain(best.schedule, self._host.target)
        except KernelMissing as error:
            missing = error
        for choice in substitutes(form.numbered_step, self._host):
            try:
                return choice, self._obtain(choice.schedule, self._host.target)
            except KernelMissing:
                continue
        raise missing


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


def _offset(access: Access, strides: Sequence[int]) -> int:
    """How many bytes behind its tensor's first element an access begins."""
    pairs = zip(access.subscripts, strides, strict=True)
    return sum([subscript.constant * stride for subscript, stride in pairs])


def strides_of(shape: Sequence[int], item: int) -> tuple[int, ...]:
    """The strides of a C-ordered array, in bytes."""
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
