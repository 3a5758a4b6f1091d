"""What may be wrong with a store: one warning a trouble, and never an exception for the caller."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = [
    "StoreWarning",
    "UnusableError",
    "damage",
    "reading",
    "reason",
    "warn_once",
    "warning",
]


class StoreWarning(RuntimeWarning):
    """A store or one of its files cannot be used; the message says why and how to mend it."""


class UnusableError(Exception):
    """A directory or file is there but must not be used."""

    def __init__(self, message: str, once: str | None = None) -> None:
        super().__init__(message)
        self.once = once


@contextmanager
def damage(path: str) -> Iterator[None]:
    """Say of which file the format's complaints are."""
    try:
        yield
    except (TypeError, ValueError, RecursionError) as why:
        raise UnusableError(
            f"kernel {path} is damaged and counts as missing: {why}. Compiling it again replaces"
            " it, if the store can be written."
        ) from None


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn trouble with reading into one warning; what is missing is no trouble."""
    with warning(f"{what} cannot be read"), suppress(FileNotFoundError):
        yield


@contextmanager
def warning(doing: str) -> Iterator[None]:
    """Turn trouble with a disk into one warning."""
    try:
        yield
    except UnusableError as problem:
        warn_once(str(problem), problem.once)
    except OSError as error:
        warn_once(f"{doing}: {reason(error)}")


def reason(error: OSError) -> str:
    """What the system says, in words."""
    if error.errno == errno.ELOOP:
        return "it is a symbolic link"
    return error.strerror or str(error)


_warned: dict[str, object] = {}


def warn_once(message: str, once: str | None = None) -> None:
    """Warn, unless this was said before; `once` stands for all messages that are one trouble."""
    token = object()
    if _warned.setdefault(once or message, token) is token:  # atomic: one thread wins
        warnings.warn(message, StoreWarning, stacklevel=2)
