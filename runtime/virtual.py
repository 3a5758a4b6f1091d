"""Arrays without memory, for those who plan calls that are not made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .operands import Array

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["virtual"]


def virtual(shape: Sequence[int], dtype: DTypeLike, axes: Sequence[int] | None = None) -> Array:
    """An array without memory: its shape, strides and dtype may be looked at, its elements not.

    Args:
        shape: of any size that can be addressed.
        dtype: of the elements.
        axes: the order in memory, slowest first; by default C order.

    >>> virtual((1000, 1000, 1000), "f8", (2, 1, 0)).strides
    (8, 8000, 8000000)
    """
    element = np.empty((), dtype)
    stride, strides = element.itemsize, [0] * len(shape)
    for axis in reversed(range(len(shape)) if axes is None else axes):
        strides[axis] = stride
        stride *= max(shape[axis], 1)
    return np.lib.stride_tricks.as_strided(element, shape, strides)
