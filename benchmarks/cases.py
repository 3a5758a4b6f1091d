"""The benchmark cases: every file of `cases/` as one kind of record, and how to make it smaller.

Square matrix products need no file: they are generated (`GENERATED`).

An equation is written as in `np.einsum`, or, when its terms are spaced, with one expression for
each axis: `n c 2*y+k-1, o c k -> n o y`. Reads out of range are zero, which is how a convolution
pads.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import opt_einsum
from layers import LAYERS
from norm_convolutions import NORM_CONVOLUTIONS, ConvolutionNorm
from norm_layers import NORM_LAYERS

__all__ = [
    "GENERATED",
    "SUITES",
    "Access",
    "Axis",
    "Case",
    "Cost",
    "Expression",
    "Program",
    "load",
    "load_all",
    "sample",
]

DIRECTORY = Path(__file__).parent / "cases"
TINY = 8  # extents up to here are what a case is about: 3 colours, a 3x3 filter

Path_ = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Axis:
    """One axis of an operand: `offset + sum(coefficient * index)`."""

    terms: tuple[tuple[int, str], ...]
    offset: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the axis is one index and nothing else."""
        return self.offset == 0 and len(self.terms) == 1 and self.terms[0][0] == 1

    def span(self, extents: Mapping[str, int]) -> int:
        """The extent of an array that is padded by `-offset` on either side and just fits."""
        last = sum(coefficient * (extents[index] - 1) for coefficient, index in self.terms)
        return last + 1 + 2 * self.offset


Access = tuple[Axis, ...]


@dataclass(frozen=True)
class Expression:
    """A parsed equation: the axes of each operand, and the indices of the output."""

    inputs: tuple[Access, ...]
    output: tuple[str, ...]

    @classmethod
    def parse(cls, equation: str) -> Expression:
        """Read an equation; raises ValueError for what no case should hold."""
        left, arrow, right = equation.partition("->")
        if not arrow:
            raise ValueError(f"no '->' in {equation!r}")
        texts = [text.strip() for text in (*left.split(","), right)]
        spaced = any(" " in text or "+" in text or "*" in text for text in texts)
        terms = [tuple(map(_axis, text.split() if spaced else text)) for text in texts]
        if not all(axis.is_plain for axis in terms[-1]):
            raise ValueError(f"the output of {equation!r} is not made of plain indices")
        output = tuple(axis.terms[0][1] for axis in terms[-1])
        expression = cls(tuple(terms[:-1]), output)
        if unknown := set(output) - set(expression.indices):
            raise ValueError(f"{sorted(unknown)} in the output of {equation!r} alone")
        return expression

    @property
    def indices(self) -> tuple[str, ...]:
        """Every index once, in the order of its first use."""
        return tuple(
            dict.fromkeys(i for access in self.inputs for axis in access for _, i in axis.terms)
        )

    @property
    def hidden(self) -> tuple[str, ...]:
        """The indices that are no axis of an operand by themselves."""
        axes = [axis for access in self.inputs for axis in access]
        plain = {axis.terms[0][1] for axis in axes if axis.is_plain}
        return tuple(index for index in self.indices if index not in plain)

    @property
    def is_plain(self) -> bool:
        """Whether np.einsum has a way to write it: one index an axis."""
        return all(axis.is_plain for access in self.inputs for axis in access)

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """The operand's axes in the order of the output's, where that is all that there is to do.

        A library answers such an equation with a view: what is measured is a copy of it.
        """
        if len(self.inputs) != 1 or not self.is_plain:
            return None
        axes = [axis.terms[0][1] for axis in self.inputs[0]]
        if sorted(axes) != sorted(self.output) or len(set(axes)) < len(axes):
            return None
        return tuple(axes.index(index) for index in self.output)

    def letters(self) -> str:
        """The equation in single letters, an axis `2*y+k` becoming the two axes `y` and `k`.

        For a plain equation this is the equation. For an affine one it is what remains once the
        windows are laid out as axes of their own (see `window_axes`).
        """
        letter = {index: opt_einsum.get_symbol(n) for n, index in enumerate(self.indices)}
        inputs = ["".join(letter[i] for i in window_axes(access)) for access in self.inputs]
        return f"{','.join(inputs)}->{''.join(letter[i] for i in self.output)}"


