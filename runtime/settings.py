"""Every `EINSUMC_` environment variable: its name, what it may be, and what it means.

`VARIABLES` is the table. Values are read when somebody asks, not when einsumc is imported, so a
program may set them in `os.environ` at any time. An empty variable counts as unset. A relative
path is taken from the working directory in which einsumc was imported, so that no later `chdir`
moves a store.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..compiler.records import dataclass

__all__ = ["VARIABLES", "Settings", "SettingsError", "Variable", "current"]

COMPILE_CHOICES = ("auto", "never")
SHOW_CHOICES = ("program", "tree", "loops", "source", "asm")
TARGET_CHOICES = ("native", "x86-64-v2", "x86-64-v3", "x86-64-v4")


DEFAULT_CACHE_SIZE = 1 << 30
"""Bytes of the user's own store: tens of thousands of kernels."""


class SettingsError(ValueError):
    """An `EINSUMC_` variable holds something it may not; the message names the variable."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment's wishes, checked.

    Attributes:
        cache_dir: the store directory asked for, absolute, or None; see `store_dir`.
        cache_size: bytes that the user's own store may have, or None for any number.
        compile: "auto" compiles what no store holds, "never" raises instead.
        machine: the file that describes the machine, absolute, or None.
        num_threads: threads to use, or None for one a core.
        record: the file, absolute, that a run writes what it uses to, or None.
        show: the stages to print as they happen, in pipeline order.
        target: "native", or the instruction set level to compile for.
    """

    cache_dir: str | None = None
    cache_size: int | None = DEFAULT_CACHE_SIZE
    compile: str = "auto"
    machine: str | None = None
    num_threads: int | None = None
    record: str | None = None
    show: tuple[str, ...] = ()
    target: str = "native"

    @property
    def store_dir(self) -> str:
        """The store directory: `cache_dir`, else the user's cache directory of this system."""
        if self.cache_dir is not None:
            return self.cache_dir
        if sys.platform == "linux":  # the XDG Base Directory Specification
            caches = os.environ.get("XDG_CACHE_HOME", "")
            caches = caches if os.path.isabs(caches) else os.path.expanduser("~/.cache")
            if os.path.isabs(caches):
                return os.path.join(caches, "einsumc")
            import tempfile  # a user without a home: in a container, say

            return os.path.join(tempfile.gettempdir(), f"einsumc-{os.getuid()}")
        import platformdirs

        return str(platformdirs.user_cache_path("einsumc"))


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of `VARIABLES`."""

    name: str
    field: str
    parse: Callable[[str], Any]
    meaning: str


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it is deleted: nothing is found there, and nothing can be written
        return "/proc/self/cwd"


_HERE = _working_directory()


def _path(text: str) -> str:
    """An absolute path; a relative one is taken from where einsumc was imported."""
    return os.path.normpath(os.path.join(_HERE, os.path.expanduser(text)))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise ValueError("expected a positive whole number")
    return int(text)


def _size(text: str) -> int | None:
    if text == "unlimited":
        return None
    from .memory import parse_bytes  # which imports NumPy

    try:
        return parse_bytes(text)
    except ValueError as problem:
        raise ValueError(f"{problem}, nor 'unlimited'") from None


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected {' or '.join(choices)}")
        return text

    return parse


def _some_of(choices: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        words = {word.strip() for word in text.split(",")} - {""}
        if unknown := sorted(words.difference(choices)):
            raise ValueError(f"{unknown[0]!r} is none of {','.join(choices)}")
        return tuple(choice for choice in choices if choice in words)

    return parse


VARIABLES = (
    Variable(
        "EINSUMC_CACHE_DIR",
        "cache_dir",
        _path,
        "directory of the kernel store (default: einsumc in the user's cache directory)",
    ),
    Variable(
        "EINSUMC_CACHE_SIZE",
        "cache_size",
        _size,
        "size of the kernel store, as in 500MB, or unlimited (default: 1GiB)",
    ),
    Variable(
        "EINSUMC_COMPILE",
        "compile",
        _one_of(COMPILE_CHOICES),
        "auto: compile what no store holds (default); never: raise instead",
    ),
    Variable(
        "EINSUMC_MACHINE",
        "machine",
        _path,
        "file that describes the machine (default: what einsumc calibrate wrote, if it fits)",
    ),
    Variable(
        "EINSUMC_NUM_THREADS",
        "num_threads",
        _count,
        "number of threads (default: one for each core this process may use)",
    ),
    Variable(
        "EINSUMC_RECORD",
        "record",
        _path,
        "file to write what is used to, for einsumc precompile (default: none)",
    ),
    Variable(
        "EINSUMC_SHOW",
        "show",
        _some_of(SHOW_CHOICES),
        f"stages to print as they happen, with commas between: {','.join(SHOW_CHOICES)}",
    ),
    Variable(
        "EINSUMC_TARGET",
        "target",
        _one_of(TARGET_CHOICES),
        f"what to compile for: {', '.join(TARGET_CHOICES)} (default: native)",
    ),
)

_NAMES = tuple(variable.name for variable in VARIABLES)


def current() -> Settings:
    """Return the settings of this moment's environment.

    Unless a variable has changed since the last time, this is a look-up for each of them, some
    microseconds: nothing beside a compilation, but something beside a small contraction.

    Raises:
        SettingsError: a variable holds something it may not.
    """
    return _parse(tuple(map(os.environ.get, _NAMES)))


@lru_cache(maxsize=8)
def _parse(texts: tuple[str | None, ...]) -> Settings:
    values: dict[str, Any] = {}
    for variable, text in zip(VARIABLES, texts, strict=True):
        if text is None or not text.strip():
            continue
        try:
            values[variable.field] = variable.parse(text.strip())
        except ValueError as problem:
            raise SettingsError(f"{variable.name}={text!r}: {problem}") from None
    return Settings(**values)
