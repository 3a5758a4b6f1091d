"""Memory that may not be touched, and children that die of it."""

import ctypes
import faulthandler
import mmap
import os
import sys
import traceback
import warnings

import numpy as np


class Guarded:
    """Memory between two pages that nobody may touch."""

    def __init__(self, size):
        page = mmap.PAGESIZE
        self.pages = -(-max(size, 1) // page) * page
        self.map = mmap.mmap(-1, self.pages + 2 * page)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.map)) + page
        self.end = self.start + self.pages
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for guard in (self.start - page, self.end):
            assert protect(ctypes.c_void_p(guard), page, 0) == 0


def guarded(array, at_end):
    """A copy of a view, its strides kept, that ends or begins where its memory does."""
    spans = [(n - 1) * s // array.itemsize for n, s in zip(array.shape, array.strides, strict=True)]
    low, high = sum(s for s in spans if s < 0), sum(s for s in spans if s > 0)
    size = (high - low + 1) * array.itemsize
    memory = Guarded(size)
    begin = memory.end - size if at_end else memory.start
    cells = np.frombuffer((ctypes.c_char * size).from_address(begin), array.dtype)
    copy = np.lib.stride_tricks.as_strided(cells[-low:], array.shape, array.strides)
    np.copyto(copy, array)
    return memory, copy


def in_a_child(work):
    """Run in a forked child; returns its exit status, negative for a signal, and what it wrote."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads: there is a pool
        child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            os.dup2(writer, 2)
            faulthandler.enable(2)
            work()
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    said = "".join(said.splitlines(keepends=True)[:12])  # the rest is pytest's own stack
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said
