"""What NumPy has that is an einsum: `matmul`, `tensordot`, `dot` and their kin, and windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..affine import Affine
from ..subscripts import Subscripts, compose
from ..windows import given_sizes
from .axes import plus
from .graph import Node
from .location import TraceError, here
from .record import Recorder

__all__ = [
    "LINEAR",
    "dot",
    "einsum_of",
    "inner",
    "outer",
    "pad",
    "sliding_windows",
    "tensordot",
    "vdot",
]

_LETTERS = "ijklmnpqrstuvwxyzabcdefghIJKLMNPQRSTUVWXYZABCDEFGH"


def einsum_of(
    recorder: Recorder, operands: Sequence[Node], terms: Sequence[Sequence[int | None]]
) -> Node:
    """An einsum whose indices are numbers; None stands for an ellipsis, the last term is the
    output. Axes of extent 1 do not broadcast.
    """
    *inputs, output = ([None if n is None else _index(n) for n in term] for term in terms)
    subscripts: Subscripts = compose(inputs, output)
    return recorder.contract(subscripts, operands, exact=True)


def _index(number: int) -> Affine:
    return Affine.index(_LETTERS[number])


def _matmul(recorder: Recorder, first: Any, second: Any) -> Node:
    a, b = recorder.node(first), recorder.node(second)
    if not a.rank or not b.rank:
        raise TraceError("matmul: an operand has no axes", here())
    left: list[int | None] = [None, 0, 1] if a.rank > 1 else [1]
    right: list[int | None] = [None, 1, 2] if b.rank > 1 else [1]
    rest = ([None] if None in (*left, *right) else []) + [0] * (a.rank > 1) + [2] * (b.rank > 1)
    return einsum_of(recorder, (a, b), (left, right, rest))


def _vecdot(recorder: Recorder, first: Any, second: Any) -> Node:
    return einsum_of(recorder, (_conjugate(recorder, first), recorder.node(second)), _VECDOT)


_VECDOT: tuple[list[int | None], ...] = ([None, 0], [None, 0], [None])


def _matvec(recorder: Recorder, first: Any, second: Any) -> Node:
    operands = recorder.node(first), recorder.node(second)
    return einsum_of(recorder, operands, ([None, 0, 1], [None, 1], [None, 0]))


def _vecmat(recorder: Recorder, first: Any, second: Any) -> Node:
    operands = _conjugate(recorder, first), recorder.node(second)
    return einsum_of(recorder, operands, ([None, 0], [None, 0, 1], [None, 1]))


def _conjugate(recorder: Recorder, given: Any) -> Node:
    node = recorder.node(given)
    return recorder.apply("conjugate", node) if node.dtype.kind == "c" else node


LINEAR: dict[str, Callable[..., Node]] = {
    "matmul": _matmul,
    "vecdot": _vecdot,
    "matvec": _matvec,
    "vecmat": _vecmat,
}
"""Universal functions that are einsums."""


def tensordot(recorder: Recorder, first: Any, second: Any, axes: Any = 2) -> Node:
    """`np.tensordot`."""
    a, b = recorder.node(first), recorder.node(second)
    if isinstance(axes, int | np.integer):
        axes = (range(a.rank - int(axes), a.rank), range(int(axes)))
    ours, theirs = ([each] if isinstance(each, int) else list(each) for each in axes)
    if len(ours) != len(theirs) or len(ours) > min(a.rank, b.rank):
        raise TraceError("tensordot: the lists of axes do not fit the operands", here())
    left = list(range(a.rank))
    right = list(range(a.rank, a.rank + b.rank))
    for one, other in zip(ours, theirs, strict=True):
        right[other] = left[one]
    output = [n for n in left if n not in right] + [n for n in right if n not in left]
    return einsum_of(recorder, (a, b), (left, right, output))


def dot(recorder: Recorder, first: Any, second: Any) -> Node:
    """`np.dot`."""
    a, b = recorder.node(first), recorder.node(second)
    if not a.rank or not b.rank:
        return recorder.apply("multiply", a, b)
    return tensordot(recorder, a, b, ([a.rank - 1], [max(b.rank - 2, 0)]))


def inner(recorder: Recorder, first: Any, second: Any) -> Node:
    """`np.inner`."""
    a, b = recorder.node(first), recorder.node(second)
    if not a.rank or not b.rank:
        return recorder.apply("multiply", a, b)
    return tensordot(recorder, a, b, ([a.rank - 1], [b.rank - 1]))


def outer(recorder: Recorder, first: Any, second: Any) -> Node:
    """`np.outer`."""
    a, b = (_flat(recorder, each) for each in (first, second))
    return einsum_of(recorder, (a, b), ([0], [1], [0, 1]))


def vdot(recorder: Recorder, first: Any, second: Any) -> Node:
    """`np.vdot`."""
    a, b = _flat(recorder, _conjugate(recorder, first)), _flat(recorder, second)
    return einsum_of(recorder, (a, b), ([0], [0], []))


def _flat(recorder: Recorder, given: Any) -> Node:
    node = recorder.node(given)
    return node if node.rank == 1 else recorder.reshape(node, (-1,))


def sliding_windows(
    recorder: Recorder,
    x: Any,
    window_shape: Any,
    axis: Any = None,
    *,
    subok: bool = False,
    writeable: bool = False,
) -> Node:
    """`np.lib.stride_tricks.sliding_window_view`: windows along some axes, as axes behind all."""
    node = recorder.node(x)
    extents = window_shape if isinstance(window_shape, tuple | list) else (window_shape,)
    given = (
        range(node.rank) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    )
    axes = [int(each) for each in given]
    if len(axes) != len(extents) or not all(-node.rank <= each < node.rank for each in axes):
        raise TraceError("sliding_window_view: the windows do not fit the array's axes", here())
    taps = {each % node.rank: f"k{each % node.rank}" for each in axes}
    if len(taps) < len(axes):
        raise TraceError("sliding_window_view of windows in windows is not traced", here())
    kept = [Affine.index(f"y{n}") for n in range(node.rank)]
    term = [plus(sub, Affine.index(taps[n])) if n in taps else sub for n, sub in enumerate(kept)]
    subscripts = compose([term], [*kept, *map(Affine.index, taps.values())])
    sizes = {name: int(extent) for name, extent in zip(taps.values(), extents, strict=True)}
    return recorder.contract(subscripts, [node], sizes=given_sizes(sizes))


def pad(
    recorder: Recorder,
    array: Any,
    pad_width: Any,
    mode: str = "constant",
    *,
    constant_values: float = 0,
) -> Node:
    """`np.pad` with zeros: an array that is read outside of itself, where it is zero."""
    node = recorder.node(array)
    if mode != "constant" or constant_values != 0:
        raise TraceError("np.pad is traced for zeros alone", here())
    widths = np.broadcast_to(np.asarray(pad_width, int), (node.rank, 2)).tolist()
    places = [Affine.index(f"y{n}") for n in range(node.rank)]
    term = [sub.plus(-before) for sub, (before, _) in zip(places, widths, strict=True)]
    for n, (before, after) in enumerate(widths):
        if after and not before:  # a plain index would have the extent of its axis
            term[n] = plus(term[n], Affine.index("o"))
    extents = recorder.shape(node)
    sizes = {f"y{n}": int(extents[n]) + sum(width) for n, width in enumerate(widths) if any(width)}
    if not sizes:
        return node
    if any("o" in axis.names for axis in term):
        sizes["o"] = 1
    return recorder.contract(compose([term], places), [node], sizes=given_sizes(sizes))
