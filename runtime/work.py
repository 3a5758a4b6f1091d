"""What a plan comes down to: kernels, their arguments, and where the addresses of arrays belong."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiler.records import dataclass

__all__ = ["Call", "Work"]


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
            the result, then the workspace), and bytes to add.
        workspace: bytes of memory for intermediates, which begins on a page.
    """

    calls: tuple[Call, ...]
    arguments: np.ndarray[Any, np.dtype[np.int64]]
    fills: tuple[tuple[int, int, int], ...]
    workspace: int
