"""What may be wrong with a store: one warning a trouble, and never an exception for the caller."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = [
    "StoreWarning",
    "UnusableError",
    "damage",
    "problem_with",
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


class _Warning:
    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> bool:
        if not isinstance(problem, UnusableError | OSError):
            return False
        # Frames that hold their own exception would keep the caller's arrays until the next
        # collection: contextlib's do so from Python 3.12 on.
        problem.__traceback__ = None
        self._tell(problem)
        return True

    def _tell(self, problem: UnusableError | OSError) -> None:
        warn_once(_words(problem, self._doing), getattr(problem, "once", None))


class _Reading(_Warning):
    def _tell(self, problem: UnusableError | OSError) -> None:
        if not isinstance(problem, FileNotFoundError):
            super()._tell(problem)


def warning(doing: str) -> _Warning:
    """Turn trouble with a disk into one warning."""
    return _Warning(doing)


def reading(what: str) -> _Warning:
    """Turn trouble with reading into one warning; what is missing is no trouble."""
    return _Reading(f"{what} cannot be read")


def problem_with(check: Callable[[], object], doing: str, missing: str) -> str | None:
    """Why a look at a disk fails, in words; None if it does not.

    Args:
        check: looks.
        doing: what cannot be done, for what the system says; "" if that goes without saying.
        missing: what to say of a file that is not there.
    """
    try:
        check()
    except FileNotFoundError:
        return missing
    except (UnusableError, OSError) as problem:
        return _words(problem, doing)
    return None


def _words(problem: UnusableError | OSError, doing: str) -> str:
    if isinstance(problem, UnusableError):  # which says what it is about
        return str(problem)
    return f"{doing}: {reason(problem)}" if doing else reason(problem)


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
