"""Run a program piece by piece: the loops of `compiler/slices.py` around steps that are bound."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, cast

import numpy as np

from ..compiler.program import Program
from ..compiler.records import dataclass
from ..compiler.sliced import TOTAL, Slice, Sliced, with_extents
from . import threads
from .bound import Bound, bind_steps
from .buffers import Buffer
from .step import Layouts, Step, steps_along

__all__ = ["Pieces", "bind_pieces", "moves_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Pieces:
    """A sliced program that is bound to the layouts of its tensors.

    Attributes:
        sliced: the program, and the loops around its statements.
        bound: the steps. If the last block of a sliced index is shorter than the others there is an
            entry for that, and so on: keys tell for each slice whether the block is a whole one.
    """

    sliced: Sliced
    bound: Mapping[tuple[bool, ...], Bound]

    @property
    def whole(self) -> Bound:
        """The steps for whole blocks."""
        return next(iter(self.bound.values()))

    def run(self, addresses: Array, results: Mapping[str, Array], buffer: Buffer) -> None:
        """Run the pieces one after the other, and add them up where that is asked for.

        Args:
            addresses: of all tensors by number, `ZERO_AT` last.
            results: the whole results by name.
            buffer: the workspace.
        """
        slices, loops = self.sliced.slices, range(1, len(self.sliced.slices) + 1)
        # Statements in loops whose index is where it was have run for a piece already.
        firsts = {
            key: [bisect_left(bound.levels, level) for level in loops]
            for key, bound in self.bound.items()
        }
        arguments = {key: bound.arguments.copy() for key, bound in self.bound.items()}
        bases = {k: addresses[bound.tensors] + bound.offsets for k, bound in self.bound.items()}
        before: tuple[int, ...] = ()
        with np.errstate(all="ignore"):  # kernels do not warn either
            for piece in self.sliced.pieces():
                key = tuple(p + s.block <= s.extent for p, s in zip(piece, slices, strict=True))
                bound = self.bound[key]
                arguments[key][bound.places] = bases[key] + np.array(piece) @ bound.moves
                changed = (n for n, p in enumerate(before) if p != piece[n])
                first = firsts[key][next(changed)] if before else 0
                begin = arguments[key].__array_interface__["data"][0]
                for code, offset, tiles, scratch_bytes, most in bound.calls[first:]:
                    threads.run(code, begin + offset, tiles, scratch_bytes, most=most)
                for name in self.sliced.added:
                    self._add(name, piece, results[name], buffer)
                before = piece

    def _add(self, name: str, piece: tuple[int, ...], result: Array, buffer: Buffer) -> None:
        """Add a piece of a result to what there is of it."""
        sliced, program = self.sliced, self.sliced.program
        target = next(s.target for s in program.statements if s.target.tensor == name)
        slices = {s.index: (p, s) for p, s in zip(piece, sliced.slices, strict=True)}
        part = []
        for axis in target.subscripts:
            begin, each = slices.pop(axis.names[0], (0, None)) if axis.names else (0, None)
            part.append(slice(begin, begin + each.block) if each else slice(None))
        summed = [slices.pop(index) for index in sliced.added[name]]
        if any(p for p, _ in slices.values()):
            return  # it does not depend on these: the piece was there before
        whole: Array = result[cast("Any", (*part, ...))]
        size = sliced.sizes[name] // _volume(program, name)
        dtype = result.dtype if size == result.itemsize else np.dtype("f4")

        def intermediate(name: str) -> Array:
            offset = sliced.workspace.offsets[name]
            return np.ndarray(whole.shape, dtype, cast("Any", buffer.pages), offset)

        new = intermediate(name)
        total = intermediate(TOTAL) if TOTAL in sliced.sizes else whole
        if all(p == 0 for p, _ in summed):
            np.copyto(total, new)
        else:
            np.add(total, new, out=total)
        if total is not whole and all(p + s.block >= s.extent for p, s in summed):
            np.copyto(whole, total, casting="same_kind")


def _volume(program: Program, name: str) -> int:
    volume = 1
    for extent in program.shapes[name]:
        volume *= extent
    return volume


def bind_pieces(
    sliced: Sliced,
    numbers: Mapping[str, int],
    given: Layouts,
    make: Callable[[Program], Sequence[tuple[Step, int]]],
) -> dict[tuple[bool, ...], Bound]:
    """Bind the steps of whole blocks, and those of blocks that are shorter.

    Args:
        sliced: what is to run; perhaps without any slices.
        numbers: of the tensors.
        given: the layouts of the operands, and of results that are written where they are.
        make: the steps of a program, each with the number of loops around it.
    """
    bound: dict[tuple[bool, ...], Bound] = {}
    for key in product(*((True, False) if s.extent % s.block else (True,) for s in sliced.slices)):
        ends = {
            each.index: each.extent % each.block
            for each, is_whole in zip(sliced.slices, key, strict=True)
            if not is_whole
        }
        part = with_extents(sliced.program, ends) if ends else sliced.program
        made = make(part)
        steps, levels = [step for step, _ in made], [level for _, level in made]
        moves = [moves_of(step, sliced.slices, given) for step in steps]
        bound[key] = bind_steps(steps, numbers, moves, levels)
    return bound


def moves_of(step: Step, slices: Sequence[Slice], given: Layouts) -> list[list[int]]:
    """For each slice, by how many bytes each operand's address grows with the sliced index.

    Tensors that are not given are those of a piece, and stay where they are.
    """
    accesses = (*step.statement.operands, step.statement.target)
    order = (*step.form.numbered_choice.operands, len(accesses) - 1)
    grow = []
    for access in [accesses[n] for n in order] if slices else ():
        strides, dtype = given.get(access.tensor, ((0,) * len(access.subscripts), np.dtype("i1")))
        steps = steps_along(access, strides, dtype)
        grow.append({index: stride * dtype.itemsize for index, stride in steps.items()})
    return [[each.get(s.index, 0) for each in grow] for s in slices]
