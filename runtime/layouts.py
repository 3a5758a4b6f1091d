"""Kinds of memory layout, one word an operand: what is worth telling of strides in a file.

    C       the last axis is the fastest, and there are no gaps
    F       the first axis is the fastest, and there are no gaps
    021     the axes from the slowest to the fastest, where it is neither
    C+      neighbours along the fastest axis are adjacent, but rows have gaps (`a[:, :8]`) or
            run backwards
    C*      not even those are adjacent (`a[:, ::2]`, `a[::-1]`, a broadcast axis)

Axes of extent 1 do not count. A text for all operands has commas between the words: `"C, F+"`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from numpy.typing import DTypeLike

from ..compiler.errors import EinsumError, EinsumTypeError
from .operands import Array
from .virtual import virtual

__all__ = ["layout_of", "parse_layouts", "usual", "virtual_of"]

_WORD = re.compile(r"(C|F|[0-9]{2,10})([+*]?)")


def layout_of(array: Array) -> str:
    """The word for an array's layout.

    >>> a = np.ones((4, 6, 8))
    >>> [layout_of(x) for x in (a, a.T, a.swapaxes(1, 2), a[:, :, :3], a[..., ::2], a[:1].T)]
    ['C', 'F', '021', 'C+', 'C*', 'F']
    """
    long = [axis for axis, extent in enumerate(array.shape) if extent > 1]
    order = sorted(long, key=lambda axis: -abs(array.strides[axis]))
    mark, reach = "", array.itemsize
    for axis in reversed(order):
        if array.strides[axis] != reach:
            mark = "*" if axis == order[-1] else "+"
            break
        reach *= array.shape[axis]
    if order == long:
        word = "C"
    elif order == long[::-1]:
        word = "F"
    elif array.ndim > 10:
        return "C*"  # no words for so many axes
    else:
        word = "".join(map(str, [axis for axis in range(array.ndim) if axis not in long] + order))
    return word + mark


def parse_layouts(text: str, operands: int) -> tuple[str, ...]:
    """The words of a text, one for each of so many operands.

    Raises:
        EinsumError: (a ValueError) it is wrong.
        EinsumTypeError: (a TypeError) it is not a str.

    >>> parse_layouts("C, F+", 2)
    ('C', 'F+')
    """
    if not isinstance(text, str):
        raise EinsumTypeError(f"layouts must be a str, not {type(text).__name__}")
    words = tuple(word.strip() for word in text.split(","))
    place = 0
    for piece, word in zip(text.split(","), words, strict=True):
        found = _WORD.fullmatch(word)
        if found is None or (
            word[0].isdigit() and sorted(found[1]) != [*map(str, range(len(found[1])))]
        ):
            begin = text.index(word, place)
            what = "C, F, or the axes from the slowest to the fastest, as in 021; then + or *"
            raise EinsumError(
                f"{word!r} is no layout: {what}", text, (begin, begin + max(len(word), 1))
            )
        place += len(piece) + 1
    if len(words) != operands:
        counts = f"{len(words)} operand{'s' * (len(words) != 1)}"
        raise EinsumError(f"the layouts are of {counts}, not of {operands}", text, (0, len(text)))
    return words


def usual(words: Sequence[str]) -> bool:
    """Whether these are layouts that every signature stands for: all C, or all F."""
    return set(words) <= {"C"} or set(words) <= {"F"}


def virtual_of(shape: Sequence[int], dtype: DTypeLike, word: str) -> Array | None:
    """An array without memory of a layout of this kind; None if its rank is another one.

    >>> virtual_of((4, 6), "f8", "F*").strides
    (16, 64)
    """
    found = _WORD.fullmatch(word)
    assert found is not None
    axes = list(range(len(shape)))
    if found[1] == "F":
        axes.reverse()
    elif found[1] != "C":
        if len(found[1]) != len(shape):
            return None
        axes = [int(digit) for digit in found[1]]
    fastest = axes[-1] if axes else 0
    step = 2 if found[2] == "*" else 1
    whole = [
        step * extent + (found[2] == "+") if axis == fastest else extent
        for axis, extent in enumerate(shape)
    ]
    array = virtual(whole, dtype, axes)
    cut = [
        slice(0, step * n, step) if axis == fastest else slice(None) for axis, n in enumerate(shape)
    ]
    return array[tuple(cut)]
