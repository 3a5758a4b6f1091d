"""Whether a signature fits the equation that it is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..compiler.errors import EinsumError, Span
from ..compiler.subscripts import Subscripts

if TYPE_CHECKING:
    from .signature import Signature

__all__ = ["Places", "check_fit"]

Places = tuple[Span, tuple[Span, ...]]
"""Where in the text an operand is, and each of its axes."""


def check_fit(
    text: str, signature: Signature, places: Sequence[Places], subscripts: Subscripts
) -> None:
    """Raise EinsumError if a signature does not fit an equation."""
    terms = len(subscripts.inputs)
    if len(places) != terms:
        counts = f"{len(places)} operand{'s' * (len(places) != 1)}"
        message = f"the signature has {counts}, but the equation {subscripts.text} has {terms}"
        raise EinsumError(message, text, places[min(len(places) - 1, terms)][0])
    if subscripts.numpy is not None and all(
        _axis_names(subscripts.numpy, n, len(operand.axes)) is not None
        for n, operand in enumerate(signature.operands)
    ):
        subscripts = subscripts.numpy

    known = {name for term in subscripts.inputs for name in term.names}
    seen: dict[str, tuple[str | int, int, int]] = {}
    for n, (operand, (span, spans)) in enumerate(zip(signature.operands, places, strict=True)):
        names = _axis_names(subscripts, n, len(operand.axes))
        if names is None:
            term = subscripts.inputs[n]
            written = subscripts.text[slice(*term.span)]
            message = (
                f"operand {n} has {len(operand.axes) or 'no'} "
                f"{'axis' if len(operand.axes) == 1 else 'axes'} here, but {len(term.axes)} "
                f"{'or more ' * (term.ellipsis is not None)}in the equation: {written}"
            )
            raise EinsumError(message, text, span)
        for number, (name, axis, where) in enumerate(zip(names, operand.axes, spans, strict=True)):
            if not name:
                continue
            here = f"axis {number} of operand {n}"
            if isinstance(axis, str):
                ellipsis = name.startswith("...")
                if axis in known if ellipsis else axis != name:
                    called = "an axis of '...'" if ellipsis else repr(name)
                    equation = f"in the equation {subscripts.text}"
                    raise EinsumError(f"{here} is {called} {equation}, not {axis!r}", text, where)
                if not ellipsis:
                    continue
            elif axis == 1:
                continue  # broadcasts
            there = seen.setdefault(name, (axis, n, number))
            if there[0] != axis and type(there[0]) is type(axis):
                index = "an axis of '...'" if name.startswith("...") else f"index {name!r}"
                message = (
                    f"{index} is {there[0]} in operand {there[1]} (axis {there[2]}) "
                    f"but {axis} in operand {n} (axis {number})"
                )
                raise EinsumError(message, text, where)


def _axis_names(subscripts: Subscripts, operand: int, rank: int) -> list[str] | None:
    """The index of each axis of an operand of this rank; None if it cannot have it.

    Axes of `...` are counted from the right, since so they broadcast: `...-1` is the last. An axis
    that is not a plain index has no name, but "".
    """
    term = subscripts.inputs[operand]
    names = [axis.index.names[0] if axis.index.is_index else "" for axis in term.axes]
    spare = rank - len(names)
    if spare < 0 or (spare and term.ellipsis is None):
        return None
    place = term.ellipsis or 0
    return [*names[:place], *(f"...{n}" for n in range(-spare, 0)), *names[place:]]
