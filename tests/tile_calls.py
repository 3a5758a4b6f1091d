"""Bodies of kernels of a few lines, compiled and called: for tests of the operations on tiles."""

import ctypes
from functools import cache

import numpy as np
from steps import function

SENTINEL = 77


@cache
def compiled(body):
    lines = [f"    {line}" for line in body.strip().splitlines()]
    return function("\n".join(["def kernel(args, begin, end, scratch):", *lines]) + "\n")


def call(body, *arguments, begin=0, end=0):
    """Run a kernel's body on arrays (passed by address) and integers."""
    slots = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    args = (ctypes.c_int64 * max(len(slots), 1))(*slots)
    compiled(body)(ctypes.addressof(args), begin, end, 0)


def numbers(shape, dtype, seed=1):
    rng = np.random.default_rng(seed)
    if dtype == "b1":
        return rng.random(shape) < 0.5
    found = rng.integers(0 if dtype[0] == "u" else -9, 10, shape)
    if dtype[0] == "c":
        found = found + 1j * rng.integers(-9, 10, shape)
    return np.array(found, dtype)


LANES = {"f2": 8, "f4": 8, "f8": 4, "c8": 8, "c16": 4, "i1": 16, "i4": 8, "b1": 16}