def window_axes(access: Access) -> tuple[str, ...]:
    """The indices of an access, one axis each, as a view of its windows has them.

    A plain access keeps its axes, diagonals included; in an affine one a repeated index is one axis
    of the view, whose stride is the sum.
    """
    indices = tuple(index for axis in access for _, index in axis.terms)
    if all(axis.is_plain for axis in access):
        return indices
    return tuple(dict.fromkeys(indices))


def _axis(text: str) -> Axis:
    terms: list[tuple[int, str]] = []
    offset = 0
    parts = re.findall(r"([+-]?)([^+-]+)", text)
    if "".join(sign + part for sign, part in parts) != text:
        raise ValueError(f"cannot read the axis {text!r}")
    for sign, part in parts:
        factor = -1 if sign == "-" else 1
        *number, name = part.split("*")
        if not number and name.isdecimal():
            offset += factor * int(name)
        elif all(map(str.isdecimal, number)) and (len(name) == 1 or name.isidentifier()):
            terms.append((factor * math.prod(map(int, number)), name))
        else:
            raise ValueError(f"cannot read {part!r} in the axis {text!r}")
    return Axis(tuple(terms), offset)


@dataclass(frozen=True)
class Program:
    """One way to compute a case: named einsums, each over operands and earlier results."""

    name: str
    steps: tuple[tuple[str, str, tuple[str, ...]], ...]  # (result, equation, operands)

    @property
    def reads(self) -> set[str]:
        """The arrays that it needs from outside."""
        operands = {name for _, _, each in self.steps for name in each}
        return operands - {result for result, _, _ in self.steps}


@dataclass(frozen=True)
class Cost:
    """What evaluating a case takes.

    Attributes:
        flops: floating point operations, two for each multiply-add.
        traffic: bytes of the inputs, each array once, and of the output.
        largest_intermediate: bytes of the largest intermediate.
        longest_sum: how many products one step adds at most, summed-out indices included.
        steps: how many contractions follow each other.
    """

    flops: int
    traffic: int
    largest_intermediate: int
    longest_sum: int
    steps: int

    @property
    def footprint(self) -> int:
        """Bytes in use at once, roughly: inputs, output and the largest intermediate."""
        return self.traffic + self.largest_intermediate


