"""Sweeps of which every run takes a part, and `scripts/test --slow` the rest.

Cases that not every run takes are marked slow. What Hypothesis draws differs from run to run, so
that few examples a run are many in time; slow runs draw ten times as many.
"""

from collections.abc import Callable, Iterable
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


def sweep(cases: Iterable[Any], fast: Callable[..., bool]) -> list[Any]:
    """Cases, those marked slow that are not ``fast``; a tuple is several arguments."""
    found = []
    for case in cases:
        arguments = case if isinstance(case, tuple) else (case,)
        marks = () if fast(*arguments) else pytest.mark.slow
        found.append(pytest.param(*arguments, marks=marks))
    return found
