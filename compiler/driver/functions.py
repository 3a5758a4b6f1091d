"""The functions of an exported program, written in LLVM's language."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..inside import ZERO
from ..program import Access
from .code import Code, function
from .kernels import ExportedKernel, Layout
from .sizes import Size
from .windows import View

__all__ = ["driver"]

_SLACK = 64  # bytes behind every scratch buffer, as in runtime/kernels.py


class _Driver:
    """Writes the functions of an exported program, all of whose names begin with `name`."""

    def __init__(
        self, name: str, layout: Layout, steps: Sequence[Sequence[ExportedKernel]]
    ) -> None:
        self.name, self.layout = name, layout
        self.shapes, self.views = layout.steps.shapes, layout.steps.views
        # Where a tensor's strides begin among those that a caller gives.
        self.first: dict[str, int] = {}
        self.axes = 0
        for tensor in layout.given:
            self.first[tensor] = self.axes
            self.axes += len(self.shapes[tensor])
        self.temporaries = [tensor for tensor in self.shapes if tensor not in layout.given]
        self.steps = [
            [(f"{number}_{place}", kernel) for place, kernel in enumerate(kernels)]
            for number, kernels in enumerate(steps)
        ]

    def text(self, triple: str) -> str:
        kernels = [each for step in self.steps for each in step]
        symbols = dict.fromkeys(kernel.symbol for _, kernel in kernels)
        parts = [f'target triple = "{triple}"']
        parts += [f"declare void @{symbol}(ptr, i64, i64, i64)" for symbol in symbols]
        parts += [self._check(), self._strides(), self._workspace(), self._scratch()]
        for name, kernel in kernels:
            parts += [self._fits(name, kernel), self._run(name, kernel)]
            parts += [self._tile_count(name, kernel)]
        parts += [self._tiles(), self._range(), self._all()]
        return "\n\n".join(parts) + "\n"

    # What a caller gives

    def _extent(self, code: Code, index: str) -> str | int:
        if index in self.layout.fixed:
            return self.layout.fixed[index]
        if index in self.layout.steps.sizes:
            return self._size(code, self.layout.steps.sizes[index])
        return code.load("i64", "%extents", self.layout.indices.index(index))

    def _size(self, code: Code, size: Size) -> str | int:
        return code.size(size, lambda index: self._extent(code, index))

    def _stride(self, code: Code, access: Access, index: str) -> str | int:
        """The stride of a tensor along an index."""
        terms = []
        for axis, subscript in enumerate(access.subscripts):
            factor = dict(subscript.terms).get(index, 0)
            if factor:
                terms.append(code.product([self._axis_stride(code, access.tensor, axis), factor]))
        return code.total(terms)

    def _axis_stride(self, code: Code, tensor: str, axis: int) -> str | int:
        if tensor in self.first:
            return code.load("i64", "%strides", self.first[tensor] + axis)
        if tensor not in self.views:
            later = self.shapes[tensor][axis + 1 :]
            return code.product(self._size(code, size) for size in later)
        view = self.views[tensor]
        stride = self._axis_stride(code, view.tensor, axis)
        return self._either(code, view, "i64", stride, lambda t: self._axis_stride(code, t, axis))

    def _either(
        self, code: Code, view: View, kind: str, own: str | int, other: Callable[[str], str | int]
    ) -> str | int:
        """What holds for a view, or for the tensor that is read in its place."""
        if not view.inside:
            return own
        leaves = code.leaves([self._size(code, test) for test in view.tests])
        return code.new(f"select i1 {leaves}, {kind} {own}, {kind} {other(view.inside)}")

    def _address(self, code: Code, access: Access) -> str:
        """Of the element that is accessed where all indices are 0."""
        if access.tensor == ZERO:
            return "%zero"
        item = int(self.layout.element(access)[1:])
        first = [axis.constant for axis in access.subscripts]
        return code.at(self._tensor(code, access.tensor), self._offset(code, access, first, item))

    def _tensor(self, code: Code, tensor: str) -> str:
        """The address of a tensor's first element."""
        if tensor in self.first:
            return code.load("ptr", "%tensors", self.layout.given.index(tensor))
        if tensor not in self.views:
            return code.at("%workspace", self._offsets(code)[0][tensor])
        view = self.views[tensor]
        item = int(self.layout.elements[view.tensor][1:])
        offset = self._offset(code, Access(view.tensor, ()), view.origin, item)
        own = code.at(self._tensor(code, view.tensor), offset)
        return str(self._either(code, view, "ptr", own, lambda t: self._tensor(code, t)))

    def _offset(
        self, code: Code, access: Access, positions: Sequence[Size], item: int
    ) -> str | int:
        """The bytes from a tensor's first element to the one at some positions."""
        return code.total(
            code.product([self._size(code, n), self._axis_stride(code, access.tensor, axis), item])
            for axis, n in enumerate(positions)
            if n != 0
        )

    def _check(self) -> str:
        """1 if an extent is not positive, or not what it is fixed to."""
        code = Code()
        wrong = "false"
        for place, index in enumerate(self.layout.indices):
            extent = code.load("i64", "%extents", place)
            fixed = self.layout.fixed.get(index)
            test = (
                f"icmp slt i64 {extent}, 1" if fixed is None else f"icmp ne i64 {extent}, {fixed}"
            )
            wrong = code.new(f"or i1 {wrong}, {code.new(test)}")
        code.lines.append(f"ret i1 {wrong}")
        return function("internal i1 @check(ptr %extents)", code)

    def _strides(self) -> str:
        """The strides that were given, or those of C order written to `own`."""
        code = Code()
        code.lines += [
            "%none = icmp eq ptr %strides, null",
            "br i1 %none, label %make, label %take",
            "take:",
            "ret ptr %strides",
            "make:",
        ]
        for tensor in self.layout.given:
            stride: str | int = 1
            for axis, size in reversed([*enumerate(self.shapes[tensor])]):
                code.store(stride, "%own", self.first[tensor] + axis)
                stride = code.product([stride, self._size(code, size)])
        code.lines.append("ret ptr %own")
        return function("internal ptr @strides(ptr %extents, ptr %strides, ptr %own)", code)

    # Memory

    def _offsets(self, code: Code) -> tuple[dict[str, str | int], str | int]:
        """Where the temporaries begin, and the bytes of all: each has a place of its own."""
        places: dict[str, str | int] = {}
        size: str | int = 0
        for tensor in self.temporaries:
            places[tensor] = size
            item = int(self.layout.elements[tensor][1:])
            mine = code.product([*(self._size(code, n) for n in self.shapes[tensor]), item])
            size = code.total([size, code.padded(mine)])
        return places, size

    def _workspace(self) -> str:
        code = Code()
        _, size = self._offsets(code)
        code.lines.append(f"ret i64 {size}")
        return function(f"i64 @{self.name}_workspace(ptr %extents)", code)

    def _scratch(self) -> str:
        """The most that any kernel needs, and room to begin at a cache line."""
        code = Code()
        most: str | int = 0
        for _, kernel in (each for step in self.steps for each in step):
            _, size = self._scratch_places(code, kernel, self._sizes(code, kernel))
            if isinstance(most, int) and isinstance(size, int):
                most = max(most, size)
            else:
                larger = code.new(f"icmp sgt i64 {size}, {most}")
                most = code.new(f"select i1 {larger}, i64 {size}, i64 {most}")
        code.lines.append(f"ret i64 {most}")
        return function(f"i64 @{self.name}_scratch(ptr %extents)", code)

    @staticmethod
    def _scratch_places(
        code: Code, kernel: ExportedKernel, sizes: Mapping[str, str | int]
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

    def _sizes(self, code: Code, kernel: ExportedKernel) -> dict[str, str | int]:
        """Extents of groups and block sizes, by the names of parameters."""
        sizes: dict[str, str | int] = {
            group.upper(): code.product([self._extent(code, index) for index in members])
            for group, members in kernel.choice.members.items()
        }
        return sizes | dict(kernel.blocks)

    def _fits(self, name: str, kernel: ExportedKernel) -> str:
        """Whether the strides that a kernel takes for 1 are."""
        code, fits = Code(), "true"
        tensors = dict(zip(kernel.choice.schedule.names, kernel.operands, strict=True))
        for tensor, group, fixed in kernel.choice.schedule.strides:
            members = kernel.choice.members[group]
            if fixed is not None and members:
                stride = self._stride(code, tensors[tensor], members[-1])
                fits = code.new(f"and i1 {fits}, {code.new(f'icmp eq i64 {stride}, {fixed}')}")
        code.lines.append(f"ret i1 {fits}")
        return function(f"internal i1 @fits_{name}(ptr %extents, ptr %strides)", code)

    def _tile_count(self, name: str, kernel: ExportedKernel) -> str:
        code = Code()
        sizes = self._sizes(code, kernel)
        counts = (
            code.pieces(sizes[extent], sizes[step] if isinstance(step, str) else step)
            for extent, step in kernel.called.tiles
        )
        code.lines.append(f"ret i64 {code.product(counts)}")
        return function(f"internal i64 @tiles_{name}(ptr %extents)", code)

    def _run(self, name: str, kernel: ExportedKernel) -> str:
        """Fill in the arguments of a kernel, and call it."""
        code, called, members = Code(), kernel.called, kernel.choice.members
        names = kernel.choice.schedule.names
        sizes = self._sizes(code, kernel)
        places, _ = self._scratch_places(code, kernel, sizes)
        values: dict[str, str | int] = {**sizes, **places}
        for called_so, access in zip(names, kernel.operands, strict=True):
            address = self._address(code, access)
            values[called_so] = code.new(f"ptrtoint ptr {address} to i64")
            for group, indices in members.items():
                if len(indices) == 1:
                    values[f"{called_so}_{group}"] = self._stride(code, access, indices[0])
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
        if any(access.tensor == ZERO for access in kernel.operands):
            code.lines.insert(0, "%zero = alloca [2 x i64]")
            for place in (0, 1):
                code.store(0, "%zero", place)
        for place, value in enumerate(arguments):
            code.store(value, "%arguments", place)
        scratch = code.new("ptrtoint ptr %scratch to i64")
        code.lines += [
            f"call void @{kernel.symbol}(ptr %arguments, i64 %begin, i64 %end, i64 {scratch})",
            "ret void",
        ]
        head = f"internal void @run_{name}(i64 %begin, i64 %end, {_MEMORY})"
        return function(head, code)

    # What is exported

    def _choose(
        self, kernels: Sequence[tuple[str, ExportedKernel]], number: int, use: str
    ) -> list[str]:
        """Code that uses the first of a step's kernels that fits; `use` has its name for $."""
        lines = [f"step{number}:"]
        for place, (name, _) in enumerate(kernels[:-1]):
            here, there = f"yes{number}_{place}", f"no{number}_{place}"
            fits = f"%fits{number}_{place}"
            lines += [
                f"{fits} = call i1 @fits_{name}(ptr %extents, ptr %own)",
                f"br i1 {fits}, label %{here}, label %{there}",
                f"{here}:",
                *use.replace("$", name).splitlines(),
                f"{there}:",
            ]
        return [*lines, *use.replace("$", kernels[-1][0]).splitlines()]

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
        return function(head, self._switch(use, "ret i64 -1"))

    def _range(self) -> str:
        memory = _MEMORY.replace("%strides", "%own")
        use = f"call void @run_$(i64 %begin, i64 %end, {memory})\nret i32 0"
        head = f"i32 @{self.name}_range(i64 %step, i64 %begin, i64 %end, {_MEMORY})"
        return function(head, self._switch(use, "ret i32 1"))

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
        return function(f"i32 @{self.name}({', '.join(given)}, {rest})", lines)


_MEMORY = "ptr %tensors, ptr %extents, ptr %strides, ptr %workspace, ptr %scratch"


def driver(
    name: str,
    layout: Layout,
    steps: Sequence[Sequence[ExportedKernel]],
    triple: str = "x86_64-unknown-linux-gnu",
) -> str:
    """The driver of an exported program as LLVM's text. It declares the kernels, and defines
    `name`, `name_range`, `name_tiles`, `name_workspace` and `name_scratch`.
    """
    return _Driver(name, layout, steps).text(triple)
