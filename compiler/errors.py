"""The exceptions of einsumc: what is wrong, the equation, and a caret under the place.

    index 'j' has size 3 in operand 0 (axis 1) but 4 in operand 1 (axis 0)
        ij,jk->ik
           ^

Operands and axes are counted from 0, as NumPy does. The types are those NumPy raises:
`EinsumError` is a ValueError, `EinsumTypeError` a TypeError.
"""

from __future__ import annotations

from collections.abc import Sequence

from .alone import alone

__all__ = [
    "EinsumError",
    "EinsumTypeError",
    "Span",
    "operand_count",
    "rank_mismatch",
    "size_mismatch",
]

Span = tuple[int, int]
"""A place in a text: from the first character up to, not including, the second."""

_CROP = 100  # characters of a long equation shown on either side of the caret


class _Located(Exception):
    """An exception with a message and, if it is about a text, the place in it."""

    def __init__(self, message: str, text: str | None = None, span: Span = (0, 0)) -> None:
        super().__init__(message if text is None else f"{message}\n{_diagram(text, span)}")
        self.message = message
        self.text = text
        self.span = span


class EinsumError(_Located, ValueError):
    """A wrong equation, or operands that do not fit it.

    >>> print(EinsumError("unexpected character '$'", "i$->i", (1, 2)))
    unexpected character '$'
        i$->i
         ^
    """


class EinsumTypeError(_Located, TypeError):
    """An argument of the wrong type.

    >>> print(EinsumTypeError("the equation must be a str, not NoneType"))
    the equation must be a str, not NoneType
    """


def operand_count(text: str, span: Span, terms: int, operands: int) -> EinsumError:
    """More or fewer operands than the equation has terms.

    >>> print(operand_count("ij,jk->ik", (3, 5), 2, 1))
    the equation has 2 terms but there is 1 operand
        ij,jk->ik
           ^^
    """
    given = "is 1 operand" if operands == 1 else f"are {operands or 'no'} operands"
    wanted = "1 term" if terms == 1 else f"{terms} terms"
    return EinsumError(f"the equation has {wanted} but there {given}", text, span)


def rank_mismatch(
    text: str,
    span: Span,
    operand: int,
    shape: Sequence[int],
    indices: Sequence[str],
    ellipsis: bool = False,
) -> EinsumError:
    """An operand with another number of axes than its term has indices.

    >>> print(rank_mismatch("ij->i", (0, 2), 0, (5,), ["i", "j"]))
    operand 0 has 1 axis, shape (5,), but its term has 2 indices: i, j
        ij->i
        ^^
    """
    axes = "1 axis" if len(shape) == 1 else f"{len(shape) or 'no'} axes"
    wanted = "1 index" if len(indices) == 1 else f"{len(indices) or 'no'} indices"
    listed = f"{': ' if indices else ''}{', '.join(indices)}"
    message = (
        f"operand {operand} has {axes}, shape {tuple(shape)}, but its term has {wanted}"
        f"{' besides its ellipsis' if ellipsis else ''}{listed}"
    )
    return EinsumError(message, text, span)


def size_mismatch(
    text: str, span: Span, index: str, first: Sequence[int], second: Sequence[int]
) -> EinsumError:
    """An index with two sizes; `first` and `second` are (size, operand, axis).

    >>> print(size_mismatch("ij,jk->ik", (3, 4), "index 'j'", (3, 0, 1), (4, 1, 0)))
    index 'j' has size 3 in operand 0 (axis 1) but 4 in operand 1 (axis 0)
        ij,jk->ik
           ^
    """
    there, here = (f"{size} in operand {n} (axis {axis})" for size, n, axis in (first, second))
    return EinsumError(f"{index} has size {there} but {here}", text, span)


def _diagram(text: str, span: Span) -> str:
    """The text, indented and on one line, and carets under the span."""
    start, end = span
    before, after = max(start - _CROP, 0), start + _CROP
    line = "".join(char if char.isprintable() else " " for char in text)
    column = ("…" if before else "") + line[before:start]
    shown = column + line[start:after] + ("…" if after < len(line) else "")
    carets = "^" * max(_columns(line[start : min(end, after)]), 1)
    # A combining mark is drawn over the character before it.
    over = 0 < start < len(line) and not _columns(line[start])
    return f"    {shown}\n    {' ' * (_columns(column) - over)}{carets}"


def _columns(text: str) -> int:
    """How many terminal columns a text takes."""
    if text.isascii():
        return len(text)
    with alone:
        import unicodedata  # here, since few texts need it

    return sum(
        0
        if unicodedata.category(char) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )
