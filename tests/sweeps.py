"""Sweeps of which every run takes a part: the rest is marked slow (`scripts/test --slow`)."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


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