@dataclass(frozen=True)
class Case:
    """One contraction to measure.

    Attributes:
        name: unique among all cases.
        suite: the file it comes from, without ".json".
        kind: what it is an example of.
        equation: see the module's docstring.
        operands: a name for each operand; two operands of one name are one array.
        shapes: the shape of each operand.
        extents: the extent of each index.
        dtype: "float32" or "float64".
        source: where it was found.
        programs: competing programs, where the source has any.
        arrays: shapes of the arrays of ones that programs read besides.
        unfolded: the arrays that programs read instead of an operand, ready made: its position, and
            the indices of the array's axes.
        paths: contraction paths that came with the case.
        reported: what users said of it.
        into: contenders that can (`out=`) write into one array, made before the time is taken, as
            BLAS is called.
    """

    name: str
    suite: str
    kind: str
    equation: str
    operands: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    extents: Mapping[str, int]
    dtype: str
    source: str
    programs: tuple[Program, ...] = ()
    arrays: Mapping[str, tuple[int, ...]] | None = None
    unfolded: Mapping[str, tuple[int, str]] | None = None
    paths: tuple[Path_, ...] = ()
    reported: str = ""
    into: bool = False

    def __post_init__(self) -> None:
        """Check that the record agrees with itself."""
        expression = self.expression
        if not len(expression.inputs) == len(self.operands) == len(self.shapes):
            raise ValueError(f"{self.name}: operands, shapes and equation differ in number")
        if set(expression.indices) != set(self.extents):
            raise ValueError(f"{self.name}: extents are not those of the indices")
        for access, shape in zip(expression.inputs, self.shapes, strict=True):
            for axis, extent in zip(access, shape, strict=True):
                slack = extent - axis.span(self.extents)
                if extent < 1 or not 0 <= slack < max(coefficient for coefficient, _ in axis.terms):
                    raise ValueError(f"{self.name}: an axis {axis} of extent {extent}")
        for name in self.operands:
            if len(self.shapes_of(name)) > 1:
                raise ValueError(f"{self.name}: {name!r} has several shapes")

    @cached_property
    def expression(self) -> Expression:
        """The parsed equation."""
        return Expression.parse(self.equation)

    @property
    def same_operands(self) -> tuple[tuple[int, ...], ...]:
        """Positions that hold the same array, one group for each array used more than once."""
        groups = (
            tuple(at for at, other in enumerate(self.operands) if other == name)
            for name in dict.fromkeys(self.operands)
        )
        return tuple(group for group in groups if len(group) > 1)

    def shapes_of(self, name: str) -> set[tuple[int, ...]]:
        """The shapes in which an operand appears: one, if the case is sound."""
        return {s for other, s in zip(self.operands, self.shapes, strict=True) if other == name}

    @property
    def given(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all arrays that exist before the time is taken, by name."""
        found = dict(zip(self.operands, self.shapes, strict=True)) | dict(self.arrays or {})
        for name, (_, indices) in (self.unfolded or {}).items():
            found[name] = tuple(self.extents[index] for index in indices)
        return found

    def unfold(self, operands: Sequence[np.ndarray], name: str) -> np.ndarray:
        """One of the `unfolded` arrays, contiguous."""
        from peers import windows_view

        assert self.unfolded is not None
        place, indices = self.unfolded[name]
        access = self.expression.inputs[place]
        windows = windows_view(operands[place], access, self.extents)
        axes = window_axes(access)
        return np.ascontiguousarray(windows.transpose([axes.index(index) for index in indices]))

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return tuple(self.extents[index] for index in self.expression.output)

    @cached_property
    def window_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The operands' shapes under `expression.letters()`: those of their windows."""
        return tuple(
            tuple(self.extents[index] for index in window_axes(access))
            for access in self.expression.inputs
        )

    @cached_property
    def path(self) -> Path_:
        """The contraction path that peers are given: of those known, the one of fewest flops."""
        return self._path_and_info[0]

    @cached_property
    def _path_and_info(self) -> tuple[Path_, Any]:
        equation, shapes, _ = self._summed_first
        found = []
        for optimize in ("auto", *map(list, self.paths)):
            path, info = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=optimize)
            found.append((tuple(map(tuple, path)), info))
        return min(found, key=lambda pair: pair[1].opt_cost)

    @cached_property
    def _summed_first(self) -> tuple[str, list[tuple[int, ...]], frozenset[str]]:
        """The equation in letters and its shapes once the indices of one operand alone are gone.

        Summing those first is never more work, and no pairwise path has a step for it.
        """
        inputs, output = self.expression.letters().split("->")
        terms = inputs.split(",")
        lonely = frozenset(
            letter
            for letter in set(inputs) - {",", *output}
            if sum(letter in term for term in terms) == 1
        )
        kept, shapes = [], []
        for term, shape in zip(terms, self.window_shapes, strict=True):
            pairs = [(i, n) for i, n in zip(term, shape, strict=True) if i not in lonely]
            kept.append("".join(i for i, _ in pairs))
            shapes.append(tuple(n for _, n in pairs))
        return f"{','.join(kept)}->{output}", shapes, lonely

    @cached_property
    def cost(self) -> Cost:
        """The cost along `path`, or of the cheapest program where that takes fewer flops.

        Indices of one operand alone are summed first. An affine equation is counted with its
        windows laid out, which is exact for the products and too much for a path that sums a window
        before it reads the next.
        """
        _, info = self._path_and_info
        item = np.dtype(self.dtype).itemsize
        unique = dict(zip(self.operands, self.shapes, strict=True))
        elements = sum(map(math.prod, unique.values())) + math.prod(self.output_shape)
        symbols = {opt_einsum.get_symbol(n): i for n, i in enumerate(self.expression.indices)}
        _, shapes, lonely = self._summed_first
        sums = [math.prod(self.extents[symbols[letter]] for letter in lonely)]
        for _, contracted, *_ in info.contraction_list:
            sums.append(math.prod(self.extents[symbols[letter]] for letter in contracted))
        largest = max(info.size_list[:-1], default=0)
        flops = int(info.opt_cost)
        windows = dict(zip(self.operands, self.window_shapes, strict=True))
        summed = dict(zip(self.operands, shapes, strict=True))
        flops += sum(math.prod(windows[a]) for a in windows if windows[a] != summed[a])
        for program in self.programs:
            program_flops, program_largest = self.program_cost(program)
            if program_flops < flops:
                flops, largest = program_flops, program_largest
        return Cost(
            flops=flops,
            traffic=elements * item,
            largest_intermediate=int(largest) * item,
            longest_sum=math.prod(sorted(sums)[-2:]),
            steps=len(info.contraction_list),
        )

    def program_cost(self, program: Program) -> tuple[int, int]:
        """Flops, and the elements of the largest intermediate, of one competing program."""
        flops = largest = 0
        extents = dict(self.extents)
        shapes = self.given
        for at, (result, equation, operands) in enumerate(program.steps):
            step = Expression.parse(equation)
            for access, name in zip(step.inputs, operands, strict=True):
                for axis, extent in zip(access, shapes[name], strict=True):
                    if axis.is_plain:  # a step may have indices that the equation has not
                        extents.setdefault(axis.terms[0][1], extent)
            shapes[result] = tuple(extents[index] for index in step.output)
            points = math.prod(extents[index] for index in step.indices)
            products = len(operands) - 1 + (set(step.output) != set(step.indices))
            flops += points * max(products, 1)
            if at < len(program.steps) - 1:
                largest = max(largest, math.prod(shapes[result]))
        return flops, largest

    def with_extents(self, extents: Mapping[str, int]) -> Case:
        """The same case with other extents; paddings and strides stay."""
        resized: dict[str, tuple[int, ...]] = {}
        for name, shape, access in zip(
            self.operands, self.shapes, self.expression.inputs, strict=True
        ):
            resized[name] = tuple(
                extent - axis.span(self.extents) + axis.span(extents)
                for axis, extent in zip(access, shape, strict=True)
            )
        arrays = {}
        for name in (self.arrays or {}).keys() - resized.keys():
            # Arrays of the programs alone: find them in a step, where their axes have names.
            access = next(
                Expression.parse(equation).inputs[operands.index(name)]
                for program in self.programs
                for _, equation, operands in program.steps
                if name in operands
            )
            arrays[name] = tuple(axis.span(extents) for axis in access)
        return replace(
            self,
            extents=dict(extents),
            shapes=tuple(resized[name] for name in self.operands),
            arrays=arrays or None,
        )

    def shrink(self, max_flops: float = math.inf, max_bytes: float = math.inf) -> Case:
        """The case itself if it fits, or the largest evenly scaled one that does.

        One factor scales every extent above 8; what is below stays, since it is what the case is
        about, and what was a multiple of 8 stays one of 4, and of 8 from 64 on. Only when that
        cannot make the case fit (networks of many small extents) are extents down to 4, then 2
        scaled too.

        Args:
            max_flops: most floating point operations (`Cost.flops`).
            max_bytes: most bytes in use (`Cost.footprint`).
        """

        def fits(case: Case) -> bool:
            return case.cost.flops <= max_flops and case.cost.footprint <= max_bytes

        if fits(self):
            return self
        best = self
        for floor in (TINY, TINY // 2, TINY // 4):
            best = self.with_extents(_scaled(self.extents, 0.0, floor))
            if not fits(best):
                continue
            low, high = 0.0, 1.0
            for _ in range(12):
                middle = (low + high) / 2
                candidate = self.with_extents(_scaled(self.extents, middle, floor))
                if fits(candidate):
                    low, best = middle, candidate
                else:
                    high = middle
            break
        return best

    def random_operands(self, seed: int = 0) -> list[np.ndarray]:
        """Operands in [-0.5, 1): signs both ways, and no sum that cancels to nothing."""
        generator = np.random.default_rng(seed)
        arrays = {
            name: generator.uniform(-0.5, 1.0, shape).astype(self.dtype)
            for name, shape in zip(self.operands, self.shapes, strict=True)
        }
        return [arrays[name] for name in self.operands]


def _scaled(extents: Mapping[str, int], factor: float, floor: int) -> dict[str, int]:
    scaled = {}
    for index, extent in extents.items():
        size = max(floor, round(extent * factor))
        if extent % 8 == 0:
            size -= size % (8 if size >= 64 else 4 if size >= 4 else 1)
        scaled[index] = min(extent, max(floor, size)) if extent > floor else extent
    return scaled


def _tuples(rows: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in rows)


def _plain_extents(equation: str, shapes: tuple[tuple[int, ...], ...]) -> dict[str, int]:
    inputs = Expression.parse(equation).inputs
    return {
        axis.terms[0][1]: extent
        for access, shape in zip(inputs, shapes, strict=True)
        for axis, extent in zip(access, shape, strict=True)
    }


def _operand_names(number: int) -> list[str]:
    return [f"A{at}" for at in range(number)]


def _from_sizes(suite: str, kind: str, row: dict[str, Any], dtype: str) -> Case:
    """A case of tccg or hptt, which give extents rather than shapes."""
    extents = row["sizes_f4"] if dtype == "float32" and "sizes_f4" in row else row["sizes"]
    inputs = Expression.parse(row["eq"]).inputs
    return Case(
        name=row["name"],
        suite=suite,
        kind=kind,
        equation=row["eq"],
        operands=tuple(_operand_names(len(inputs))),
        shapes=tuple(tuple(axis.span(extents) for axis in access) for access in inputs),
        extents={index: extents[index] for index in Expression.parse(row["eq"]).indices},
        dtype=dtype,
        source=row["source"],
    )


def _tccg(rows: Any, dtype: str | None) -> Iterator[Case]:
    for row in rows:
        yield _from_sizes("tccg", f"contraction, {row['suite']}", row, dtype or "float64")


def _hptt(rows: Any, dtype: str | None) -> Iterator[Case]:
    for row in rows:
        yield _from_sizes("hptt_transposes", "transposition", row, dtype or "float32")


def _issues(rows: Any, dtype: str | None) -> Iterator[Case]:
    for row in rows:
        shapes = _tuples(row["shapes"])
        names = _operand_names(len(shapes))
        for group in row["same_operands"] or ():
            for at in group:
                names[at] = names[group[0]]
        yield Case(
            name=row["name"],
            suite="issue_cases",
            kind=row["kind"],
            equation=row["eq"],
            operands=tuple(names),
            shapes=shapes,
            extents=_plain_extents(row["eq"], shapes),
            dtype=dtype or row["dtype"],
            source=row["source"],
            reported=row["reported"],
        )


def _instances(rows: Any, dtype: str | None) -> Iterator[Case]:
    for row in rows:
        shapes = _tuples(row["shapes"])
        yield Case(
            name=row["name"],
            suite="einsum_instances",
            kind="binary" if len(shapes) == 2 else "network",
            equation=row["eq"],
            operands=tuple(_operand_names(len(shapes))),
            shapes=shapes,
            extents=_plain_extents(row["eq"], shapes),
            dtype=dtype or row["dtype"],
            source=row["source"],
            paths=tuple(dict.fromkeys(_tuples(p["path"]) for p in row["paths"].values())),
        )


def _norms(rows: Any, dtype: str | None) -> Iterator[Case]:
    for row in rows:
        operands = tuple(row["operands"].split(","))
        shapes = {name: tuple(shape) for name, shape in row["shapes"].items()}
        programs = [
            Program(name, tuple((step[0], step[1], tuple(step[2])) for step in each["steps"]))
            for name, each in row["programs"].items()
        ]
        # "1" is a window of ones. A program that reads anything else (a mask in the place of
        # one-hot rows) starts from other data than the equation does: no way to compute it.
        foreign = shapes.keys() - {*operands, "1"}
        yield Case(
            name=row["layer"],
            suite="norm_cases",
            kind="norm of a convolution" if "conv" in row else "norm",
            equation=row["eq"],
            operands=operands,
            shapes=tuple(shapes[name] for name in operands),
            extents={index: row["sizes"][index] for index in Expression.parse(row["eq"]).indices},
            dtype=dtype or "float32",
            source=row["source"],
            programs=tuple(program for program in programs if not program.reads & foreign),
            arrays={"1": shapes["1"]} if "1" in shapes else None,
        )


def _convolutions(tables: Any, dtype: str | None) -> Iterator[Case]:
    source = "named factorizations, and 3-D ones as enumerated by EinConv"
    rows = [(row["name"], "factored convolution", row) for row in tables["named"]]
    for row in tables["enum3d_sample"]:
        rows.append((f"3D {', '.join(row['factors'])}", "enumerated 3-D convolution", row))
    for name, kind, row in rows:
        expression = Expression.parse(row["eq"])
        sizes = tables["realistic_sizes"]["three_d" if "d" in expression.output else "two_d"]
        if row.get("note") == "K=1":
            sizes = sizes | {"k": 1, "l": 1}
        if "g" in expression.indices:  # 64 channels in 8 groups
            sizes = sizes | {"g": 8, "c": 8, "o": 8}
        yield Case(
            name=name,
            suite="conv_cases",
            kind=kind,
            equation=row["eq"],
            operands=tuple(_operand_names(len(expression.inputs))),
            shapes=tuple(tuple(a.span(sizes) for a in access) for access in expression.inputs),
            extents={index: sizes[index] for index in expression.indices},
            dtype=dtype or "float32",
            source=source,
        )


PRODUCT_EXTENTS = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536)
PRODUCTS = {"nn": "ij,jk->ik", "nt": "ij,kj->ik", "tn": "ji,jk->ik", "tt": "ji,kj->ik"}


def _products(suite: str, forms: tuple[str, ...], dtype: str | None) -> Iterator[Case]:
    """Square matrix products; a form has a t for each operand that is stored transposed."""
    for each in (dtype,) if dtype else ("float32", "float64"):
        for form in forms:
            for extent in PRODUCT_EXTENTS:
                yield Case(
                    name=f"product_{form}_{extent}_{each}",
                    suite=suite,
                    kind="matrix product",
                    equation=PRODUCTS[form],
                    operands=("A0", "A1"),
                    shapes=((extent, extent),) * 2,
                    extents=dict.fromkeys("ijk", extent),
                    dtype=each,
                    source="what BLAS is made for",
                    into=True,
                )


def _layers(suite: str, forms: tuple[str, ...], dtype: str | None) -> Iterator[Case]:
    """Convolutions of real networks."""
    for layer in LAYERS:
        equation, extents = layer.equation(), layer.extents()
        inputs = Expression.parse(equation).inputs
        image = iter([layer.image] * layer.axes)
        shapes = [
            tuple(
                a.span(extents) if a.is_plain and a.terms[0][1] not in "zyx" else next(image)
                for a in inputs[0]
            ),
            tuple(axis.span(extents) for axis in inputs[1]),
        ]
        yield Case(
            name=layer.name,
            suite=suite,
            kind="convolution",
            equation=equation,
            operands=("A0", "A1"),
            shapes=tuple(shapes),
            extents={index: extents[index] for index in Expression.parse(equation).indices},
            dtype=dtype or "float32",
            source="layers of published networks",
        )


