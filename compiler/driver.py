"""The driver of an exported einsum: from pointers, extents and strides to calls of kernels.

Python binds a step to a call's layouts (`runtime/bind.py`); an exported function has to do it by
itself. A driver is straight code that does so, in LLVM's language: products of extents, sums of
strides, and stores into a kernel's argument array. Every step has two kernels, one for operands
and results in C order and one for any strides, and the driver takes the first that fits.

What an exported function is called with, and what it answers, is in the header that goes with it
(`runtime/export.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from .choose import Choice, block_sizes
from .geometry import Geometry
from .machine import Machine
from .pipeline import Signature, signature
from .program import Access, Program, Statement
from .records import dataclass
from .workspace import ALIGNMENT

__all__ = ["ExportedKernel", "Layout", "driver", "wanted_kernels"]

_SLACK = 64  # bytes behind every scratch buffer, as in runtime/kernels.py


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of the tensors of an exported program before it is called.

    Attributes:
        indices: the indices whose extents a caller gives, in that order.
        fixed: the extents that are always the same, by index.
        elements: the element type of every tensor.
        given: the tensors that a caller gives, in that order, the output last.
    """

    indices: tuple[str, ...]
    fixed: Mapping[str, int]
    elements: Mapping[str, str]
    given: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExportedKernel:
    """A kernel of a step, and how to call it.

    Attributes:
        symbol: the name of its function.
        statement: what it computes.
        choice: its schedule, over indices that are those of the statement.
        blocks: its block sizes.
    """

    symbol: str
    statement: Statement
    choice: Choice
    blocks: Mapping[str, int]

    @property
    def called(self) -> Signature:
        """Its calling convention."""
        return signature(self.choice.schedule)

    @property
    def operands(self) -> tuple[Access, ...]:
        """Where it reads and writes, in the order of its parameters."""
        accesses = (*self.statement.factors, self.statement.target)
        return tuple(accesses[n] for n in (*self.choice.operands, len(accesses) - 1))


def wanted_kernels(
    program: Program, layout: Layout, machine: Machine, accumulator: str
) -> list[list[ExportedKernel]]:
    """For every step of a program its kernels, the one for any strides last."""
    from .choose.packed import packed
    from .choose.streamed import streamed
    from .choose.turned import as_bits
    from .geometry import canonical

    steps = []
    for number, statement in enumerate(program.statements):
        found: list[ExportedKernel] = []
        for unit in (True, False):
            step = canonical(_geometry(program, statement, layout, accumulator, unit))
            choice = packed(step, machine) or streamed(as_bits(step), machine)
            if choice.schedule.elements[-1] != choice.schedule.accumulator:
                choice = streamed(as_bits(step), machine)  # sums of any length, without blocks
            extents = {group: step.volume(m) for group, m in choice.members.items()}
            blocks = block_sizes(choice.schedule, extents, machine, 1)
            made = ExportedKernel(f"kernel_{number}_{len(found)}", statement, choice, blocks)
            if not found or made.choice != found[0].choice:  # operands may have changed places
                found.append(made)
        steps.append(found)
    return steps


def _geometry(
    program: Program, statement: Statement, layout: Layout, accumulator: str, unit: bool
) -> Geometry:
    """A step on strides of which nothing can be concluded but, if `unit`, that the last is 1.

    Rows lie apart, so no two indices are one: extents and strides of every index count by
    themselves when the kernel is called.
    """
    sizes = program.sizes
    accesses = (*statement.factors, statement.target)

    def strides(access: Access) -> dict[str, int]:
        apart = 1 if unit or access.tensor not in layout.given else 3
        found: dict[str, int] = {}
        for axis in reversed(access.subscripts):
            for name, factor in axis.terms:
                found[name] = found.get(name, 0) + factor * apart
            apart *= prod(sizes[name] for name in axis.names) + 3
        return found

    return Geometry(
        elements=tuple(layout.elements[access.tensor] for access in accesses),
        accumulator=accumulator,
        extents={index: sizes[index] for index in statement.indices},
        strides=tuple(map(strides, accesses)),
    )


# --- LLVM -----------------------------------------------------------------------------------------


