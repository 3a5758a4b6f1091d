"""Files and directories of a store, through open descriptors; files appear whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .trouble import UnusableError, reason

__all__ = [
    "DIRECTORY",
    "READ",
    "STALE_SECONDS",
    "USE_SECONDS",
    "delete_stale",
    "delete_unused",
    "flush_directory",
    "note_use",
    "opened",
    "read",
    "write_file",
]

STALE_SECONDS = 3600
"""Age at which a temporary file can only be a killed writer's."""

USE_SECONDS = 86400
"""How exactly a file's time tells when it was last used."""

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a named pipe in the place of a kernel must not make us wait for its writer.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(what: str, path: str, flags: int, dir_fd: int | None = None) -> Iterator[int]:
    """Open a file or directory; `what` begins the message if that is refused."""
    try:
        fd = os.open(path, flags, dir_fd=dir_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableError(f"{what} cannot be opened: {reason(error)}") from None
    try:
        yield fd
    finally:
        os.close(fd)


def read(fd: int, count: int) -> bytes:
    """Read `count` bytes, or fewer where the file ends."""
    parts = []
    while count > 0 and (part := os.read(fd, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_file(directory: int, name: str, blob: bytes) -> None:
    """Make the file `name` with these bytes, at once: before it appears it is whole and on disk."""
    temporary = f".{name}.{os.getpid()}.{os.urandom(8).hex()}.tmp"
    fd = os.open(temporary, _CREATE, 0o600, dir_fd=directory)
    try:
        try:
            rest = memoryview(blob)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fchmod(fd, 0o444)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    flush_directory(directory)


def note_use(fd: int, status: os.stat_result) -> None:
    """Set a file's time to now, unless it was set within `USE_SECONDS`."""
    # A time to come, of another clock, would otherwise keep a file forever.
    if not 0 <= time.time() - status.st_mtime < USE_SECONDS:
        with suppress(OSError):  # a disk that cannot be written, or root's file
            os.utime(fd)


def delete_unused(directory: int, name: str, used: float) -> bool:
    """Delete a file that was not used since then; return whether it is gone.

    Between the look and the deletion somebody may use it. Then it has been read, and is compiled
    again when it is next asked for: no lock is worth that.
    """
    with suppress(FileNotFoundError):
        if os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime != used:
            return False
        os.unlink(name, dir_fd=directory)
    return True


def delete_stale(directory: int) -> None:
    """Delete the temporary files of writers that were killed."""
    oldest = time.time() - STALE_SECONDS
    with os.scandir(directory) as files:
        stale = [
            file.name
            for file in files
            if file.name.startswith(".")
            and file.name.endswith(".tmp")
            and file.stat(follow_symlinks=False).st_mtime < oldest
        ]
    for name in stale:
        os.unlink(name, dir_fd=directory)


def flush_directory(fd: int) -> None:
    """Bring the names in a directory to the disk."""
    # Some file systems cannot; what a power cut then takes away is a whole kernel, not half of one.
    with suppress(OSError):
        os.fsync(fd)
