"""Sweeps of which every run takes a part, and `scripts/test --slow` the rest.

Cases that not every run takes are marked slow. What Hypothesis draws differs from run to run, so
that few examples a run are many in time; slow runs draw ten times as many.
"""

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pytest
from hypothesis import settings

factor = 1
"""How many times as many examples are drawn: `conftest.py` sets it."""


def examples(count: int, **options: Any) -> settings:
    """Settings of Hypothesis for so many examples, which may have to compile kernels."""
    return settings(max_examples=factor * count, deadline=None, **options)


def groups(count: int, fast: int) -> list[Any]:
    """Numbers of groups, of seeds for example, of which the first few are taken in every run."""
    return sweep(range(count), lambda number: number < fast)


def every(step: int, cases: Iterable[Any], first: int = 0) -> list[Any]:
    """Cases of which every run takes each ``step``-th, from the one with number ``first``."""
    return _marked((n % step == first, case) for n, case in enumerate(cases))


def checkered(*axes: Iterable[Any]) -> list[Any]:
    """All combinations, of which every run takes half: each value with half of the others."""
    numbered = product(*(enumerate(axis) for axis in axes))
    return _marked(
        (sum(n for n, _ in found) % 2 == 0, tuple(value for _, value in found))
        for found in numbered
    )


def sweep(cases: Iterable[Any], fast: Callable[..., bool]) -> list[Any]:
    """Cases, those marked slow that are not ``fast``; a tuple is several arguments."""
    return _marked((fast(*_arguments(case)), case) for case in cases)


def _arguments(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


def _marked(cases: Iterable[tuple[bool, Any]]) -> list[Any]:
    """Parameters for pytest, of cases with whether every run takes them."""
    return [
        pytest.param(*_arguments(case), marks=() if fast else pytest.mark.slow)
        for fast, case in cases
    ]
