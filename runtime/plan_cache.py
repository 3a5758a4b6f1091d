"""Plans that are made once: however many threads ask for one, one of them makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..compiler.alone import alone
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
        """The plan for this key, made if there is none; a plan that there is waits for nobody."""
        plan: _Plan | None = self._plans.get(key)
        if plan is not None:
            return plan
        with alone:
            plan = self._plans.get(key)
            if plan is None:
                plan = make()
                if len(self._plans) >= _PLANS:
                    self._forget()
                self._plans[key] = plan
            return plan
