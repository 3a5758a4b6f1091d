"""From the text of an einsum to its subscripts.

The grammar is NumPy's: one letter an index, commas between operands, `...` for axes that broadcast,
an output after `->` or NumPy's implicit one; spaces mean nothing. To this are added

- any Unicode letter, and whatever other symbol opt_einsum's `get_symbol` makes, as an index;
- an index repeated in the output, `i->ii`: the diagonal is written, the rest is zero;
- an ellipsis that the output does not have: its axes are summed, as in opt_einsum, torch and NumPy
  with `optimize=True`;
- whitespace of any ASCII kind, so that an equation may take several lines;
- names of several characters, by the following rule.

**Names.** A term is spaced if whitespace stands between two of its indices.

1. If a spaced term has an index of several characters, then in the whole equation whatever stands
   between whitespace is one name: `batch q d, batch k d -> batch q k`. A name is a letter or `_`,
   then letters, digits and `_`.
2. Otherwise each character is an index: `ij, jk -> ik` and `i j, jk -> ik` are both `ij,jk->ik`.
3. But what NumPy accepts keeps NumPy's meaning. To NumPy `ab cd, cd -> ab` is `abcd,cd->ab`, and so
   it is here if the operands have four axes and two. If they have two axes and one, which NumPy
   refuses, `ab` and `cd` are names. Only `...` can make both readings fit: NumPy's is taken.

The arithmetic of an affine axis, `y+k` or `2*y`, calls for names just as rule 1 does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from .affine import Affine
from .errors import EinsumError, EinsumTypeError, Span
from .records import dataclass, replace

__all__ = [
    "Axis",
    "Expression",
    "Subscripts",
    "Term",
    "checked",
    "compose",
    "parse",
    "parse_axis",
]

# Only ASCII whitespace separates: opt_einsum's symbols run through the other kinds. What every
# equation needs is read without regular expressions: to compile those would take a process that
# starts longer than all of its equations.
_SPACE = " \t\n\r\f\v"
_SUM = r"[+-]?[^+-]+(?:[+-][^+-]+)*"
_SUMMAND = r"([+-]?)(?:([0-9]{1,18})\*)?([^+-]+)"


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a term as written, and where."""

    index: Affine
    span: Span


@dataclass(frozen=True, slots=True)
class Term:
    """The axes of one operand, or of the output.

    `ellipsis` is the number of axes written before the `...`, or None if there is none.
    """

    axes: tuple[Axis, ...]
    ellipsis: int | None
    span: Span
    ellipsis_span: Span = (0, 0)

    @property
    def names(self) -> tuple[str, ...]:
        """The index names of all axes, in order and as often as they occur."""
        return tuple(name for axis in self.axes for name in axis.index.names)


@dataclass(frozen=True, slots=True)
class Subscripts:
    """An equation whose syntax is right; nothing is known of the shapes yet.

    `output` is None if it is implicit. `numpy` is NumPy's reading of the text where that is another
    one (rule 3 above); `resolve` chooses.
    """

    text: str
    inputs: tuple[Term, ...]
    output: Term | None
    numpy: Subscripts | None = None


@dataclass(frozen=True, slots=True)
class Expression:
    """An equation checked against the shapes of its operands.

    `shapes` are theirs. `inputs` has an expression for each axis of each operand, or None where an
    axis of extent 1 is broadcast against a larger (or empty) one. `extents` are in the order in
    which the indices first appear. The axes of `...` are indices called `...0`, `...1` and so on,
    counted from the left of the shape they broadcast to. An affine axis may leave its operand,
    where it reads zero, or the result, where it is not written; `output_shape` is the shape of
    that. `text` is the equation in a standard form, with its output.

    >>> from einsumc.compiler.resolve import resolve
    >>> expression = resolve(parse("b i j, ...jk"), [(7, 2, 3), (7, 3, 4)])
    >>> print(expression)
    bij,...jk->...bik
    >>> expression.sizes
    {'b': 7, 'i': 2, 'j': 3, '...0': 7, 'k': 4}
    >>> [str(axis) for axis in expression.inputs[1]], expression.output_shape
    (['...0', 'j', 'k'], (7, 7, 2, 4))
    """

    inputs: tuple[tuple[Affine | None, ...], ...]
    output: tuple[Affine, ...]
    extents: tuple[tuple[str, int], ...]
    text: str
    shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """The extent of each index."""
        return dict(self.extents)

    def __str__(self) -> str:
        return self.text


