"""The `optimize` argument: how to choose the order of contraction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from ..compiler.errors import EinsumTypeError

__all__ = ["Optimize", "check_path", "normalize_optimize"]

Optimize = bool | str | tuple[str, float] | tuple[tuple[int, ...], ...] | Callable[..., Any]
"""How to choose the order of contraction, hashable; made by `normalize_optimize`."""


def normalize_optimize(optimize: Any) -> Optimize:
    """The `optimize` argument of NumPy or opt_einsum in one form, which can be hashed.

    Args:
        optimize: a bool (None is False); a name such as "greedy" or "optimal"; a pair of a name and
            the largest intermediate in elements; an explicit path, `[(1, 2), (0, 1)]`, with
            "einsum_path" before it as NumPy has it or without; or a callable, such as an opt_einsum
            `PathOptimizer`.

    Raises:
        EinsumTypeError: (a TypeError) it is something else.

    >>> normalize_optimize(["einsum_path", (1, 2), (0, 1)])
    ((1, 2), (0, 1))
    >>> normalize_optimize(("greedy", 1000))
    ('greedy', 1000)
    """
    if optimize is None or isinstance(optimize, bool | np.bool_):
        return bool(optimize)
    if isinstance(optimize, str) or callable(optimize):
        return cast("Optimize", optimize)
    if isinstance(optimize, Sequence) and len(optimize):
        first, rest = optimize[0], list(optimize[1:])
        if isinstance(first, str) and first != "einsum_path":
            if len(rest) == 1 and isinstance(rest[0], int | np.integer):
                return first, int(rest[0])
            if len(rest) == 1 and isinstance(rest[0], float | np.floating):
                return first, float(rest[0])
        else:
            try:
                steps = rest if isinstance(first, str) else list(optimize)
                return tuple(tuple(int(position) for position in step) for step in steps)
            except (TypeError, ValueError):
                pass
    raise EinsumTypeError(
        "optimize must be a bool, the name of an algorithm, (name, memory limit), a path such as "
        f"[(1, 2), (0, 1)], or a callable, not {optimize!r}"
    )


def check_path(path: tuple[tuple[int, ...], ...], operands: int) -> None:
    """Raise RuntimeError, as NumPy does, if a path does not contract so many operands to one."""
    left = operands
    for step in path:
        if not step or len({*step}) < len(step) or not all(0 <= n < left for n in step):
            raise RuntimeError(f"invalid path {list(path)}: step {step} of {left} operands")
        left += 1 - len(step)
    if left > 1:
        raise RuntimeError(f"invalid path {list(path)}: it leaves {left} operands uncontracted")
