"""Memory that Python threads keep from call to call: scratch of kernels, workspaces of plans.

Fresh memory is zeroed by the system page by page as it is touched, which takes longer than many a
contraction. So each thread keeps what it had, up to 64 MiB of a kind; more is given back at once.
"""

from __future__ import annotations

import ctypes
import mmap
from _thread import _local as local  # `threading.local`, without a millisecond of import
from contextlib import suppress

from ..compiler.records import dataclass

__all__ = ["KEEP_BYTES", "Buffer", "Kept", "allocate"]

KEEP_BYTES = 64 << 20
"""Buffers of up to this size wait for the next call."""

HUGE_FROM = 1 << 20
"""From so many bytes on a buffer is made of huge pages, if the system gives them."""

HUGE_PAGE = 2 << 20


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that begins on a page and holds anything.

    Attributes:
        pages: what owns it, and has its contents; None has nothing.
        address: of its first byte.
        size: in bytes.
    """

    pages: memoryview | None
    address: int
    size: int


_NOTHING = Buffer(None, 0, 0)


def allocate(size: int, purpose: str) -> Buffer:
    """New memory.

    Raises:
        MemoryError: there is none; the message tells the `purpose`.
    """
    huge = size >= HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE")
    if huge:
        size = -(-size // HUGE_PAGE) * HUGE_PAGE
    try:
        # Private: forked children must not share it.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        pages = mmap.mmap(-1, size + (HUGE_PAGE if huge else 0), flags=flags)
    except (OSError, OverflowError) as problem:
        raise MemoryError(f"no memory for {size} bytes of {purpose}: {problem}") from problem
    begin = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    shift = -begin % HUGE_PAGE if huge else 0
    if huge:
        with suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE, shift, size)
    return Buffer(memoryview(pages)[shift : shift + size], begin + shift, size)


class Kept(local):
    """One buffer for each Python thread.

    Attributes:
        buffer: the calling thread's, while nobody has taken it.
    """

    buffer: Buffer = _NOTHING

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose

    def share(self, size: int) -> Buffer:
        """A buffer of at least this size, for what is of no use once native code has returned.

        Another call on this thread, from a signal handler or a finalizer, may get the same one.
        """
        found = self.buffer
        if size <= found.size:
            return found
        made = allocate(size, self._purpose)
        if size <= KEEP_BYTES:
            self.buffer = made
        return made

    def take(self, size: int) -> Buffer:
        """A buffer of at least this size that nobody else gets until it is given back.

        It need not be: one that was not is freed when the last reference is gone.
        """
        found, self.buffer = self.buffer, _NOTHING
        return found if size <= found.size else allocate(size, self._purpose)

    def give_back(self, buffer: Buffer) -> None:
        """Keep a buffer for the next call, unless it is huge or there is a larger one."""
        if self.buffer.size < buffer.size <= KEEP_BYTES:
            self.buffer = buffer