# --- text -> subscripts ---------------------------------------------------------------------------


def parse(text: str) -> Subscripts:
    """Read an equation; raises EinsumError if its syntax is wrong.

    >>> subscripts = parse("batch q d, batch k d -> batch q k")
    >>> [term.names for term in subscripts.inputs]
    [('batch', 'q', 'd'), ('batch', 'k', 'd')]
    >>> parse("ij,jk->iz")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    EinsumError: output index 'z' is in no operand's term
        ij,jk->iz
                ^
    """
    if not isinstance(text, str):
        raise EinsumTypeError(f"the equation must be a str, not {type(text).__name__}")
    inputs, output = _split(text)
    if not _has_names(text, inputs if output is None else [*inputs, output]):
        return _read(text, inputs, output, _letters)
    numpy = _read_as_numpy(text, inputs, output)
    try:
        return replace(_read(text, inputs, output, _name), numpy=numpy)
    except EinsumError:
        if numpy is None:
            raise
        return numpy


def _split(text: str) -> tuple[list[Span], Span | None]:
    """Where the terms of the operands are, and that of the output."""
    heads = _places(text, ">")
    tails = [len(text[:head].rstrip(_SPACE)) - 1 for head in heads]
    arrows = [
        (tail, head + 1)
        for tail, head in zip(tails, heads, strict=True)
        if tail >= 0 and text[tail] == "-"
    ]
    if len(arrows) > 1:
        raise EinsumError("there is more than one '->'", text, arrows[1])
    arrow = arrows[0] if arrows else (len(text), len(text))
    for head in heads:
        if not arrows or head + 1 != arrow[1]:
            raise EinsumError("'>' without '-': the arrow is '->'", text, (head, head + 1))
    comma = text.find(",", arrow[1])
    if comma >= 0:
        raise EinsumError("there is more than one output", text, (comma, comma + 1))
    commas = _places(text, ",")
    inputs = list(zip([0, *(comma + 1 for comma in commas)], [*commas, arrow[0]], strict=True))
    return inputs, (arrow[1], len(text)) if arrows else None


def _places(text: str, sign: str) -> list[int]:
    return [place for place, char in enumerate(text) if char == sign]


def _pieces(text: str, span: Span) -> Iterator[Span]:
    """Where the words, the ellipses and the stray dots of a place are."""
    place, end = span
    while place < end:
        start, char = place, text[place]
        place += 1
        if char in _SPACE:
            continue
        if char == ".":
            rest = text[place:end].lstrip(_SPACE)
            last = rest[1:].lstrip(_SPACE)
            if rest.startswith(".") and last.startswith("."):
                place = end - len(last) + 1
        else:
            while place < end and text[place] not in _SPACE and text[place] != ".":
                place += 1
        yield start, place


def _has_names(text: str, spans: Iterable[Span]) -> bool:
    """Whether what stands between whitespace is a name: rule 1, or an affine axis."""
    for start, end in spans:
        term = list(text[start:end])
        for first, last in _pieces(text, (start, end)):
            if last - first > 1 and text[first] == ".":
                term[first - start : last - start] = [""] * (last - first)
        spaced = "".join(" " if char in _SPACE else char for char in term if char)
        words = [word for word in spaced.split(" ") if word]
        if len(words) > 1 and any(len(word) > 1 for word in words):
            return True
    if "+" in text or "*" in text:
        return True
    # A '-' means a difference only where there is an arrow: else it is more likely half of one.
    return "->" in text and any(
        _in_word(text[place - 1 : place]) and _in_word(text[place + 1 : place + 2])
        for place in _places(text, "-")
    )


def _in_word(char: str) -> bool:
    return char == "_" or char.isalnum()


def _read_as_numpy(text: str, inputs: Iterable[Span], output: Span | None) -> Subscripts | None:
    """NumPy's reading, if it has one."""
    if not text.isascii() or not all(char.isalpha() or char in " ,.>-" for char in text):
        return None
    try:
        numpy = _read(text, inputs, output, _letters)
    except EinsumError:
        return None
    names = numpy.output.names if numpy.output is not None else ()
    return numpy if len(set(names)) == len(names) else None


_Reader = Callable[[str, Span], list[Axis]]
"""Makes axes of a piece of the text without whitespace and dots."""


def _read(text: str, inputs: Iterable[Span], output: Span | None, reader: _Reader) -> Subscripts:
    terms = tuple(_read_term(text, span, reader) for span in inputs)
    return checked(
        Subscripts(text, terms, _read_term(text, output, reader) if output is not None else None)
    )


