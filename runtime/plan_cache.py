"""Plans that are made once: however many threads ask for one, one of them makes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from . import threads

__all__ = ["PlanCache"]

_Plan = TypeVar("_Plan")

_PLANS = 4096
"""Plans that one object keeps; when it has so many it starts anew."""


class PlanCache:
    """Plans by the layouts that they are for; those of other settings are thrown away."""

    __slots__ = ("__dict__",)  # which takes no room, so native code finds a subclass's first slot

    def __init__(self) -> None:
        self._plans: dict[Any, Any] = {}
        self._making: dict[Any, _Making] = {}
        self._changes = threads.changes

    def _forget_old(self) -> None:
        """Throw all plans away if settings have changed."""
        if self._changes != threads.changes:
            self._changes = threads.changes
            self._forget()

    def _forget(self) -> None:
        """Throw all plans away."""
        self._plans.clear()

    def _obtain(self, key: Any, make: Callable[[], _Plan]) -> _Plan:
        """The plan for this key, made if there is none."""
        while True:
            plan: _Plan | None = self._plans.get(key)
            if plan is not None:
                return plan
            mine = _Making()
            theirs = self._making.setdefault(key, mine)
            if theirs is not mine:
                if theirs.process == os.getpid():
                    theirs.done.wait()
                    continue
                self._making[key] = mine  # a thread that was not taken along when we were forked
            try:
                plan = make()
                if len(self._plans) >= _PLANS:
                    self._forget()
                self._plans[key] = plan
                return plan
            finally:
                self._making.pop(key, None)
                mine.done.set()


class _Making:
    """A plan that a thread is making."""

    __slots__ = ("done", "process")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.process = os.getpid()
