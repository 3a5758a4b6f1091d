"""Plans of which those that are used again go to the native entry (`runtime/entry.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..compiler.alone import alone
from ..compiler.records import dataclass
from .plan_cache import PlanCache
from .work import Work

__all__ = ["Direct", "NativePlans"]

Array = np.ndarray[Any, Any]
Layout = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Direct:
    """A plan that is nothing but kernels: the native entry can run it.

    Attributes:
        work: says which kernels; None if it is not that simple.
        results: their dtypes, and shape and strides of new ones, None for one that goes to `out`.
        returned: makes of a tuple of all results what is returned; None if they are returned as
            they are, one by itself and several in a tuple. It is kept as long as the process.
        several: whether it is a tuple, also of one.
    """

    work: Callable[[], Work | None]
    results: tuple[tuple[np.dtype[Any], Layout | None], ...]
    returned: Callable[[Any], Any] | None = None
    several: bool = False


class NativePlans(PlanCache):
    """An object whose class has a method `__call__` that the native entry may replace."""

    __slots__ = ("__weakref__", "_native_plans")
    # A slot because native code reads it: unset, or what `entry.new_plans` makes.
    _native_plans: list[Any]
    _entered: ClassVar[type | None] = None  # the class whose method it is
    _parameters_shown: ClassVar[str] = ""  # the method's, for `inspect.signature`

    def __init__(self) -> None:
        super().__init__()
        self._direct: dict[Any, Direct] = {}

    def _forget(self) -> None:
        """Throw all plans away."""
        super()._forget()
        self._direct.clear()
        if hasattr(self, "_native_plans"):
            from .entry import new_plans

            self._native_plans = new_plans()

    def _make_native(self, key: Any, operands: Sequence[Array], out: Array | None) -> None:
        """Hand a plan that is used again to the native entry, if there is one."""
        if out is not None and type(out) is not np.ndarray:
            return  # which it would not find again, but may for an array
        direct, owner = self._direct.pop(key, None), self._entered
        if direct is None or owner is None:
            return
        with alone:
            from . import entry  # only calls that are repeated need it

            if not entry.install(owner, "_native_plans", self._parameters_shown):
                return
            facts, work = entry.facts(owner, operands, out), direct.work()
            if facts is None or work is None:
                return
            plan = entry.encode(facts, work, direct)
            if plan is not None:
                if not hasattr(self, "_native_plans"):
                    self._native_plans = entry.new_plans()
                self._native_plans[0][facts] = plan
