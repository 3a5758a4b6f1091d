"""Wrong input gets one clear message: what, which operand, which index, which sizes, and where."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from einsumc.compiler.arguments import from_call
from einsumc.compiler.errors import EinsumError, EinsumTypeError
from einsumc.compiler.resolve import resolve

# The equation, the shapes, and the whole message; the fragment is what stands over the carets.
TABLE = [
    # Characters.
    ("i$,j->ij", [(2,), (3,)], "$", "unexpected character '$'", " ^"),
    (
        "i1->i",
        [(2,)],
        "1",
        "unexpected character '1'; a name of several characters needs a term with spaces, "
        "as in 'q1 k1'",
        " ^",
    ),
    ("i\xa0j->ij", [(2, 2)], " ", r"unexpected character '\xa0'", " ^"),
    ("i\ud800->i", [(2, 2)], " ", r"unexpected character '\ud800'", " ^"),
    # Dots.
    ("i.,j->ij", [(2,), (3,)], ".", "a '.' is not part of an ellipsis '...'", " ^"),
    ("..i->i", [(2,)], ".", "a '.' is not part of an ellipsis '...'", "^"),
    ("....i->i", [(2,)], ".", "a '.' is not part of an ellipsis '...'", "   ^"),
    ("...i...->i", [(2,)], "...", "a term may have only one ellipsis '...'", "    ^^^"),
    ("...i->......i", [(2,)], "...", "a term may have only one ellipsis '...'", "         ^^^"),
    # Arrows and outputs.
    ("i->i->i", [(2,)], "->", "there is more than one '->'", "    ^^"),
    ("ij-ji", [(2, 3)], "-", "'-' without '>': the arrow is '->'", "  ^"),
    ("ij>ji", [(2, 3)], ">", "'>' without '-': the arrow is '->'", "  ^"),
    ("ij>", [(2, 3)], ">", "'>' without '-': the arrow is '->'", "  ^"),
    ("ij->j>i", [(2, 3)], ">", "'>' without '-': the arrow is '->'", "     ^"),
    ("i,j->i,j", [(2,), (3,)], ",", "there is more than one output", "      ^"),
    ("ij->iz", [(2, 3)], "z", "output index 'z' is in no operand's term", "     ^"),
    ("->i", [()], "i", "output index 'i' is in no operand's term", "  ^"),
    # Number of operands.
    ("ij,jk->ik", [(2, 3)], "jk", "the equation has 2 terms but there is 1 operand", "   ^^"),
    ("ij, jk", [(2, 3)] * 3, "jk", "the equation has 2 terms but there are 3 operands", "    ^^"),
    ("i->", [], "i", "the equation has 1 term but there are no operands", "^"),
    ("i,", [(2,)], "", "the equation has 2 terms but there is 1 operand", "  ^"),
    # Ranks.
    (
        "ij,jk->ik",
        [(2, 3), (3, 4, 5)],
        "jk",
        "operand 1 has 3 axes, shape (3, 4, 5), but its term has 2 indices: j, k",
        "   ^^",
    ),
    ("i->i", [()], "i", "operand 0 has no axes, shape (), but its term has 1 index: i", "^"),
    (
        ",i->i",
        [(2,), (2,)],
        ",",
        "operand 0 has 1 axis, shape (2,), but its term has no indices",
        "^",
    ),
    (
        "i,j...k->ijk",
        [(2,), (3,)],
        "j...k",
        "operand 1 has 1 axis, shape (3,), but its term has 2 indices besides its ellipsis: j, k",
        "  ^^^^^",
    ),
    # Sizes.
    (
        "ij,jk->ik",
        [(2, 3), (4, 5)],
        "j",
        "index 'j' has size 3 in operand 0 (axis 1) but 4 in operand 1 (axis 0)",
        "   ^",
    ),
    (
        "ij,jk,kj->i",
        [(2, 1), (3, 5), (5, 2)],
        "j",
        "index 'j' has size 3 in operand 1 (axis 0) but 2 in operand 2 (axis 1)",
        "       ^",
    ),
    (
        "ij,j->i",
        [(2, 0), (3,)],
        "j",
        "index 'j' has size 0 in operand 0 (axis 1) but 3 in operand 1 (axis 0)",
        "   ^",
    ),
    (
        "ii->i",
        [(3, 4)],
        "i",
        "index 'i' has size 3 in operand 0 (axis 0) but 4 in operand 0 (axis 1)",
        " ^",
    ),
    (
        "ii->i",
        [(0, 3)],
        "i",
        "index 'i' has size 0 in operand 0 (axis 0) but 3 in operand 0 (axis 1)",
        " ^",
    ),
    (
        "ii,i->i",
        [(1, 3), (3,)],
        "i",
        "index 'i' has size 1 in operand 0 (axis 0) but 3 in operand 0 (axis 1)",
        " ^",
    ),
    (
        "...i,...i->...i",
        [(7, 2, 3), (4, 3)],
        "...",
        "axis 1 of '...' has size 2 in operand 0 (axis 1) but 4 in operand 1 (axis 0)",
        "     ^^^",
    ),
    # Names.
    (
        "batch q d, batch k d -> batch q k",
        [(7, 2, 3), (8, 4, 3)],
        "batch",
        "index 'batch' has size 7 in operand 0 (axis 0) but 8 in operand 1 (axis 0)",
        "           ^^^^^",
    ),
    (
        "row c -> roe c",
        [(2, 3)],
        "roe",
        "output index 'roe' is in no operand's term",
        "         ^^^",
    ),
    ("row c, 2c -> row", [(2, 3), (3,)], "2c", "'2c' is not an index name", "       ^^"),
    ("row c$ -> row", [(2, 3)], "c$", "'c$' is not an index name", "    ^^"),
    (
        "ab cd, cd -> ab",
        [(2, 3), (3, 4)],
        "cd",
        "operand 1 has 2 axes, shape (3, 4), but its term has 1 index: cd",
        "       ^^",
    ),
    # Affine axes.
    (
        "n c 2*y+k-1 2*x+l-1, o c k -> n o y x",
        [(1, 2, 9, 9), (3, 2, 3)],
        "2*x+l-1",
        "the extents of 'l' and 'x' are unknown: 2*x+l-1, axis 3 of operand 0, cannot fix more "
        "than one of them; give one, as in sizes={'l': 8}",
        "            ^^^^^^^",
    ),
    (
        "y+k,k->y",
        [(4,), (5,)],
        "y+k",
        "no position of 'y' fits in axis 0 of operand 0, which has 4 (with k of 5); give its "
        "extent, as in sizes={'y': 8}",
        "^^^",
    ),
    (
        "y+k, y+2*k, k -> y",
        [(9,), (9,), (3,)],
        "y+2*k",
        "'y' has extent 7 by axis 0 of operand 0 but 5 by axis 0 of operand 1; give it, as in "
        "sizes={'y': 5}",
        "     ^^^^^",
    ),
    (
        "y, k -> y+k-4",
        [(4,), (3,)],
        "y+k-4",
        "padding leaves nothing of the output's axis k+y-4; give its extent, as in "
        "sizes={'k+y-4': 8}",
        "        ^^^^^",
    ),
    ("n y+2k, k -> n y", [(4,), (2,)], "+2k", "'+2k' is not an index name", "   ^^^"),
]


@pytest.mark.parametrize(("text", "shapes", "fragment", "first", "carets"), TABLE)
def test_whole_message(
    text: str, shapes: list[tuple[int, ...]], fragment: str, first: str, carets: str
) -> None:
    with pytest.raises(ValueError) as caught:
        subscripts, operands = from_call([text, *map(np.empty, shapes)])
        resolve(subscripts, [operand.shape for operand in operands])
    assert type(caught.value) is EinsumError
    shown = text.replace("\xa0", " ").replace("\ud800", " ")
    assert str(caught.value) == f"{first}\n    {shown}\n    {carets}"
    # The carets of the message, as printed, are under the fragment.
    _, line, under = str(caught.value).split("\n")
    assert line[under.index("^") : len(under)] in (fragment, fragment or line[len(line) :])
    assert under.strip() == "^" * max(len(fragment), 1)


A = np.empty((2, 3))
INTERLEAVED: list[tuple[list[Any], type[Exception], str]] = [
    ([A, [0, 52]], EinsumError, "operand 0 has index 52, which is not from 0 to 51|[0, 52]|    ^^"),
    ([A, [0, 1], [-1]], EinsumError, "the output has index -1, which is not from 0 to 51|[-1]| ^^"),
    (
        [A, [..., 0, ...]],
        EinsumError,
        "operand 0 may have only one ellipsis|[..., 0, ...]|         ^^^",
    ),
    ([A, [0, 1], [0, 2]], EinsumError, "output index 'C' is in no operand's term|AB->AC|     ^"),
    ([A, [0, 1.5]], EinsumTypeError, "operand 0 has an index of type float|[0, 1.5]|    ^^^"),
    ([A, [None, 0]], EinsumTypeError, "operand 0 has an index of type NoneType|[None, 0]| ^^^^"),
    ([A, [0, 1], [True]], EinsumTypeError, "the output has an index of type bool|[True]| ^^^^"),
    (
        [A, [0, 1], A, [0, {}]],
        EinsumTypeError,
        "operand 1 has an index of type dict|[0, {}]|    ^^",
    ),
    (
        [A, ["i", (0,)]],
        EinsumTypeError,
        "the indices cannot be sorted: they are of types str and tuple",
    ),
    ([A, "ij"], EinsumTypeError, "operand 0 needs a list or tuple of indices, not str"),
    ([A, [0, 1], 5], EinsumTypeError, "the output needs a list or tuple of indices, not int"),
    ([A, A], EinsumTypeError, "operand 0 needs a list or tuple of indices, not ndarray"),
    ([A], EinsumError, "there must be an equation and its operands, or an operand and its list"),
    ([], EinsumError, "there must be an equation and its operands, or an operand and its list"),
    ([b"ij", A], EinsumTypeError, "the equation must be a str, not bytes"),
]


@pytest.mark.parametrize(("args", "kind", "message"), INTERLEAVED)
def test_message_of_an_interleaved_call(
    args: list[Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        from_call(args)
    assert type(caught.value) is kind
    assert str(caught.value) == message.replace("|", "\n    ")


def test_the_types_are_those_numpy_raises() -> None:
    assert issubclass(EinsumError, ValueError)
    assert issubclass(EinsumTypeError, TypeError)


@pytest.mark.parametrize(
    ("text", "span", "line"),
    [
        ("京都,都$", (4, 5), "           ^"),  # wide characters take two columns
        ("京都,都", (3, 4), "         ^^"),
        ("e\u0301i$", (3, 4), "      ^"),  # a combining mark takes none
        ("e\u0301i", (1, 2), "    ^"),  # and is pointed at where it is drawn
        ("a\tb\n$", (4, 5), "        ^"),  # on one line
        ("", (0, 0), "    ^"),
    ],
)
def test_carets_count_columns(text: str, span: tuple[int, int], line: str) -> None:
    lines = str(EinsumError("wrong", text, span)).split("\n")
    assert len(lines) == 3
    assert lines[2] == line


@pytest.mark.parametrize("place", [0, 50, 5000, 9999])
def test_a_long_equation_is_cropped_around_the_caret(place: int) -> None:
    text = "i," * 5000
    text = f"{text[:place]}${text[place + 1 :]}"
    _, line, carets = str(EinsumError("wrong", text, (place, place + 1))).split("\n")
    assert line[carets.index("^")] == "$"
    assert len(line) < 210


@pytest.mark.parametrize("kind", [EinsumError, EinsumTypeError])
def test_survives_pickle_and_copy(kind: type[EinsumError]) -> None:
    error = kind("wrong", "i$", (1, 2))
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == str(error)
        assert (again.message, again.text, again.span) == ("wrong", "i$", (1, 2))
