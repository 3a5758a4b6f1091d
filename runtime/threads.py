"""Kernels on several threads.

A kernel runs a range of tiles that do not depend on each other, so the result has the same bits
whoever runs which. The threads and all hand-overs between them are native code
(`compiler/pool.py`); what remains here is to choose how many, to lend them scratch memory, and to
let Python look for Ctrl-C every 50 ms.

Any number of Python threads may call `run` at once. The first gets the pool; one that finds it busy
runs its tiles on its own thread. Forked children start with a pool of their own.

The pool is an image like a kernel, from a store or freshly compiled; whoever knows where to find
it calls `provide`. Without one, as on other architectures, kernels run on the calling thread.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

from ..compiler.alone import alone
from ..compiler.records import dataclass
from . import settings
from .buffers import Kept
from .load import LoadedImage, anonymous_pages, wipe_on_fork
from .target import architecture, available_cores

__all__ = [
    "POOL_ABI",
    "POOL_ENTRY",
    "Pool",
    "get_num_threads",
    "install_pool",
    "pool",
    "provide",
    "run",
    "set_num_threads",
]

POOL_ABI = 1
"""How the pool's entry is called. Raise it when its arguments or the state change."""

POOL_ENTRY = "pool_run"
"""The pool image's function that shares tiles out; `compiler/pool.py` describes it."""

CHAIN_ENTRY = "chain_run"
"""The one that runs a block of a chain; `compiler/chain.py` describes it."""

MAX_THREADS = 1024

_STATE_BYTES = 4096
_PAGE = 4096
_SLICE_NS = 50_000_000  # how long native code runs before Python looks for signals
_SPIN_CYCLES = 100_000  # 30 to 50 microseconds of waiting awake for the next job

_pointer, _int64 = ctypes.c_void_p, ctypes.c_int64
# Functions of these types release the GIL while they run.
_Kernel = ctypes.CFUNCTYPE(None, _pointer, _int64, _int64, _pointer)
_PoolRun = ctypes.CFUNCTYPE(_int64, *[_pointer] * 3, *[_int64] * 3, _pointer, *[_int64] * 3)


@dataclass(frozen=True, slots=True)
class Pool:
    """A native pool.

    Attributes:
        call: the native `pool_run`.
        chain: address of `chain_run`, which is called as kernels are (`compiler/chain.py`).
        state: address of its state, which is never unmapped: workers sleep on it for ever.
        wiped: whether forked children find the state zeroed.
    """

    call: Callable[..., int]
    chain: int
    state: int
    wiped: bool


_pool: Pool | None = None
_source: Callable[[], LoadedImage | None] | None = None
_chosen: int | None = None

changes = 0
"""How often the number of threads was set: plans share out work for the number at their making."""

when_set: list[Callable[[], None]] = []
"""Called whenever that is."""


# The number of threads


def set_num_threads(count: int | None) -> None:
    """Use `count` threads from now on, in the whole process; None asks the environment again.

    Raises:
        ValueError: not between 1 and 1024.
    """
    global _chosen, changes
    if count is not None and not 1 <= count <= MAX_THREADS:
        raise ValueError(f"number of threads: expected 1 to {MAX_THREADS}, got {count}")
    _chosen = count
    changes += 1
    for tell in when_set:
        tell()


def chosen_threads() -> int | None:
    """Return what `set_num_threads` was last given."""
    return _chosen


def default_threads() -> int:
    """Return how many threads there are if nobody chooses: one for each processor."""
    return min(processors(), MAX_THREADS)


def get_num_threads() -> int:
    """Return how many threads a large contraction uses.

    `set_num_threads` decides, else EINSUMC_NUM_THREADS, else there is one for each processor this
    process could use when first asked: its affinity mask, and its control group's CPU quota,
    rounded up.
    """
    if _chosen is not None:
        return _chosen
    return _environment_threads(os.environ.get("EINSUMC_NUM_THREADS"))


@lru_cache(maxsize=8)
def _environment_threads(text: str | None) -> int:
    return min(settings.current().num_threads or processors(), MAX_THREADS)


@lru_cache(maxsize=1)
def processors() -> int:
    """Return how many processors this process may use: its affinity mask and its quotas."""
    return max(1, min([available_cores(), *map(math.ceil, _quotas())]))