_READERS: dict[str, Callable[[Any, str | None], Iterator[Case]]] = {
    "issue_cases": _issues,
    "tccg": _tccg,
    "hptt_transposes": _hptt,
    "einsum_instances": _instances,
    "norm_cases": _norms,
    "conv_cases": _convolutions,
}

SUITES = tuple(_READERS)
"""The files of `cases/`, without ".json"; `load` takes these names."""

GENERATED: dict[str, tuple[str, ...]] = {
    "products": ("nn",),
    "transposed_products": ("nt", "tn", "tt"),
    "norms": ("norm_cases",),
    "other_norms": ("norm_layers",),
    "conv_layers": (),
    "conv_norms": (),
}
"""Suites that need no file, with their forms or where they are from; `load` takes them too."""


def _norms_of(files: tuple[str, ...], dtype: str | None) -> Iterator[Case]:
    """Norms without convolutions: those of files, or those of `norm_layers`."""
    for file in files:
        if file != "norm_layers":
            yield from (case for case in load(file, dtype) if case.kind == "norm")
            continue
        for layer in NORM_LAYERS:
            terms = Expression.parse(layer.equation).inputs
            names = tuple(layer.operands)
            yield Case(
                name=layer.name,
                suite="other_norms",
                kind="norm",
                equation=layer.equation,
                operands=names,
                shapes=tuple(tuple(a.span(layer.extents) for a in term) for term in terms),
                extents=layer.extents,
                dtype=dtype or "float32",
                source="layers of the same kinds",
                arrays={"1": (layer.extents["t"],)} if "1" in str(layer.programs) else None,
                programs=tuple(
                    Program(name, tuple((r, e, tuple(o)) for r, e, o in steps))
                    for name, steps in layer.programs.items()
                ),
            )


