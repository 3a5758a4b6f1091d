"""torch.nn.functional's convolutions as a contender, for sequences of them too.

A product of several factors is cut into steps as einsumc cuts it, along each of several paths; a
step that has a window is a convolution, any other one `torch.einsum`. The best of the paths counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peers import Torch, Unsupported

if TYPE_CHECKING:
    import numpy as np
    from cases import Case, Program
    from einsumc.compiler.affine import Affine
    from einsumc.compiler.program import Program as Steps
    from einsumc.compiler.program import Statement

__all__ = ["TorchConvolutions"]

Tensor = Any


class TorchConvolutions(Torch):
    """torch.nn.functional.conv1d, conv2d and conv3d (oneDNN), and torch.einsum between them."""

    name = "torch_conv"

    def variants(
        self, case: Case, arrays: Mapping[str, np.ndarray], programs: Sequence[Program]
    ) -> Iterator[tuple[str, Callable[[], Tensor]]]:
        """The equation as a sequence of convolutions, for several orders of contraction."""
        if case.expression.is_plain and case.kind != "convolution":
            raise Unsupported("not a convolution")
        for label, steps in _sequences(case):
            try:
                calls = [self.statement(steps, statement) for statement in steps.statements]
            except Unsupported:
                continue
            yield label, self.bind(_sequence(steps, calls), case.operands, arrays)

    def statement(self, program: Steps, statement: Statement) -> Callable[..., Tensor]:
        """A function of a statement's factors."""
        plain = all(axis.is_index for f in statement.factors for axis in f.subscripts)
        if plain and len(program.statements) > 1:
            return self.contracted(statement)
        if len(statement.factors) != 2:
            raise Unsupported("a window of more than two factors")
        return _Convolution(self.library, program, statement).run

    def contracted(self, statement: Statement) -> Callable[..., Tensor]:
        """torch.einsum."""
        letters = {name: chr(97 + n) for n, name in enumerate(statement.indices)}
        if any(not axis.is_index for f in statement.factors for axis in f.subscripts):
            raise Unsupported("an axis that is no index")
        *inputs, output = (
            "".join(letters[name] for name in access.names)
            for access in (*statement.factors, statement.target)
        )
        equation, einsum = f"{','.join(inputs)}->{output}", self.library.einsum
        return lambda *factors: einsum(equation, *factors)


class _Convolution:
    """A statement as one call of a convolution."""

    def __init__(self, library: Any, program: Steps, statement: Statement) -> None:
        self.library, self.sizes = library, program.sizes
        windows = [any(not a.is_index for a in f.subscripts) for f in statement.factors]
        if all(windows):
            raise Unsupported("not one image")
        self.place = windows.index(True) if any(windows) else 0  # that of a 1x1 convolution
        image, weight = statement.factors[self.place], statement.factors[1 - self.place]
        kept = statement.kept
        self.shape = program.shapes[image.tensor]
        plain = {a.names[0]: n for n, a in enumerate(image.subscripts) if a.is_index}
        self.weight = weight.names
        if any(not axis.is_index for axis in weight.subscripts):
            raise Unsupported("an affine axis of a filter")
        self.groups = [i for i in plain if i in self.weight and i in kept]
        self.channels = [i for i in plain if i in self.weight and i not in kept]
        if any(i not in kept and i not in self.weight for i in plain):
            raise Unsupported("a sum of the image alone")
        self.filters = [i for i in self.weight if i in kept and i not in plain]
        axes = [n for n, axis in enumerate(image.subscripts) if not axis.is_index]
        # Other axes that lie between those or behind them stay where they are.
        others = [n for i, n in plain.items() if i not in self.weight]
        first = axes[0] if axes else min(plain[i] for i in self.channels)
        axes = sorted([*axes, *(n for n in others if n > first)])
        if len(axes) > 3:
            raise Unsupported("more than three axes")
        self.batch = [i for i, n in plain.items() if n in others and n not in axes]
        self.axes = [(n, _Space.of(image.subscripts[n], kept)) for n in axes]
        self.order = [
            *(plain[i] for i in (*self.batch, *self.groups, *self.channels)),
            *(n for n, _ in self.axes),
        ]
        taps = [space.tap for _, space in self.axes if space.tap is not None]
        if any(tap not in self.weight for tap in taps) or {*self.weight} - {
            *self.groups,
            *self.channels,
            *self.filters,
            *taps,
        }:
            raise Unsupported("a tap that the filter has not")
        self.taps = taps
        found = [*self.batch, *self.groups, *self.filters, *(s.kept for _, s in self.axes)]
        self.result = [found.index(name) for name in statement.target.names]
        self.extents = [self.sizes[name] for name in found]

    def run(self, *factors: Tensor) -> Tensor:
        """The convolution of the image with the filters."""
        sizes, functional = self.sizes, self.library.nn.functional
        image, weight = factors[self.place], factors[1 - self.place]
        image = image.permute(self.order)

        def volume(names: Sequence[str]) -> int:
            return math.prod(sizes[name] for name in names)

        groups = volume(self.groups)
        space = [self.shape[n] for n, _ in self.axes]
        image = image.reshape(volume(self.batch), groups * volume(self.channels), *space)
        order = [*self.groups, *self.filters, *self.channels, *self.taps]
        weight = weight.permute([self.weight.index(name) for name in order])
        kernel = [1 if s.tap is None else sizes[s.tap] for _, s in self.axes]
        weight = weight.reshape(groups * volume(self.filters), volume(self.channels), *kernel)
        run = getattr(functional, f"conv{len(self.axes)}d")
        out = run(
            image,
            weight,
            stride=[s.stride for _, s in self.axes],
            padding=[s.padding for _, s in self.axes],
            dilation=[s.dilation for _, s in self.axes],
            groups=groups,
        )
        out = out[(..., *(slice(sizes[s.kept]) for _, s in self.axes))]
        return out.reshape(self.extents).permute(self.result)


