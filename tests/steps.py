"""Contraction steps for tests: their canonical form, and kernels called on arrays in memory."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from einsumc.compiler.anonymous import form_of
from einsumc.compiler.build import builder
from einsumc.compiler.choose import Choice
from einsumc.compiler.choose.framed import layout_of
from einsumc.compiler.finish import finish_of
from einsumc.compiler.geometry import Geometry
from einsumc.compiler.image import link
from einsumc.compiler.interpret import Binding
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.program import Program, Statement
from einsumc.compiler.schedule import Schedule
from einsumc.compiler.symmetry import are_twins
from einsumc.runtime import kernels
from einsumc.runtime.bind import argument_array, argument_values
from einsumc.runtime.kernels import Kernel
from einsumc.runtime.load import load

V3 = TARGETS["x86-64-v3"]


@dataclass(frozen=True)
class Step:
    """An equation with sizes, and the order of the axes in each tensor's memory.

    ``memory`` is like the equation; by default every tensor is C contiguous. With ``gaps`` no two
    axes can be merged, as in slices of larger arrays.
    """

    equation: str
    extents: dict[str, int]
    element: str = "f4"
    memory: str | None = None
    gaps: bool = False
    machine: Machine = field(default_factory=lambda: Machine(V3))

    @property
    def terms(self) -> list[str]:
        """The axes of every tensor, the output's last."""
        return self.equation.replace("->", ",").split(",")

    @property
    def orders(self) -> list[str]:
        """The same in the order of memory, largest stride first."""
        return (self.memory or self.equation).replace("->", ",").split(",")

    def shape(self, term: str) -> tuple[int, ...]:
        """The shape of a tensor with these axes."""
        return tuple(self.extents[i] for i in term)

    def strides(self) -> list[dict[str, int]]:
        """Every tensor's stride along its indices, in elements."""
        found = []
        for order in self.orders:
            strides: dict[str, int] = {}
            step = 1
            for index in reversed(order):
                strides[index] = strides.get(index, 0) + step
                step *= self.extents[index] + self.gaps
            found.append(strides)
        return found

    def geometry(self) -> Geometry:
        """The step as the compiler gets it."""
        return geometry(self.element, self.extents, self.strides())


def geometry(element: str, extents: dict[str, int], strides: Sequence[dict[str, int]]) -> Geometry:
    """A step on tensors of one element type; the last one is the output."""
    wide = "f4" if element == "f2" else element
    return Geometry((element,) * len(strides), wide, dict(extents), tuple(strides))


def view_strides(term: str, array: np.ndarray) -> dict[str, int]:
    """An array's stride along its indices, in elements."""
    strides: dict[str, int] = {}
    for index, stride in zip(term, array.strides, strict=True):
        strides[index] = strides.get(index, 0) + stride // array.itemsize
    return strides


# --- kernels --------------------------------------------------------------------------------------

_Function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


def function(source: str, target=V3):
    """The function that generated source defines, compiled and loaded."""
    image = link(builder(target).object_code(source))
    return _Function(load(image.code, **image.header()).entries["einsumc_kernel"])


@cache
def kernel(schedule: Schedule) -> tuple[Callable[..., None], Kernel]:
    """A schedule's kernel as a function, and its calling convention; all workers share its code."""
    found = kernels.kernel(schedule, V3)
    return _Function(found.address), found


@dataclass(frozen=True)
class Call:
    """A kernel with all that it is called with."""

    choice: Choice
    step: Geometry
    values: dict[str, int]
    tiles: int
    scratch_bytes: int


def bind(choice: Choice, step: Geometry, machine: Machine, threads: int = 2) -> Call:
    """A schedule on concrete extents and strides."""
    _, convention = kernel(choice.schedule)
    values = argument_values(choice, step, machine, threads)
    places, scratch_bytes = convention.scratch_places(values)
    return Call(choice, step, values | places, convention.tile_count(values), scratch_bytes)


def run(call: Call, addresses: Sequence[int], scratch: int, tiles: Sequence[range] = ()) -> None:
    """Call a kernel; ``addresses`` are the tensors' in the step's order, the output's last."""
    code, convention = kernel(call.choice.schedule)
    arguments = argument_array(convention.parameters, call.choice, call.step, call.values)
    for place, tensor in enumerate((*call.choice.operands, len(addresses) - 1)):
        arguments[place] = addresses[tensor]
    for part in tiles or (range(call.tiles),):
        code(arguments.ctypes.data, part.start, part.stop, scratch)