def _norms_of_convolutions(dtype: str | None) -> Iterator[Case]:
    """Those of `norm_cases.json` and of `norm_convolutions`."""
    rows = json.loads((DIRECTORY / "norm_cases.json").read_text(encoding="utf-8"))
    from_file = [ConvolutionNorm.of_row(row) for row in rows if "conv" in row]
    for layer in (*from_file, *NORM_CONVOLUTIONS):
        shapes = layer.shapes
        yield Case(
            name=layer.name,
            suite="conv_norms",
            kind="norm of a convolution",
            equation=layer.equation,
            operands=("B", "B", "X", "X"),
            shapes=tuple(shapes[name] for name in "BBXX"),
            extents=layer.extents,
            dtype=dtype or "float32",
            source="layers of published networks",
            programs=tuple(
                Program(name, tuple((r, e, tuple(o)) for r, e, o in steps))
                for name, steps in layer.programs.items()
            ),
            unfolded={"U": (2, layer.unfolded)},
        )


def load(suite: str, dtype: str | None = None) -> list[Case]:
    """The cases of one file of `cases/`, or of one generated suite.

    Args:
        suite: one of `SUITES` or `GENERATED`.
        dtype: "float32" or "float64" for all of them; by default what each was reported with.
    """
    if suite in ("norms", "other_norms"):
        return list(_norms_of(GENERATED[suite], dtype))
    if suite == "conv_norms":
        return list(_norms_of_convolutions(dtype))
    if suite in GENERATED:
        make = _products if GENERATED[suite] else _layers
        return list(make(suite, GENERATED[suite], dtype))
    if suite not in _READERS:
        raise ValueError(f"no suite {suite!r}; there are {', '.join((*SUITES, *GENERATED))}")
    content = json.loads((DIRECTORY / f"{suite}.json").read_text(encoding="utf-8"))
    return list(_READERS[suite](content, dtype))


def load_all(dtype: str | None = None) -> list[Case]:
    """The cases of every file."""
    return [case for suite in SUITES for case in load(suite, dtype)]


def sample(cases: Sequence[Case], count: int | None) -> list[Case]:
    """So many of the cases, evenly spread over the list; None or 0 for all of them."""
    if not count or count >= len(cases):
        return list(cases)
    return [cases[at * len(cases) // count] for at in range(count)]
