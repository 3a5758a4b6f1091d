"""What a plan comes down to: kernels, their arguments, and where the addresses of arrays belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..compiler.records import dataclass, replace

__all__ = ["CHAIN", "ZERO_AT", "Call", "Work"]

Array = np.ndarray[Any, Any]

CHAIN = "chain"
"""What stands for the key of a kernel where a call is of what runs chains, which the pool has."""

_zero = np.zeros(1, "c16")

ZERO_AT = _zero.__array_interface__["data"][0]
"""The address of what is read where a statement sets elements to zero."""


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel of a computation: what `threads.run` wants to know, and where its arguments are.

    Attributes:
        address: of the kernel.
        begin: the byte at which its arguments begin among all.
        tiles: how many it has.
        scratch_bytes: memory that each thread needs.
        threads: worth having for its work.
        work_ns: a guess at the time that one thread would take.
    """

    address: int
    begin: int
    tiles: int
    scratch_bytes: int
    threads: int
    work_ns: float


@dataclass(frozen=True, slots=True)
class Work:
    """All kernels of a computation.

    Attributes:
        calls: in order.
        arguments: of all, as 64-bit numbers, without addresses.
        fills: for each address its place among them, the number of the tensor (operands first, then
            the result, then the workspace; -1 for the constant zero), and bytes to add.
        workspace: bytes of memory for intermediates, which begins on a page.
    """

    calls: tuple[Call, ...]
    arguments: np.ndarray[Any, np.dtype[np.int64]]
    fills: tuple[tuple[int, int, int], ...]
    workspace: int

    def settled(self) -> Work:
        """The same with the address of the constant zero among the arguments."""
        zeros = [(place, offset) for place, tensor, offset in self.fills if tensor == -1]
        if not zeros:
            return self
        arguments = self.arguments.copy()
        for place, offset in zeros:
            arguments[place] = ZERO_AT + offset
        fills = tuple(fill for fill in self.fills if fill[1] != -1)
        return replace(self, arguments=arguments, fills=fills)

    def with_constants(self, inputs: int, constants: Sequence[Array]) -> Work:
        """The same with the addresses of constants among the arguments.

        Args:
            inputs: how many operands there are.
            constants: the last of them, which stay where they are.
        """
        fixed = [array.__array_interface__["data"][0] for array in constants]
        given = inputs - len(fixed)
        settled = self.settled()
        fills, arguments = [], settled.arguments.copy()
        for place, tensor, offset in settled.fills:
            if tensor < given:
                fills.append((place, tensor, offset))
            elif tensor < inputs:
                arguments[place] = fixed[tensor - given] + offset
            else:
                fills.append((place, tensor - len(fixed), offset))
        return replace(settled, arguments=arguments, fills=tuple(fills))