def _read_term(text: str, span: Span, reader: _Reader) -> Term:
    axes: list[Axis] = []
    ellipsis: int | None = None
    ellipsis_span = (0, 0)
    pieces = list(_pieces(text, span))
    for piece in pieces:
        if text[piece[0]] != ".":
            axes += reader(text, piece)
        elif piece[1] - piece[0] == 1:
            raise EinsumError("a '.' is not part of an ellipsis '...'", text, piece)
        elif ellipsis is not None:
            raise EinsumError("a term may have only one ellipsis '...'", text, piece)
        else:
            ellipsis, ellipsis_span = len(axes), piece
    span = (pieces[0][0], pieces[-1][1]) if pieces else (span[0], span[0])
    return Term(tuple(axes), ellipsis, span, ellipsis_span)


def _letters(text: str, span: Span) -> list[Axis]:
    """An axis for each character."""
    axes = []
    for place in range(*span):
        char, here = text[place], (place, place + 1)
        if char == "-":
            raise EinsumError("'-' without '>': the arrow is '->'", text, here)
        if not _is_symbol(char):
            hint = ""
            if char in "_0123456789":
                hint = "; a name of several characters needs a term with spaces, as in 'q1 k1'"
            raise EinsumError(f"unexpected character {char!r}{hint}", text, here)
        axes.append(Axis(Affine.index(char), here))
    return axes


def _is_symbol(char: str) -> bool:
    # opt_einsum.get_symbol goes from 'À' through all of Unicode but the surrogates.
    return char.isalpha() or (char >= "À" and not "\ud800" <= char <= "\udfff")


def _name(text: str, span: Span) -> list[Axis]:
    """One axis, named."""
    return [Axis(parse_axis(text, span), span)]


def parse_axis(text: str, span: Span) -> Affine:
    """Read the affine expression at a place of a text.

    >>> parse_axis("2*y+k-1", (0, 7))
    Affine(terms=(('k', 1), ('y', 2)), constant=-1)
    """
    written, begin = text[slice(*span)], span[0]
    if written.isidentifier():
        return Affine.index(written)
    if not re.fullmatch(_SUM, written):
        raise EinsumError(f"{written!r} is not an index name", text, span)
    terms: list[tuple[str, int]] = []
    constant = 0
    for match in re.finditer(_SUMMAND, written):
        sign, factor, rest = match.groups()
        if rest.isidentifier():
            terms.append((rest, int(f"{sign}{factor or 1}")))
        elif factor is None and re.fullmatch("[0-9]{1,18}", rest):
            constant += int(f"{sign}{rest}")
        else:
            here = begin + match.start(), begin + match.end()
            raise EinsumError(f"{match[0]!r} is not an index name", text, here)
    return Affine(tuple(terms), constant)


def checked(subscripts: Subscripts) -> Subscripts:
    """The same, once every index of the output is known to be in an input."""
    known = {name for term in subscripts.inputs for name in term.names}
    for axis in subscripts.output.axes if subscripts.output is not None else ():
        for name in axis.index.names:
            if name not in known:
                message = f"output index {name!r} is in no operand's term"
                raise EinsumError(message, subscripts.text, axis.span)
    return subscripts


def compose(
    inputs: Sequence[Sequence[Affine | None]], output: Sequence[Affine | None] | None
) -> Subscripts:
    """Write an equation in its standard form; None stands for the ellipsis."""
    written = [axis for term in [*inputs, output or ()] for axis in term if axis is not None]
    spaced = any(len(str(axis)) > 1 for axis in written)
    text = ""
    terms = []
    for n, items in enumerate(inputs if output is None else [*inputs, output]):
        if n:
            text += (" -> " if spaced else "->") if n == len(inputs) else ", " if spaced else ","
        start = len(text)
        axes: list[Axis] = []
        ellipsis: int | None = None
        ellipsis_span = (0, 0)
        for place, axis in enumerate(items):
            text += " " if spaced and place else ""
            span = (len(text), len(text) + (3 if axis is None else len(str(axis))))
            if axis is None:
                ellipsis, ellipsis_span = len(axes), span
                text += "..."
            else:
                axes.append(Axis(axis, span))
                text += str(axis)
        terms.append(Term(tuple(axes), ellipsis, (start, len(text)), ellipsis_span))
    if output is None:
        return Subscripts(text, tuple(terms), None)
    return Subscripts(text.rstrip(), tuple(terms[:-1]), terms[-1])