class _Space:
    """An axis that a convolution runs along."""

    def __init__(
        self, kept: str, stride: int, tap: str | None, dilation: int, padding: int
    ) -> None:
        self.kept, self.stride, self.tap = kept, stride, tap
        self.dilation, self.padding = dilation, padding

    @classmethod
    def of(cls, axis: Affine, kept: Sequence[str]) -> _Space:
        """The axis as torch knows it."""
        positions = [(name, c) for name, c in axis.terms if name in kept]
        taps = [(name, c) for name, c in axis.terms if name not in kept]
        if len(positions) != 1 or len(taps) > 1 or axis.constant > 0:
            raise Unsupported("not an axis of a convolution")
        (position, stride), (tap, dilation) = positions[0], taps[0] if taps else (None, 1)
        if stride < 1 or dilation < 1:
            raise Unsupported("backwards")
        return cls(position, stride, tap, dilation, -axis.constant)


def _sequences(case: Case) -> Iterator[tuple[str, Steps]]:
    """Programs of pairwise steps: einsumc's candidates, and all orders of a few factors."""
    from einsumc.compiler.follow import follow
    from einsumc.compiler.program import from_expression
    from einsumc.compiler.resolve import resolve
    from einsumc.compiler.subscripts import parse
    from einsumc.compiler.windows_path import windows_path

    expression = resolve(parse(case.equation), case.shapes)
    program = from_expression(expression)
    count = len(case.operands)
    if count == 2:
        yield "", program
        return
    statement = program.statements[-1]
    paths = {"least work": windows_path(statement, program.sizes, program.shapes)}
    paths["opt_einsum"] = case.path
    paths["left to right"] = ((0, 1), *[(0, n) for n in range(count - 2, 0, -1)])
    paths["filter first"] = ((1, 2), *[(1, n) for n in range(count - 2, 1, -1)], (0, 1))
    seen = set()
    for label, path in paths.items():
        whole = follow(program, path)
        if whole.statements not in seen and all(len(s.factors) == 2 for s in whole.statements):
            seen.add(whole.statements)
            yield label, whole


def _sequence(program: Steps, calls: Sequence[Callable[..., Tensor]]) -> Callable[..., Tensor]:
    """A function of a program's inputs that runs its steps."""

    def run(*operands: Tensor) -> Tensor:
        values = dict(zip(program.inputs, operands, strict=True))
        for statement, call in zip(program.statements, calls, strict=True):
            factors = (values[factor.tensor] for factor in statement.factors)
            values[statement.target.tensor] = call(*factors)
        return values[program.result]

    return run
