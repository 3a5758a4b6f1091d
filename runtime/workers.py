"""Processes that share work, and end at once when the work is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import Any, TypeVar

__all__ = ["in_processes"]

_Part = TypeVar("_Part")


def in_processes(
    work: Callable[..., Any], parts: Iterable[tuple[_Part, tuple[Any, ...]]], count: int
) -> Iterator[tuple[_Part, Any]]:
    """Every part with what `work` returns for its arguments, in the order in which they are done.

    The processes are spawned: they share nothing with this one. They leave Ctrl-C to it, which
    then kills them. Nothing is lost by that, since only this process writes anything.
    """
    executor = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_deaf)
    try:
        waiting = {executor.submit(work, *arguments): part for part, arguments in parts}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BaseException:
        with _deaf_for_now():
            # From Python 3.14 on this is kill_workers(). What else runs here is not ours to kill.
            for process in [*(executor._processes or {}).values()]:
                process.kill()
            executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


def _deaf() -> None:
    """Leave Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _deaf_for_now() -> Iterator[None]:
    """Do not be interrupted while cleaning up: people press Ctrl-C twice."""
    before: Any = None
    with suppress(ValueError):  # not the main thread, which alone gets signals
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
