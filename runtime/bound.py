"""Steps that are bound together: their arguments in one array, in which addresses are filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.records import dataclass
from . import threads
from .step import Step
from .work import Call, Work

if TYPE_CHECKING:
    from .chain import ChainStep

__all__ = ["Bound", "bind_steps"]

Array = np.ndarray[Any, Any]

_FEW = 16
"""So few addresses are filled in faster by a loop than by NumPy."""


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

    steps: tuple[Step | ChainStep, ...]
    arguments: Array
    places: Array
    tensors: Array
    offsets: Array
    fills: tuple[tuple[int, int, int], ...]
    moves: Array
    calls: tuple[tuple[int, int, int, int, int], ...]
    levels: tuple[int, ...]

    def run(self, addresses: list[int]) -> None:
        """Run all steps on tensors at these addresses; the last is `ZERO_AT`."""
        arguments = self.arguments.copy()
        if self.fills:
            for place, tensor, offset in self.fills:
                arguments[place] = addresses[tensor] + offset
        else:
            arguments[self.places] = np.array(addresses)[self.tensors] + self.offsets
        begin = arguments.__array_interface__["data"][0]
        for code, offset, tiles, scratch_bytes, most in self.calls:
            threads.run(code, begin + offset, tiles, scratch_bytes, most=most)

    def timed_calls(self) -> tuple[Call, ...]:
        """The calls as the native entry wants them, with a guess at the time of each."""
        return tuple(
            Call(*call, 1e9 * step.seconds)
            for call, step in zip(self.calls, self.steps, strict=True)
        )

    def keys(self) -> list[str]:
        """The key of the kernel that each call is of, or `CHAIN`."""
        return [step.key for step in self.steps]

    def codes(self) -> list[tuple[int, str]]:
        """Places of addresses of kernels among the arguments, and their keys."""
        return [
            (call[1] // 8 + place, key)
            for call, step in zip(self.calls, self.steps, strict=True)
            for place, key in step.codes
        ]

    def filled(self) -> Iterable[tuple[int, int, int]]:
        """All places with their tensors and offsets."""
        columns = (each.tolist() for each in (self.places, self.tensors, self.offsets))
        return zip(*columns, strict=True)

    def work(self, given: int, placed: Sequence[int], size: int) -> Work:
        """The steps for who knows arrays by number alone.

        Args:
            given: so many tensors have arrays of their own; intermediates are in the one after.
            placed: the offset of each intermediate in it.
            size: its bytes.
        """
        fills = tuple(
            (place, tensor, offset)
            if tensor < given
            else (place, given, placed[tensor - given] + offset)
            for place, tensor, offset in self.filled()
        )
        return Work(self.timed_calls(), self.arguments, fills, size)


def bind_steps(
    steps: Sequence[Step | ChainStep],
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
        places += [begin + place for place in step.places]
        tensors += [numbers[name] for name in step.operands]
        offsets += step.offsets
        calls.append((step.address, 8 * begin, step.tiles, step.scratch_bytes, step.threads))
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
