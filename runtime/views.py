"""Equations that are less than they look: results that are views, outputs that are diagonals."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import numpy as np

from ..compiler.affine import Affine
from ..compiler.records import replace
from ..compiler.subscripts import Expression
from .operands import Array

__all__ = ["as_view", "diagonal_of", "distinct_output"]


def as_view(expression: Expression) -> Callable[[Array], Array] | None:
    """How to take the result of a one-operand equation that sums nothing as a view, if it is one.

    As in np.einsum, the view can be written if the operand can.

    >>> from einsumc.compiler.resolve import resolve
    >>> from einsumc.compiler.subscripts import parse
    >>> diagonal = as_view(resolve(parse("ii->i"), [(3, 3)]))
    >>> diagonal(np.arange(9).reshape(3, 3))
    array([0, 4, 8])
    """
    if len(expression.inputs) != 1 or not all(axis.is_index for axis in expression.output):
        return None
    axes = [axis.names[0] if axis and axis.is_index else "" for axis in expression.inputs[0]]
    output = [axis.names[0] for axis in expression.output]
    if len(set(output)) < len(output) or set(output) != set(axes):
        return None
    if len(axes) == len(output):
        order = [axes.index(name) for name in output]
        return operator.methodcaller("transpose", order)

    def view(array: Array) -> Array:
        diagonal, names = diagonal_of(array, axes)
        return diagonal.transpose([names.index(name) for name in output])

    return view


def distinct_output(expression: Expression) -> tuple[Expression, Callable[[Array], Array]]:
    """An equation whose output repeats no index, and how to take the part of `out` it computes.

    The rest of `out` has to be zero. An affine output is left to the kernels as a whole.

    >>> from einsumc.compiler.resolve import resolve
    >>> from einsumc.compiler.subscripts import parse
    >>> expression, part = distinct_output(resolve(parse("i->ii"), [(3,)]))
    >>> [str(axis) for axis in expression.output]
    ['i']
    >>> out = np.zeros((3, 3))
    >>> part(out)[:] = [1, 2, 3]
    >>> print(out.trace())
    6.0
    """
    if not all(axis.is_index for axis in expression.output):
        return expression, lambda out: out
    axes = [axis.names[0] for axis in expression.output]
    if len(set(axes)) == len(axes):
        return expression, lambda out: out
    names = _without_repeats(axes)
    output = tuple(Affine.index(name) for name in names)
    shape = tuple(expression.sizes[name] for name in names)
    distinct = replace(expression, output=output, output_shape=shape)
    return distinct, lambda out: diagonal_of(out, axes)[0]


def diagonal_of(array: Array, axes: Sequence[str]) -> tuple[Array, list[str]]:
    """A view with one axis for each name, and the names of its axes; it is as writeable."""
    view, names, target = array.view(np.ndarray), list(axes), _without_repeats(axes)
    while len(names) > len(target):
        name = next(name for name in names if names.count(name) > 1)
        first = names.index(name)
        second = names.index(name, first + 1)
        view = view.diagonal(0, first, second)  # a view that cannot be written
        names = [*names[:first], *names[first + 1 : second], *names[second + 1 :], name]
    if len(names) < len(axes) and array.flags.writeable:
        view.flags.writeable = True
    return view.transpose([names.index(name) for name in target]), target


def _without_repeats(axes: Sequence[str]) -> list[str]:
    """Each name once, where it comes last."""
    return [name for n, name in enumerate(axes) if name not in axes[n + 1 :]]
