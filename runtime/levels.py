"""Which instruction set level to plan for, and which to compute at.

A plan may be for any level, so that CI can build for machines that it does not run on. What is
computed here and now is for levels that this machine has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from . import settings, target
from .kernels import may_compile
from .trouble import warn_once

__all__ = ["levels", "planning_for", "wanted_level"]

_level: ContextVar[str | None] = ContextVar("level", default=None)


def wanted_level() -> str:
    """The level that plans are made for: "native", or the name of one."""
    return _level.get() or settings.current().target


@contextmanager
def planning_for(level: str) -> Iterator[None]:
    """Make plans for this level (or "native"), in this thread, whatever EINSUMC_TARGET says.

    >>> with planning_for("x86-64-v2"):
    ...     wanted_level()
    'x86-64-v2'
    """
    before = _level.set(level)
    try:
        yield
    finally:
        _level.reset(before)


def levels() -> Iterator[str]:
    """Yield the levels to compute at here, the best first: never one that this machine lacks.

    The first is the one that EINSUMC_TARGET names, or the host's where it names a higher one. Where
    nothing may be compiled, those below follow: if a store has no kernels for the best level,
    slower ones will do.
    """
    wish, host = settings.current().target, target.host_level()
    names = settings.TARGET_CHOICES[1:]
    if host not in names:
        yield wish
        return
    best = host if wish == "native" else wish
    if not target.can_run(target.LEVELS[best]):
        warn_once(
            f"EINSUMC_TARGET={best}, but this machine is {host}: it computes with kernels for"
            f" {host}. (einsumc precompile --target {best} compiles for other machines.)"
        )
        best = host
    yield best
    if not may_compile():  # a question of its own, which is not asked where the best will do
        yield from names[: names.index(best)][::-1]