def scratch_memory(size: int) -> tuple[np.ndarray, int]:
    """Memory for a call and its aligned address: all NaN, and more of it than may be touched."""
    memory = np.full(size + 8192, 0xFF, np.uint8)
    return memory, -(-memory.ctypes.data // 64) * 64


def flat(array: np.ndarray) -> tuple[np.ndarray, int]:
    """The flat memory under a view, and the position in it of the view's first element."""
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    memory = whole.reshape(-1)
    return memory, (array.ctypes.data - memory.ctypes.data) // array.itemsize


def binding(call: Call, arrays: Sequence[np.ndarray]) -> Binding:
    """What the same call means to the interpreter of loop nests."""
    choice, step = call.choice, call.step
    tensors = dict(zip(choice.schedule.names, (*choice.operands, len(arrays) - 1), strict=True))
    members = {g: [step.extents[i] for i in m] for g, m in choice.members.items()}
    if choice.schedule.framed is not None:
        members["n"] = [call.values["N"]]  # flat positions
    return Binding(
        members=members,
        strides={
            (name, g): [step.strides[t].get(i, 0) for i in m]
            for name, t in tensors.items()
            for g, m in choice.members.items()
        },
        blocks={name: call.values[name] for name in choice.schedule.blocks},
        memory={name: flat(arrays[t]) for name, t in tensors.items()},
        numbers=step.finish.numbers if step.finish else (),
        **_frames(call),
    )


def _frames(call: Call) -> dict[str, list[int]]:
    if call.choice.schedule.framed is None:
        return {}
    found, plane = layout_of(call.choice, call.step), call.values["plane"]
    held = call.values["K_BLOCK"] // len(found.taps)
    return {"frame": found.description(plane, 0), "taps": found.table(plane, held)}


# --- statements -----------------------------------------------------------------------------------


def statement_geometry(
    statement: Statement,
    extents: dict[str, int],
    arrays: Sequence[np.ndarray],
    accumulator: str,
) -> Geometry:
    """A statement on arrays: those of its operands in their order, and the output."""
    accesses = (*statement.operands, statement.target)
    strides = []
    for access, array in zip(accesses, arrays, strict=True):
        found: dict[str, int] = {}
        for axis, stride in zip(access.subscripts, array.strides, strict=True):
            for name, coefficient in axis.terms:
                step = coefficient * (stride // array.itemsize)
                found[name] = found.get(name, 0) + step
        strides.append(found)
    return Geometry(
        tuple(f"{a.dtype.kind}{a.dtype.itemsize}" for a in arrays),
        accumulator,
        {i: extents[i] for i in statement.indices},
        tuple(strides),
        twins=are_twins(statement),
        finish=finish_of(statement),
    )


def run_statement(
    statement: Statement,
    extents: dict[str, int],
    arrays: Sequence[np.ndarray],
    accumulator: str,
    machine: Machine,
    threads: int = 2,
    *,
    single: bool = False,
) -> None:
    """Compute a statement into the last of the arrays; ``single``: tile by tile, the last first."""
    form = form_of(statement_geometry(statement, extents, arrays, accumulator), machine)
    call = bind(form.numbered_choice, form.numbered_step, machine, threads)
    memory, scratch = scratch_memory(call.scratch_bytes)
    tiles = [range(n, n + 1) for n in reversed(range(call.tiles))] if single else ()
    run(call, [a.ctypes.data for a in arrays], scratch, tiles)
    end = scratch - memory.ctypes.data + call.scratch_bytes
    assert (memory[end + 64 :] == 0xFF).all(), "written behind the scratch memory"


def run_program(program: Program, arrays: dict[str, np.ndarray], machine: Machine, dtype: str):
    """The results of a program by its kernels, by name; what it makes is of one type."""
    arrays = dict(arrays)
    shapes = program.shapes
    for statement in program.statements:
        name = statement.target.tensor
        arrays[name] = np.full(shapes[name], np.nan if dtype[0] == "f" else 99, dtype)
        tensors = [arrays[a.tensor] for a in (*statement.operands, statement.target)]
        run_statement(statement, program.sizes, tensors, dtype, machine)
    return {name: arrays[name] for name in program.results}