class _Code:
    """Straight code on 64-bit integers. Values are numbers or names of LLVM's."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names = 0

    def new(self, text: str) -> str:
        self._names += 1
        name = f"%v{self._names}"
        self.lines.append(f"{name} = {text}")
        return name

    def product(self, factors: Iterable[str | int]) -> str | int:
        total: str | int = 1
        for factor in factors:
            if isinstance(total, int) and isinstance(factor, int):
                total *= factor
            elif factor != 1:
                total = factor if total == 1 else self.new(f"mul i64 {total}, {factor}")
        return total

    def total(self, terms: Iterable[str | int]) -> str | int:
        total: str | int = 0
        for term in terms:
            if isinstance(total, int) and isinstance(term, int):
                total += term
            elif term != 0:
                total = term if total == 0 else self.new(f"add i64 {total}, {term}")
        return total

    def pieces(self, extent: str | int, step: str | int) -> str | int:
        """How many steps an extent has, the last one perhaps shorter."""
        if isinstance(extent, int) and isinstance(step, int):
            return -(-extent // step)
        rounded = self.new(f"add i64 {extent}, {step}")
        less = self.new(f"sub i64 {rounded}, 1")
        return self.new(f"sdiv i64 {less}, {step}")

    def padded(self, size: str | int) -> str | int:
        """A size rounded up to whole cache lines."""
        if isinstance(size, int):
            return -(-size // ALIGNMENT) * ALIGNMENT
        more = self.new(f"add i64 {size}, {ALIGNMENT - 1}")
        return self.new(f"and i64 {more}, {-ALIGNMENT}")

    def load(self, kind: str, array: str, place: int) -> str:
        return self.new(f"load {kind}, ptr {self.at(array, 8 * place)}")

    def store(self, value: str | int, array: str, place: int) -> None:
        self.lines.append(f"store i64 {value}, ptr {self.at(array, 8 * place)}")

    def at(self, array: str, offset: str | int) -> str:
        return self.new(f"getelementptr i8, ptr {array}, i64 {offset}")


def _function(head: str, code: _Code | Sequence[str]) -> str:
    lines = code.lines if isinstance(code, _Code) else code
    return "\n".join([f"define {head} {{", *(f"  {line}" for line in lines), "}"])


class _Driver:
    """Writes the functions of an exported program, all of whose names begin with `name`."""

    def __init__(
        self,
        name: str,
        program: Program,
        layout: Layout,
        steps: Sequence[Sequence[ExportedKernel]],
    ) -> None:
        self.name, self.program, self.layout, self.steps = name, program, layout, steps
        self.accesses = {
            access.tensor: access
            for statement in program.statements
            for access in (*statement.factors, statement.target)
        }
        # Where a tensor's strides begin among those that a caller gives.
        self.first: dict[str, int] = {}
        self.axes = 0
        for tensor in layout.given:
            self.first[tensor] = self.axes
            self.axes += len(self.accesses[tensor].subscripts)
        self.temporaries = [
            statement.target.tensor
            for statement in program.statements
            if statement.target.tensor not in layout.given
        ]

    def text(self, triple: str) -> str:
        kernels = [kernel for step in self.steps for kernel in step]
        parts = [f'target triple = "{triple}"']
        parts += [f"declare void @{kernel.symbol}(ptr, i64, i64, i64)" for kernel in kernels]
        parts += [self._check(), self._strides(), self._workspace(), self._scratch()]
        for kernel in kernels:
            parts += [self._fits(kernel), self._run(kernel), self._tile_count(kernel)]
        parts += [self._tiles(), self._range(), self._all()]
        return "\n\n".join(parts) + "\n"

    # What a caller gives

    def _extent(self, code: _Code, index: str) -> str | int:
        if index in self.layout.fixed:
            return self.layout.fixed[index]
        return code.load("i64", "%extents", self.layout.indices.index(index))

    def _stride(self, code: _Code, access: Access, index: str) -> str | int:
        """The stride of a tensor along an index."""
        terms = []
        for axis, subscript in enumerate(access.subscripts):
            factor = dict(subscript.terms).get(index, 0)
            if factor:
                terms.append(code.product([self._axis_stride(code, access, axis), factor]))
        return code.total(terms)

    def _axis_stride(self, code: _Code, access: Access, axis: int) -> str | int:
        if access.tensor in self.first:
            return code.load("i64", "%strides", self.first[access.tensor] + axis)
        later = self.accesses[access.tensor].subscripts[axis + 1 :]
        return code.product(self._extent(code, name) for a in later for name in a.names)

    def _check(self) -> str:
        """1 if an extent is not positive, or not what it is fixed to."""
        code = _Code()
        wrong = "false"
        for place, index in enumerate(self.layout.indices):
            extent = code.load("i64", "%extents", place)
            fixed = self.layout.fixed.get(index)
            test = (
                f"icmp slt i64 {extent}, 1" if fixed is None else f"icmp ne i64 {extent}, {fixed}"
            )
            wrong = code.new(f"or i1 {wrong}, {code.new(test)}")
        code.lines.append(f"ret i1 {wrong}")
        return _function("internal i1 @check(ptr %extents)", code)

    def _strides(self) -> str:
        """The strides that were given, or those of C order written to `own`."""
        code = _Code()
        code.lines += [
            "%none = icmp eq ptr %strides, null",
            "br i1 %none, label %make, label %take",
            "take:",
            "ret ptr %strides",
            "make:",
        ]
        for tensor in self.layout.given:
            subscripts = self.accesses[tensor].subscripts
            stride: str | int = 1
            for axis in reversed(range(len(subscripts))):
                code.store(stride, "%own", self.first[tensor] + axis)
                extents = [self._extent(code, name) for name in subscripts[axis].names]
                stride = code.product([stride, *extents])
        code.lines.append("ret ptr %own")
        return _function("internal ptr @strides(ptr %extents, ptr %strides, ptr %own)", code)

    # Memory

    def _offsets(self, code: _Code) -> tuple[dict[str, str | int], str | int]:
        """Where the temporaries begin, and the bytes of all: each has a place of its own."""
        places: dict[str, str | int] = {}
        size: str | int = 0
        for tensor in self.temporaries:
            places[tensor] = size
            names = self.accesses[tensor].names
            item = int(self.layout.elements[tensor][1:])
            mine = code.product([*(self._extent(code, name) for name in names), item])
            size = code.total([size, code.padded(mine)])
        return places, size

    def _workspace(self) -> str:
        code = _Code()
        _, size = self._offsets(code)
        code.lines.append(f"ret i64 {size}")
        return _function(f"i64 @{self.name}_workspace(ptr %extents)", code)

    def _scratch(self) -> str:
        """The most that any kernel needs, and room to begin at a cache line."""
        code = _Code()
        most: str | int = 0
        for kernel in (kernel for step in self.steps for kernel in step):
            _, size = self._scratch_places(code, kernel, self._sizes(code, kernel))
            if isinstance(most, int) and isinstance(size, int):
                most = max(most, size)
            else:
                larger = code.new(f"icmp sgt i64 {size}, {most}")
                most = code.new(f"select i1 {larger}, i64 {size}, i64 {most}")
        code.lines.append(f"ret i64 {most}")
        return _function(f"i64 @{self.name}_scratch(ptr %extents)", code)

    @staticmethod
    def _scratch_places(
        code: _Code, kernel: ExportedKernel, sizes: Mapping[str, str | int]
    ) -> tuple[dict[str, str | int], str | int]:
        """Where a kernel's scratch buffers begin, and the bytes of all: `Kernel.scratch_places`."""
        places: dict[str, str | int] = {}
        total: str | int = 0
        for place, factors in kernel.called.scratch:
            places[place] = code.padded(total)
            size = code.product(sizes[f] if isinstance(f, str) else f for f in factors)
            total = code.total([places[place], size, _SLACK])
        return places, total

    # Kernels

    def _sizes(self, code: _Code, kernel: ExportedKernel) -> dict[str, str | int]:
        """Extents of groups and block sizes, by the names of parameters."""
        sizes: dict[str, str | int] = {
            group.upper(): code.product([self._extent(code, index) for index in members])
            for group, members in kernel.choice.members.items()
        }
        return sizes | dict(kernel.blocks)

    def _fits(self, kernel: ExportedKernel) -> str:
        """Whether the strides that a kernel takes for 1 are."""
        code, fits = _Code(), "true"
        tensors = dict(zip(kernel.choice.schedule.names, kernel.operands, strict=True))
        for tensor, group, fixed in kernel.choice.schedule.strides:
            members = kernel.choice.members[group]
            if fixed is not None and members:
                stride = self._stride(code, tensors[tensor], members[-1])
                fits = code.new(f"and i1 {fits}, {code.new(f'icmp eq i64 {stride}, {fixed}')}")
        code.lines.append(f"ret i1 {fits}")
        return _function(f"internal i1 @fits_{kernel.symbol}(ptr %extents, ptr %strides)", code)

    def _tile_count(self, kernel: ExportedKernel) -> str:
        code = _Code()
        sizes = self._sizes(code, kernel)
        counts = (
            code.pieces(sizes[extent], sizes[step] if isinstance(step, str) else step)
            for extent, step in kernel.called.tiles
        )
        code.lines.append(f"ret i64 {code.product(counts)}")
        return _function(f"internal i64 @tiles_{kernel.symbol}(ptr %extents)", code)

    def _run(self, kernel: ExportedKernel) -> str:
        """Fill in the arguments of a kernel, and call it."""
        code, called, members = _Code(), kernel.called, kernel.choice.members
        names = kernel.choice.schedule.names
        sizes = self._sizes(code, kernel)
        places, _ = self._scratch_places(code, kernel, sizes)
        temporaries, _ = self._offsets(code)
        values: dict[str, str | int] = {**sizes, **places}
        for name, access in zip(names, kernel.operands, strict=True):
            if access.tensor in temporaries:
                address = code.at("%workspace", temporaries[access.tensor])
            else:
                address = code.load("ptr", "%tensors", self.layout.given.index(access.tensor))
            values[name] = code.new(f"ptrtoint ptr {address} to i64")
            for group, indices in members.items():
                if len(indices) == 1:
                    values[f"{name}_{group}"] = self._stride(code, access, indices[0])
        descriptions: list[str | int] = []
        arguments: list[str | int] = []
        for parameter in called.parameters:
            if parameter.endswith("_group"):
                indices = members[parameter.removesuffix("_group")]
                arguments.append(len(called.parameters) + len(descriptions))
                descriptions += [len(indices), *(self._extent(code, i) for i in indices)]
                for access in kernel.operands:
                    descriptions += [self._stride(code, access, i) for i in indices]
            else:
                arguments.append(values[parameter])
        arguments += descriptions
        code.lines.insert(0, f"%arguments = alloca [{len(arguments)} x i64]")
        for place, value in enumerate(arguments):
            code.store(value, "%arguments", place)
        scratch = code.new("ptrtoint ptr %scratch to i64")
        code.lines += [
            f"call void @{kernel.symbol}(ptr %arguments, i64 %begin, i64 %end, i64 {scratch})",
            "ret void",
        ]
        head = f"internal void @run_{kernel.symbol}(i64 %begin, i64 %end, {_MEMORY})"
        return _function(head, code)

    # What is exported

    def _choose(self, kernels: Sequence[ExportedKernel], number: int, use: str) -> list[str]:
        """Code that uses the first of a step's kernels that fits; `use` has its name for $."""
        lines = [f"step{number}:"]
        for place, kernel in enumerate(kernels[:-1]):
            here, there = f"yes{number}_{place}", f"no{number}_{place}"
            fits = f"%fits{number}_{place}"
            lines += [
                f"{fits} = call i1 @fits_{kernel.symbol}(ptr %extents, ptr %own)",
                f"br i1 {fits}, label %{here}, label %{there}",
                f"{here}:",
                *use.replace("$", kernel.symbol).splitlines(),
                f"{there}:",
            ]
        return [*lines, *use.replace("$", kernels[-1].symbol).splitlines()]

    def _switch(self, use: str, otherwise: str) -> list[str]:
        cases = " ".join(f"i64 {n}, label %step{n}" for n in range(len(self.steps)))
        lines = [
            f"%room = alloca [{self.axes + 1} x i64]",
            "%wrong = call i1 @check(ptr %extents)",
            "br i1 %wrong, label %none, label %right",
            "right:",
            "%own = call ptr @strides(ptr %extents, ptr %strides, ptr %room)",
            f"switch i64 %step, label %none [ {cases} ]",
        ]
        for number, kernels in enumerate(self.steps):
            lines += self._choose(kernels, number, use)
        return [*lines, "none:", otherwise]

    def _tiles(self) -> str:
        use = "%t$ = call i64 @tiles_$(ptr %extents)\nret i64 %t$"
        head = f"i64 @{self.name}_tiles(i64 %step, ptr %extents, ptr %strides)"
        return _function(head, self._switch(use, "ret i64 -1"))

    def _range(self) -> str:
        memory = _MEMORY.replace("%strides", "%own")
        use = f"call void @run_$(i64 %begin, i64 %end, {memory})\nret i32 0"
        head = f"i32 @{self.name}_range(i64 %step, i64 %begin, i64 %end, {_MEMORY})"
        return _function(head, self._switch(use, "ret i32 1"))

    def _all(self) -> str:
        """All tiles of all steps, on the thread that calls."""
        given = [f"ptr %tensor{n}" for n in range(len(self.layout.given))]
        lines = [f"%tensors = alloca [{len(given)} x ptr]"]
        for n in range(len(given)):
            lines += [
                f"%place{n} = getelementptr i8, ptr %tensors, i64 {8 * n}",
                f"store ptr %tensor{n}, ptr %place{n}",
            ]
        for n in range(len(self.steps)):
            lines += [
                f"%n{n} = call i64 @{self.name}_tiles(i64 {n}, ptr %extents, ptr %strides)",
                f"%r{n} = call i32 @{self.name}_range(i64 {n}, i64 0, i64 %n{n}, {_MEMORY})",
            ]
        lines.append(f"ret i32 %r{len(self.steps) - 1}")
        rest = _MEMORY.removeprefix("ptr %tensors, ")
        return _function(f"i32 @{self.name}({', '.join(given)}, {rest})", lines)


_MEMORY = "ptr %tensors, ptr %extents, ptr %strides, ptr %workspace, ptr %scratch"


def driver(
    name: str,
    program: Program,
    layout: Layout,
    steps: Sequence[Sequence[ExportedKernel]],
    triple: str = "x86_64-unknown-linux-gnu",
) -> str:
    """The driver of an exported program as LLVM's text. It declares the kernels, and defines
    `name`, `name_range`, `name_tiles`, `name_workspace` and `name_scratch`.
    """
    return _Driver(name, program, layout, steps).text(triple)
