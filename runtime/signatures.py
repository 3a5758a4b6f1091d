"""Signatures: which dtypes and ranks of operands to have kernels for, `"f4[i,j], f4[j,k]"`.

The grammar, in which spaces mean nothing:

    signature = operand { "," operand }
    operand   = dtype [ "[" [ axis { "," axis } ] "]" ]
    dtype     = one of DTYPES, as a NumPy code ("f4") or name ("float32")
    axis      = index | extent
    index     = an index name: an axis of any extent
    extent    = an integer: an axis of this extent and no other

An operand without brackets is a scalar. The axes of an ellipsis are written out, with names of
their own: `"f4[batch,i,j], f4[batch,j,k]"` fits `...ij,...jk->...ik`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..compiler.errors import EinsumError, EinsumTypeError, Span
from ..compiler.records import dataclass
from ..compiler.subscripts import Subscripts

__all__ = ["DTYPES", "OperandSignature", "Signature", "parse_signature"]

DTYPES = {
    name: np.dtype(code)
    for code in (
        *("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"),
        *("f2", "f4", "f8", "c8", "c16"),
    )
    for name in (code, np.dtype(code).name)
}
"""What a dtype may be called: codes and names of those that kernels compute in."""

_OPERAND = re.compile(r"\s*([^\s\[\],]*)\s*(?:\[([^\[\]]*)\])?\s*(,|$)")
_AXIS = re.compile(r"\s*([^,]*?)\s*(,|$)")


@dataclass(frozen=True, slots=True)
class OperandSignature:
    """One operand: its dtype, and for each axis an index name (any extent) or its extent.

    >>> print(OperandSignature(np.dtype("f4"), ("n", 128)))
    f4[n,128]
    """

    dtype: np.dtype[Any]
    axes: tuple[str | int, ...]

    def __str__(self) -> str:
        axes = f"[{','.join(map(str, self.axes))}]" if self.axes else ""
        return f"{self.dtype.str[1:]}{axes}"


@dataclass(frozen=True, slots=True)
class Signature:
    """The operands of one einsum.

    >>> signature = parse_signature("float32[i, j], f4[j, 10]")
    >>> print(signature)
    f4[i,j], f4[j,10]
    >>> signature.operands[1].axes
    ('j', 10)
    """

    operands: tuple[OperandSignature, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.operands))


def parse_signature(text: str, subscripts: Subscripts | None = None) -> Signature:
    """Read a signature, and check it against an equation if one is given.

    In the equation an axis is either called as it is there, or has a fixed extent, the same (or 1)
    wherever the index occurs.

    Raises:
        EinsumError: (a ValueError) the syntax is wrong, or it does not fit the equation.
        EinsumTypeError: (a TypeError) it is not a str.

    >>> from einsumc.compiler.subscripts import parse
    >>> print(parse_signature("f4[i,128], f4[128,k]", parse("ij,jk->ik")))
    f4[i,128], f4[128,k]
    >>> parse_signature("f4[i,j], f4[k,j]", parse("ij,jk->ik"))
    Traceback (most recent call last):
    einsumc.compiler.errors.EinsumError: axis 0 of operand 1 is 'j' in the equation ij,jk->ik, \
not 'k'
        f4[i,j], f4[k,j]
                    ^
    """
    if not isinstance(text, str):
        raise EinsumTypeError(f"a signature must be a str, not {type(text).__name__}")
    operands, places = [], []
    start = 0
    while True:
        match = _OPERAND.match(text, start)
        if match is None:
            raise _misplaced_bracket(text, start)
        operand, spans = _read_operand(text, match)
        operands.append(operand)
        places.append(spans)
        start = match.end()
        if not match[3]:
            break
    signature = Signature(tuple(operands))
    if subscripts is not None:
        _check_fit(text, signature, places, subscripts)
    return signature


_Places = tuple[Span, tuple[Span, ...]]
"""Where in the text an operand is, and each of its axes."""


def _read_operand(text: str, match: re.Match[str]) -> tuple[OperandSignature, _Places]:
    name = match[1]
    if name not in DTYPES:
        known = " ".join(name for name in DTYPES if len(name) < 4)
        problem = f"there is no dtype {name!r}: it may be" if name else "a dtype is missing:"
        raise EinsumError(f"{problem} {known}", text, match.span(1))
    axes: list[str | int] = []
    spans: list[Span] = []
    start, end = match.span(2)
    while match[2] is not None and (match[2].strip() or axes):
        axis = _AXIS.match(text[:end], start)
        assert axis is not None  # it matches anything
        axes.append(_read_axis(text, axis.span(1)))
        spans.append(axis.span(1))
        start = axis.end()
        if not axis[2]:
            break
    last = match.end(2) + 1 if match[2] is not None else match.end(1)
    return OperandSignature(DTYPES[name], tuple(axes)), ((match.start(1), last), tuple(spans))


def _read_axis(text: str, span: Span) -> str | int:
    axis = text[slice(*span)]
    if axis.isascii() and axis.isdecimal():
        return int(axis)
    if not axis or len(axis.split()) > 1 or (len(axis) > 1 and not axis.isidentifier()):
        problem = f"{axis!r} is neither" if axis else "an axis is missing, which is"
        raise EinsumError(f"{problem} an index name {'n' * bool(axis)}or an extent", text, span)
    return axis


def _misplaced_bracket(text: str, start: int) -> EinsumError:
    """The first bracket from here on that cannot be right."""
    depth = 0
    for place in range(start, len(text)):
        char = text[place]
        if (char == "[" and depth) or (char == "]" and not depth):
            return EinsumError(f"{char!r} is not expected here", text, (place, place + 1))
        depth += (char == "[") - (char == "]")
        if char == "]":
            rest = len(text[place + 1 :]) - len(text[place + 1 :].lstrip())
            after = place + 1 + rest
            if after < len(text) and text[after] != ",":
                return EinsumError("a ',' is missing", text, (after, after + 1))
    if depth:
        opened = text.rindex("[")
        return EinsumError("'[' is never closed", text, (opened, opened + 1))
    words = re.compile(r"\s*[^\s,]+\s+").match(text, start)
    after = words.end() if words else start
    return EinsumError("a ',' is missing", text, (after, after + 1))


# --- a signature and its equation -----------------------------------------------------------------


def _check_fit(
    text: str, signature: Signature, places: Sequence[_Places], subscripts: Subscripts
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
