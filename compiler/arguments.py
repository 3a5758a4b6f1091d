"""From the arguments of a call, in any form of NumPy, opt_einsum or torch, to subscripts."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from .affine import Affine
from .errors import EinsumError, EinsumTypeError, Span
from .subscripts import Subscripts, checked, compose, parse

__all__ = ["from_call", "from_interleaved", "symbol"]


def from_call(args: Sequence[Any]) -> tuple[Subscripts, tuple[Any, ...]]:
    """The subscripts and operands of a call in any of the forms of NumPy, opt_einsum and torch:
    `(text, a, b)`, torch's `(text, [a, b])`, or interleaved, `(a, [0, 1], b, [1, 2], [0, 2])`.

    >>> subscripts, operands = from_call(["ij,jk->ik", ["a", "b"]])
    >>> operands
    ('a', 'b')
    """
    if not args or not isinstance(args[0], (str, bytes)):
        return from_interleaved(args)
    text: Any = args[0]
    subscripts, operands = parse(text), tuple(args[1:])
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        listed = tuple(operands[0])
        # With one term NumPy takes the list for an array; it is torch's only if that cannot be.
        if len(subscripts.inputs) > 1 or (
            len(listed) == 1
            and subscripts.inputs[0].ellipsis is None
            and len(getattr(listed[0], "shape", "")) == len(subscripts.inputs[0].axes)
        ):
            return subscripts, listed
    return subscripts, operands


def from_interleaved(args: Sequence[Any]) -> tuple[Subscripts, tuple[Any, ...]]:
    """The subscripts and operands of a call like `einsum(a, [0, 1], b, [1, 2], [0, 2])`.

    Labels are the integers from 0 to 51, or, as in opt_einsum, anything that can be hashed and
    sorted; a list may hold one Ellipsis. As in NumPy 0 is `A` and 26 is `a`. Labels that are names
    keep them; others are lettered in their order.

    >>> subscripts, operands = from_interleaved(["a", [0, 1], "b", [1, 2], [0, 2]])
    >>> subscripts.text, operands
    ('AB,BC->AC', ('a', 'b'))
    """
    if len(args) < 2:
        raise EinsumError("there must be an equation and its operands, or an operand and its list")
    operands = tuple(args[: len(args) // 2 * 2 : 2])
    lists = [_labels(labels, f"operand {n}") for n, labels in enumerate(args[1::2])]
    output = _labels(args[-1], "the output") if len(args) % 2 else None
    names = _label_names(lists if output is None else [*lists, output], len(lists))

    def indices(labels: list[Any]) -> list[Affine | None]:
        return [None if label is ... else Affine.index(names[label]) for label in labels]

    inputs = [indices(labels) for labels in lists]
    return checked(compose(inputs, None if output is None else indices(output))), operands


def _labels(labels: Any, owner: str) -> list[Any]:
    """The labels of one operand or of the output, which `owner` tells, as a list."""
    if hasattr(labels, "tolist") and len(labels.shape) == 1:  # an array of labels
        labels = labels.tolist()
    if not isinstance(labels, Sequence) or isinstance(labels, str | bytes):
        kind = type(labels).__name__
        raise EinsumTypeError(f"{owner} needs a list or tuple of indices, not {kind}")
    ellipses = [place for place, label in enumerate(labels) if label is ...]
    if len(ellipses) > 1:
        message = f"{owner} may have only one ellipsis"
        raise EinsumError(message, *_in_list(labels, ellipses[1]))
    return list(labels)


_NO_LABEL = (bool, float, complex, type(None))  # hashable, but surely a mistake


def _label_names(lists: Sequence[Sequence[Any]], operands: int) -> dict[Any, str]:
    """A name for each label, such that names sort as the labels do."""
    labels: set[Any] = set()
    for n, listed in enumerate(lists):
        owner = f"operand {n}" if n < operands else "the output"
        for place, label in enumerate(listed):
            if isinstance(label, _NO_LABEL) or not getattr(label, "__hash__", None):
                message = f"{owner} has an index of type {type(label).__name__}"
                raise EinsumTypeError(message, *_in_list(listed, place))
            if _is_integer(label) and not 0 <= label < 52:
                message = f"{owner} has index {label}, which is not from 0 to 51"
                raise EinsumError(message, *_in_list(listed, place))
            labels.add(label)
    labels.discard(...)
    if all(_is_integer(label) for label in labels):
        return {label: symbol(label) for label in labels}
    if all(isinstance(label, str) and label.isidentifier() for label in labels):
        return {label: label for label in labels}
    try:
        return {label: symbol(place) for place, label in enumerate(sorted(labels))}
    except TypeError:
        kinds = " and ".join(sorted({type(label).__name__ for label in labels}))
        raise EinsumTypeError(f"the indices cannot be sorted: they are of types {kinds}") from None


def _is_integer(label: Any) -> bool:
    try:
        operator.index(label)
    except TypeError:
        return False
    return True


def symbol(number: int) -> str:
    """The letters in ASCII order, as NumPy numbers them, then opt_einsum's symbols."""
    if number < 52:
        return chr(number + (65 if number < 26 else 71))
    return chr(number + (140 if number < 55296 else 2188))


def _in_list(labels: Iterable[Any], place: int) -> tuple[str, Span]:
    """A list as text, and where one of its items is."""
    items = ["..." if label is ... else repr(label) for label in labels]
    start = sum(len(item) + 2 for item in items[:place]) + 1
    return f"[{', '.join(items)}]", (start, start + len(items[place]))