def _quotas(groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> Iterator[float]:
    """Yield the CPU quotas, in processors, of this process's control groups and those above."""
    for controllers, path in _control_groups(groups):
        mount = f"{root}/{controllers}" if controllers else root
        parts = path.strip("/").split("/")
        for depth in range(len(parts) + 1):
            folder = "/".join([mount, *parts[:depth]])
            # Version 2: "quota period" in one file. Version 1: two files.
            words = _words(f"{folder}/cpu.max") or [
                *_words(f"{folder}/cpu.cfs_quota_us"),
                *_words(f"{folder}/cpu.cfs_period_us"),
            ]
            if len(words) == 2 and all(map(str.isdecimal, words)) and int(words[1]):
                yield int(words[0]) / int(words[1])


def _control_groups(groups: str) -> Iterator[tuple[str, str]]:
    with suppress(OSError), open(groups, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                yield controllers, path


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().split()
    except OSError:
        return []


# The pool


def provide(source: Callable[[], LoadedImage | None]) -> None:
    """Say where the pool comes from: `source` is called once, when a job first wants it.

    None means there is no pool here, now or later.
    """
    global _source
    _source = source


def install_pool(image: LoadedImage) -> None:
    """Use this pool from now on.

    Raises:
        ValueError: the image is not a pool.
    """
    global _pool
    if not {POOL_ENTRY, CHAIN_ENTRY} <= image.entries.keys():
        raise ValueError(f"not a thread pool: it exports {sorted(image.entries)}")
    state = anonymous_pages(_STATE_BYTES)
    wiped = wipe_on_fork(state, _STATE_BYTES)
    _pool = Pool(_PoolRun(image.entries[POOL_ENTRY]), image.entries[CHAIN_ENTRY], state, wiped)


def pool() -> Pool | None:
    """Return the native pool, fetching it if it was not needed so far, or None."""
    global _source
    if _pool is None and _source is not None:
        with alone:
            if _source is not None:
                if sys.platform == "linux" and architecture() == "x86_64":
                    image = _source()
                    if image is not None:
                        install_pool(image)
                _source = None
    return _pool


def _after_fork() -> None:
    """Start anew in a child, where no worker and no other Python thread lives on."""
    _environment_threads.cache_clear()
    processors.cache_clear()
    # The system has wiped the state already, and does so for forks that Python knows nothing of;
    # this is for systems that do not.
    if _pool is not None and not _pool.wiped:
        ctypes.memset(_pool.state, 0, _STATE_BYTES)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Running


def run(
    kernel: int, args: int, tiles: int, scratch_bytes: int = 0, *, most: int | None = None
) -> None:
    """Run all tiles of a kernel.

    Args:
        kernel: address of a `void kernel(const int64_t *args, int64_t begin, int64_t end, void
            *scratch)` that runs tiles `begin` to `end`, in any order with others.
        args: address of its arguments, which must stay valid during the call.
        tiles: how many there are.
        scratch_bytes: memory each thread needs for itself. It starts on a page and holds anything.
        most: so many threads at most; None for as many as there are.

    Raises:
        MemoryError: no memory for the scratch.
        KeyboardInterrupt: Ctrl-C, at most about 50 ms and one tile late. Some tiles were run.
    """
    if tiles < 2:
        if tiles == 1:
            _owner, scratch = _scratch(scratch_bytes)
            _function(kernel)(args, 0, 1, scratch)
        return
    native = pool()
    threads = tiles if most is None else min(tiles, most)
    # The environment is not asked (2 microseconds) where the answer cannot matter.
    threads = min(threads, get_num_threads()) if native is not None and threads > 1 else 1
    stride = -(-scratch_bytes // _PAGE) * _PAGE
    # Its owner keeps the memory: another call on this thread, from a signal handler, may replace
    # what is kept, and the interpreter clears it at exit while daemon threads still compute.
    _owner, scratch = _scratch(threads * stride)
    if native is None:
        _run_here(_function(kernel), args, tiles, scratch)
        return
    spin = _SPIN_CYCLES if 1 < threads <= processors() else 0
    call, state = native.call, native.state
    done = 0
    while done < tiles:
        done = call(state, kernel, args, done, tiles, threads, scratch, stride, _SLICE_NS, spin)


def _run_here(function: Callable[..., None], args: int, tiles: int, scratch: int | None) -> None:
    """Run the tiles on this thread, in ranges that double while they are short."""
    begin, size = 0, 1
    while begin < tiles:
        end = min(begin + size, tiles)
        start = time.perf_counter_ns()
        function(args, begin, end, scratch)
        if time.perf_counter_ns() - start < _SLICE_NS // 4:
            size *= 2
        begin = end


@lru_cache(maxsize=4096)
def _function(address: int) -> Callable[..., None]:
    return _Kernel(address)


# Scratch memory

_kept = Kept("scratch")


def _scratch(size: int) -> tuple[Any, int | None]:
    """Return what owns at least `size` bytes of this thread's scratch, and their address."""
    if size == 0:
        return None, None
    buffer = _kept.share(size)
    return buffer.pages, buffer.address
