"""Measure the steps of a plan, one by one.

A step runs on memory of its own: ones, in the layout that it was planned for. So no operands are
needed and none are touched, and a plan of arrays that do not exist can be measured as well.
"""

from __future__ import annotations

import time
from math import ceil

import numpy as np

from . import threads
from .execute import Array, Step
from .kernels import kernel
from .machine import machine

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
    arguments, owners = step.arguments.copy(), {}
    places = (*step.choice.operands, len(step.geometry.strides) - 1)
    for number, (name, tensor) in enumerate(zip(step.operands, places, strict=True)):
        if name not in owners:
            owners[name] = _memory(step, [t for n, t in zip(step.operands, places, strict=True) if n == name])
        memory, first = owners[name]
        arguments[number] = memory.__array_interface__["data"][0] + first
    address = arguments.__array_interface__["data"][0]

    def run(repeats: int) -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            threads.run(code.address, address, step.tiles, step.scratch_bytes, most=step.threads)
        return (time.perf_counter() - begin) / repeats

    run(1)
    repeats = max(1, ceil(SAMPLE / max(run(1), 1e-7)))
    return min(run(repeats) for _ in range(rounds))


def _memory(step: Step, tensors: list[int]) -> tuple[Array, int]:
    """Memory for all elements that a step touches of a tensor, and where its first one lies.

    A tensor that is read in two places may have several strides.
    """
    low = high = 0
    for tensor in tensors:
        spans = [(step.geometry.extents[i] - 1) * s for i, s in step.geometry.strides[tensor].items()]
        low = min(low, sum(span for span in spans if span < 0))
        high = max(high, sum(span for span in spans if span > 0))
    element = np.dtype(step.geometry.elements[tensors[0]])
    return np.ones(high - low + 1, element), -low * element.itemsize
