"""What limits a case, by the roofline model: arithmetic, memory traffic, or the calls themselves.

Three times that no implementation of this kind can go below: flops/P, bytes/W, and the overhead of
calling einsumc with so many steps. The largest of them names the limit. Rooflines and overheads are
mappings as they stand in the results' JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Limits", "bound_by", "limits"]


@dataclass(frozen=True)
class Limits:
    """The least seconds that each resource allows."""

    compute: float
    memory: float
    call: float = 0.0

    @property
    def name(self) -> str:
        """The one that takes longest: "compute", "memory" or "call"."""
        return max(("compute", "memory", "call"), key=lambda name: float(getattr(self, name)))

    @property
    def seconds(self) -> float:
        """The longest of them."""
        return max(self.compute, self.memory, self.call)


def bound_by(flops: float, traffic: float, roof: Mapping[str, Any]) -> str:
    """The resource, "compute" or "memory", that takes longer on the machine of a roofline."""
    return Limits(flops / roof["flops"], traffic / roof["bandwidth"]).name


def limits(
    case: Mapping[str, Any], roof: Mapping[str, Any], overhead: Mapping[str, float] | None = None
) -> Limits:
    """The limits of a measured case.

    Args:
        case: with "flops", "bytes" and "steps" (how many contractions follow each other).
        roof: with "flops" a second and "bandwidth" in bytes a second.
        overhead: seconds of the "first" step of a call and of each further "step", if known.
    """
    call = 0.0
    if overhead is not None:
        call = overhead["first"] + max(case["steps"] - 1, 0) * overhead["step"]
    return Limits(case["flops"] / roof["flops"], case["bytes"] / roof["bandwidth"], call)
