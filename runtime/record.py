"""EINSUMC_RECORD: a run writes down what it uses, as a manifest for `einsumc precompile`.

The first call of a layout adds an entry to the file; later calls cost nothing. Any number of
threads and processes may write to one file. Each reads what is there, adds what it has, and puts a
whole new file in the old one's place, while it holds a lock on the directory. So the file is whole
at any time, however a process ends, and equal runs leave equal files.

Trouble with the file is one warning, and the run goes on: what could not be written is tried again
with the next entry, and when the process ends.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..compiler.alone import alone
from .disk import DIRECTORY, write_file
from .trouble import warn_once
from .uses import AnyUse, NotWritable, to_text, uses_in

try:
    import fcntl
except ImportError:  # no POSIX: then the last writer wins
    fcntl = None  # type: ignore[assignment]

__all__ = ["HEAD", "record"]

HEAD = (
    "# What a run used, written by einsumc (EINSUMC_RECORD); runs add to it.\n"
    "# To compile it beforehand: einsumc precompile FILE\n\n"
)
"""How a record begins. A file that begins otherwise is somebody else's and is left alone."""

_PATIENCE = 2.0
"""Seconds to wait for the directory's lock."""


class _Record:
    """One file.

    Attributes:
        known: the uses that are in the file, as far as this process knows.
        waiting: those that are not yet.
        seen: inode, time and size of the file when `known` was read or written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: set[AnyUse] = set()
        self.waiting: set[AnyUse] = set()
        self.seen: tuple[int, int, int] | None = None

    def write(self) -> None:
        """Add what waits to the file.

        Raises:
            OSError: the disk does not allow it.
            ValueError, TypeError, KeyError: the file there is no record.
        """
        folder, name = os.path.split(self.path)
        os.makedirs(folder, exist_ok=True)
        fd = os.open(folder, DIRECTORY)
        try:
            with _locked(fd):
                self._read(fd, name)
                if not self.waiting <= self.known:
                    self.known |= self.waiting
                    text = HEAD + to_text(self.known) + "\n"
                    write_file(fd, name, text.encode())
                    os.chmod(name, 0o644, dir_fd=fd)
                    self.seen = _state(os.stat(name, dir_fd=fd))
                self.waiting.clear()
        finally:
            os.close(fd)

    def _read(self, folder: int, name: str) -> None:
        """Learn what others have written since."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            self.waiting |= self.known
            self.known = set()
            return
        with open(fd, encoding="utf-8") as file:
            state = _state(os.fstat(fd))
            if state == self.seen:
                return
            text = file.read()
        if text and not text.startswith(HEAD.split("\n")[0]):
            raise ValueError("it does not begin as a record does; name another file")
        self.known, self.seen = set(uses_in(text)), state


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def _locked(fd: int) -> Iterator[None]:
    """Hold the lock of an open directory: it needs no file of its own and ends with the process."""
    if fcntl is None:
        yield
        return
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.002)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked meanwhile has the lock as well


_records: dict[str, _Record] = {}


def record(path: str, use: Callable[[], AnyUse]) -> None:
    """Add a use to the record at `path`, unless it is there. Trouble is a warning.

    Args:
        path: absolute.
        use: makes it; NotWritable is a warning as well.
    """
    with _warning(path):
        made = use()
        with alone:
            kept = _records.setdefault(path, _Record(path))
            if made not in kept.known or not os.path.exists(path):
                kept.waiting.add(made)
                kept.write()


@atexit.register
def _write_what_waits() -> None:
    for path, kept in _records.items():
        with _warning(path):
            if kept.waiting:
                kept.write()


@contextmanager
def _warning(path: str) -> Iterator[None]:
    try:
        yield
    except NotWritable as problem:
        with suppress(Warning):
            warn_once(f"EINSUMC_RECORD: a call cannot be written down: {problem}")
    except Exception as problem:
        why = problem.strerror if isinstance(problem, OSError) else None
        with suppress(Warning):  # where warnings are errors, this one is none either
            warn_once(f"EINSUMC_RECORD={path} cannot be written: {why or problem}")
