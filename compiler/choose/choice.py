"""What choosing results in, and what the recipes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..geometry import Geometry
from ..records import dataclass
from ..schedule import Group, Schedule


@dataclass(frozen=True, slots=True)
class Choice:
    """A schedule, and which of the step's indices form each of its groups, outermost first."""

    schedule: Schedule
    members: Mapping[str, tuple[str, ...]]
    operands: tuple[int, ...]  # the step's operands in the kernel's order


def layout_class(
    step: Geometry,
    order: Iterable[int],
    groups: Iterable[Group],
    members: Mapping[str, tuple[str, ...]],
    matters: Callable[[int, str], bool],
) -> tuple[tuple[str, str, int | None], ...]:
    """The layout class: for every tensor and group, whether its elements are neighbours.

    It is only told where it ``matters`` (for which tensor and group), so that kernels are shared:
    where it decides how a register tile is loaded or stored.
    """
    tensors = [*order, len(step.strides) - 1]
    names = [*(f"x{i}" for i in range(len(tensors) - 1)), "out"]
    table: list[tuple[str, str, int | None]] = []
    for name, tensor in zip(names, tensors, strict=True):
        strides = step.strides[tensor]
        for group in groups:
            indices = members[group.name]
            if not any(index in strides for index in indices):
                continue
            unit = bool(indices) and strides.get(indices[-1]) == 1
            table.append((name, group.name, 1 if unit and matters(tensor, group.name) else None))
    return tuple(table)


def twice_summed(step: Geometry) -> tuple[str, ...]:
    """The indices that are summed over what a formula makes of sums."""
    return step.over if step.contracted else ()


def finish_fields(step: Geometry) -> dict[str, Any]:
    """What a schedule says of a step's epilogue."""
    finish = step.finish
    if finish is None:
        return {}
    return {"formula": finish.formula, "reads": finish.reads, "numbers": len(finish.numbers)}


def rounded(value: int, multiple: int) -> int:
    """``value`` rounded up to a multiple."""
    return -(-value // multiple) * multiple
