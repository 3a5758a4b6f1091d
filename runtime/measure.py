"""Measure the steps of a plan, one by one.

A step runs on memory of its own: ones, in the layout that it was planned for. So no operands are
needed and none are touched, and a plan of arrays that do not exist can be measured as well.
"""

from __future__ import annotations

import time
from math import ceil

import numpy as np

from ..compiler.geometry import Geometry
from ..compiler.records import replace
from .kernels import kernel
from .machine import machine
from .step import Array, Step

__all__ = ["measured_seconds"]

SAMPLE = 1e-3  # seconds; shorter calls are repeated until a sample lasts so long


def measured_seconds(step: Step, rounds: int = 5) -> float:
    """The seconds of a step's kernel with its tensors where the caches keep them; the best round.

    Args:
        step: of an execution, planned or prepared. Its kernel is compiled if need be.
        rounds: how often it is measured.

    Raises:
        KernelMissing: the kernel is in no store and compiling is forbidden.
        MemoryError: there is no room for the tensors.
    """
    code = kernel(step.choice.schedule, machine().target)
    step = replace(step, kernel=code, offsets=(0,) * len(step.offsets))
    places = (*step.choice.operands, len(step.geometry.strides) - 1)
    tensors: dict[str, list[int]] = {}
    for name, place in zip(step.operands, places, strict=True):
        tensors.setdefault(name, []).append(place)
    arrays = {name: _memory(step.geometry, found) for name, found in tensors.items()}

    def run(repeats: int) -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            step.run(arrays)
        return (time.perf_counter() - begin) / repeats

    run(1)
    repeats = max(1, ceil(SAMPLE / max(run(1), 1e-7)))
    return min(run(repeats) for _ in range(rounds))


def _memory(step: Geometry, places: list[int]) -> Array:
    """Memory that begins with a tensor's first element and has all that a step touches of it.

    What has negative strides lies before it. A tensor that is read twice may have several layouts.
    """
    low = high = 0
    for strides in (step.strides[place] for place in places):
        spans = [(step.extents[index] - 1) * stride for index, stride in strides.items()]
        low = min(low, sum(span for span in spans if span < 0))
        high = max(high, sum(span for span in spans if span > 0))
    return np.ones(high - low + 1, step.elements[places[0]])[-low:]
