"""Bind a schedule to one call's layouts: the values that a kernel finds in its argument array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.choose import Choice, block_sizes
from ..compiler.geometry import Geometry
from ..compiler.machine import Machine

if TYPE_CHECKING:
    from ..compiler.frames import Layout

Array = np.ndarray[Any, Any]


def argument_values(choice: Choice, step: Geometry, host: Machine, count: int) -> dict[str, int]:
    """The extents, block sizes and strides of a call, by parameter name."""
    extents = {group: step.volume(members) for group, members in choice.members.items()}
    frames = _layout_of(choice, step) if choice.schedule.framed is not None else None
    if frames is not None:
        extents |= {"n": frames.positions, "taps": len(frames.taps)}
        extents |= {"phases": len(frames.phases), "halo": frames.halo}
    values = {group.upper(): extent for group, extent in extents.items()}
    values.update(block_sizes(choice.schedule, extents, host, count))
    tensors = (*choice.operands, len(step.strides) - 1)
    for tensor, strides in zip(
        choice.schedule.names, (step.strides[i] for i in tensors), strict=True
    ):
        for group, members in choice.members.items():
            if len(members) == 1 and members[0] in strides:
                values[f"{tensor}_{group}"] = strides[members[0]]
    if step.finish is not None:
        values.update((f"c{number}", bits) for number, bits in enumerate(step.finish.numbers))
    return values


def argument_array(
    parameters: Sequence[str], choice: Choice, step: Geometry, values: Mapping[str, int]
) -> Array:
    """The argument array of a kernel with these parameters, with zeros for the addresses."""
    tensors = [step.strides[i] for i in (*choice.operands, len(step.strides) - 1)]
    arguments: list[int] = []
    descriptions: list[int] = []
    for name in parameters:
        if name in choice.schedule.names:
            arguments.append(0)
        elif name in ("frame", "taps"):
            frames, plane = _layout_of(choice, step), values["plane"]
            arguments.append(len(parameters) + len(descriptions))
            if name == "frame":
                descriptions += frames.description(plane, _ahead(choice, step, values))
            else:
                held = values["K_BLOCK"] // len(frames.taps)
                descriptions += frames.table(plane, held)
        elif name.endswith("_group"):
            members = choice.members[name.removesuffix("_group")]
            arguments.append(len(parameters) + len(descriptions))
            descriptions += [len(members), *(step.extents[i] for i in members)]
            for strides in tensors:
                descriptions += [strides.get(i, 0) for i in members]
        else:
            arguments.append(values[name])
    return np.array(arguments + descriptions, dtype=np.int64)


def _ahead(choice: Choice, step: Geometry, values: Mapping[str, int]) -> int:
    """By how many elements what a kernel copies into its next frame lies further on."""
    image = step.strides[choice.operands[1]]
    first, *_ = choice.members["k"]
    if values["K_BLOCK"] < values["K"]:
        taps = values["K"] // step.extents[first]
        return values["K_BLOCK"] // taps * image[first]
    batch = choice.members.get("b", ())
    return image[batch[-1]] if batch and values["N_TASK"] >= values["N"] else 0


def _layout_of(choice: Choice, step: Geometry) -> Layout:
    from ..compiler.choose.framed import layout_of  # most steps have no frames

    return layout_of(choice, step)
