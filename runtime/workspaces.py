"""Workspaces: the memory of a call's intermediates, which each thread keeps from call to call."""

from .buffers import Buffer, Kept
from .memory import available_memory

__all__ = ["give_back", "kept", "take"]

kept = Kept("intermediates")
"""Each thread's workspace of its last call."""

_CHECK_FROM = 1 << 26
"""Workspaces of so many bytes are compared with the memory that is there, which takes 0.1 ms."""


def take(size: int) -> Buffer:
    """A workspace of at least so many bytes; what an exception leaves with nobody is freed.

    Raises:
        MemoryError: there is no room for it now.
    """
    if size >= _CHECK_FROM:
        there = available_memory()
        if there is not None and size > there:
            raise MemoryError(
                f"the intermediates take {size:,} bytes, but {there:,} are available; "
                "memory_limit= makes them take less"
            )
    return kept.take(size)


def give_back(buffer: Buffer) -> None:
    """Keep a workspace for the thread's next call."""
    kept.give_back(buffer)
