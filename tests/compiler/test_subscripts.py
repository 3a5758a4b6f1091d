"""What NumPy accepts means the same here, what it rejects is rejected, and the extensions work."""

import itertools
import re

import numpy as np
import pytest
from einsumc.compiler.affine import Affine
from einsumc.compiler.errors import EinsumError
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import Expression, Subscripts, parse
from hypothesis import example, given
from hypothesis import strategies as st
from sweeps import examples

Shapes = list[tuple[int, ...]]


def check(text: str, *shapes: tuple[int, ...]) -> Expression:
    return resolve(parse(text), shapes)


def written(subscripts: Subscripts) -> list[str]:
    terms = [*subscripts.inputs, *([subscripts.output] if subscripts.output else [])]
    return [" ".join(term.names) for term in terms]


def inputs(expression: Expression) -> list[str]:
    return [
        " ".join("1" if axis is None else str(axis) for axis in axes) for axes in expression.inputs
    ]


def evaluate(expression: Expression, operands: list[np.ndarray]) -> np.ndarray:
    """The sum over all indices of the product of what is read: slow and obviously right."""
    result = np.zeros(expression.output_shape, int)
    names = list(expression.sizes)
    for values in itertools.product(*map(range, expression.sizes.values())):
        at = dict(zip(names, values, strict=True))
        product = 1
        for operand, axes in zip(operands, expression.inputs, strict=True):
            product *= operand[tuple(0 if axis is None else axis.evaluate(at) for axis in axes)]
        result[tuple(axis.evaluate(at) for axis in expression.output)] += product
    return result


# --- against NumPy --------------------------------------------------------------------------------


def einsum(text: str, operands: list[np.ndarray], optimize: bool) -> np.ndarray | None:
    try:
        return np.asarray(np.einsum(text, *operands, optimize=optimize))
    except (ValueError, IndexError):  # IndexError: a fault of numpy's own parser
        return None


def is_extension(text: str) -> bool:
    """Whether the text may mean more here than it does to NumPy."""
    subscripts = parse(text)
    output = subscripts.output.names if subscripts.output else ()
    return subscripts.numpy is not None or len(set(output)) < len(output)


def agrees_with_numpy(text: str, shapes: Shapes) -> None:
    operands = [np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape) for shape in shapes]
    plain, optimized = (einsum(text, operands, optimize) for optimize in (False, True))
    try:
        expression = check(text, *shapes)
    except EinsumError as error:
        # NumPy gives ii->i of shape (0, 3) three elements, read from outside the array.
        diagonal = re.search(r"has size 0 in (operand \d).* in \1", error.message)
        assert plain is None or diagonal
        return
    expected = optimized if plain is None else plain
    if expected is None:
        assert is_extension(text)
    else:
        np.testing.assert_array_equal(evaluate(expression, operands), expected, strict=True)
    assert check(expression.text, *shapes) == expression


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, Shapes]:
    """Equations that are mostly right, with shapes that mostly fit them."""
    sizes = dict(zip("abAZ", draw(st.tuples(*[st.integers(0, 3)] * 4)), strict=True))
    broadcast = draw(st.lists(st.integers(0, 3), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        term: list[str] = list(draw(st.text("abAZ", max_size=3)))
        shape = [sizes[letter] for letter in term]
        if draw(st.booleans()):
            at = draw(st.integers(0, len(term)))
            term.insert(at, "...")
            shape[at:at] = broadcast[draw(st.integers(0, len(broadcast))) :]
        shape = [draw(st.sampled_from([n, n, n, n, n, n, 1, 2])) for n in shape]
        terms.append(term)
        shapes.append(tuple(shape))
    if draw(st.integers(0, 9)) == 0:
        shapes[draw(st.integers(0, len(shapes) - 1))] += (2,)
    text = ",".join(map("".join, terms))
    if draw(st.booleans()):
        used = sorted({item for term in terms for item in term})
        output = draw(st.permutations(used))[: draw(st.integers(0, len(used)))]
        text += "->" + "".join(output) + draw(st.sampled_from([""] * 9 + ["a"]))
    spaced = draw(st.lists(st.integers(0, len(text)), max_size=4))
    for place in sorted(spaced, reverse=True):
        text = f"{text[:place]} {text[place:]}"
    return text, shapes


@given(equations())
@examples(250)
def test_equations_agree_with_numpy(case: tuple[str, Shapes]) -> None:
    agrees_with_numpy(*case)


@given(
    st.text("ab.,-> ", max_size=9) | st.text("aé1_>.-", max_size=4),
    st.lists(st.lists(st.integers(0, 2), max_size=3).map(tuple), min_size=1, max_size=3),
)
@example("- >", [()])
@example(". ..", [(2, 1)])
@examples(250)
def test_any_text_agrees_with_numpy(text: str, shapes: Shapes) -> None:
    if text.isascii():
        agrees_with_numpy(text, shapes)
    else:  # numpy has ASCII letters only; here nothing but an EinsumError may come
        try:
            check(text, *shapes)
        except EinsumError as error:
            assert "^" in str(error)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("ij,jk->ik", [(2, 1), (3, 2)]),
        ("ij,ij", [(1, 3), (2, 1)]),
        ("i,i->i", [(0,), (1,)]),
        ("ij,jk->ik", [(2, 0), (0, 3)]),
        ("ii,i->i", [(1, 1), (3,)]),
        ("ii,i->i", [(3, 3), (1,)]),
        ("ii", [(1, 3)]),
        ("iii->i", [(1, 2, 2)]),
        (",->", [(), ()]),
        ("->", [()]),
        ("", [()]),
        (",", [(), ()]),
        ("i,", [(3,), ()]),
        ("aB,Bc", [(2, 3), (3, 2)]),
        ("bA", [(2, 3)]),
        ("...i,...i->...", [(2, 1, 3), (2, 3, 1)]),
        ("i...j->...ij", [(2, 3, 2)]),
        ("i...,i...", [(2, 3), (2,)]),
        ("i->i...", [(3,)]),
        ("ij->...", [(2, 2)]),
        ("...->...", [()]),
        ("... i->i ...", [(2, 3)]),
        (" i j , j k -> i k ", [(2, 3), (3, 2)]),
        ("...i->i", [(2, 3)]),  # the ellipsis is summed, as with optimize=True
        ("...,...->", [(2,), (2,)]),
    ],
)
def test_cases_that_agree_with_numpy(text: str, shapes: Shapes) -> None:
    agrees_with_numpy(text, shapes)


# --- the expression -------------------------------------------------------------------------------


def test_expression_of_a_matrix_product() -> None:
    expression = check(" ij, jk", (2, 3), (3, 4))
    i, j, k = map(Affine.index, "ijk")
    assert expression == Expression(
        inputs=((i, j), (j, k)),
        output=(i, k),
        extents=(("i", 2), ("j", 3), ("k", 4)),
        text="ij,jk->ik",
        shapes=((2, 3), (3, 4)),
        output_shape=(2, 4),
    )
    assert str(expression) == "ij,jk->ik"
    assert expression.sizes == {"i": 2, "j": 3, "k": 4}
    assert expression.output_shape == (2, 4)


def test_an_axis_of_one_that_broadcasts_is_none() -> None:
    expression = check("ij,jk,k->ik", (2, 1), (5, 1), (1,))
    assert inputs(expression) == ["i 1", "j k", "k"]  # k is 1 everywhere
    assert expression.sizes == {"i": 2, "j": 5, "k": 1}


def test_axes_of_an_ellipsis_are_aligned_at_the_right() -> None:
    expression = check("...i,j...->...", (7, 1, 3, 2), (5, 8, 3))
    assert inputs(expression) == ["...0 1 ...2 i", "j ...1 ...2"]
    assert expression.extents == (
        ("...0", 7),
        ("...1", 8),
        ("...2", 3),
        ("i", 2),
        ("j", 5),
    )
    assert expression.output_shape == (7, 8, 3)


def test_a_repeated_output_index_is_allowed() -> None:
    expression = check("i->ii", (2,))
    assert evaluate(expression, [np.array([3, 4])]).tolist() == [[3, 0], [0, 4]]


def test_extents_become_plain_integers() -> None:
    expression = resolve(parse("i"), [(np.int64(3),)])  # type: ignore[list-item]
    assert type(expression.sizes["i"]) is int


def test_spans_are_places_in_the_text() -> None:
    subscripts = parse(" row k,  k...-> row ...")
    terms = [*subscripts.inputs, subscripts.output]
    assert [subscripts.text[slice(*term.span)] for term in terms if term] == [
        "row k",
        "k...",
        "row ...",
    ]
    places = [axis.span for term in terms if term for axis in term.axes]
    assert [subscripts.text[slice(*span)] for span in places] == ["row", "k", "k", "row"]
    assert [term.ellipsis for term in terms if term] == [None, 1, 1]
    assert subscripts.text[slice(*subscripts.inputs[1].ellipsis_span)] == "..."


# --- letters and names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        # No term is spaced: letters.
        ("ij,jk->ik", ["i j", "j k", "i k"]),
        ("ij, jk -> ik", ["i j", "j k", "i k"]),
        ("batch, batch -> b", ["b a t c h", "b a t c h", "b"]),
        ("ij...k->i", ["i j k", "i"]),
        ("... ij, ... jk -> ... ik", ["i j", "j k", "i k"]),
        # No spaced term has an index of several letters: letters.
        ("i j, j k -> i k", ["i j", "j k", "i k"]),
        ("i j, jk -> ik", ["i j", "j k", "i k"]),
        ("i ... j, jk -> ik", ["i j", "j k", "i k"]),
        # One has: names, in the whole equation.
        ("batch q d, batch k d -> batch q k", ["batch q d", "batch k d", "batch q k"]),
        ("batch head q d, batch head k d", ["batch head q d", "batch head k d"]),
        ("head, head q -> q", ["head", "head q", "q"]),
        ("x, y -> row x y", None),
        ("x, row -> x row", ["x", "row", "x row"]),
        ("q1 k_2, k_2 -> q1", ["q1 k_2", "k_2", "q1"]),
        ("... row c -> row ...", ["row c", "row"]),
        ("row ...c -> c", ["row c", "c"]),
        ("élan β -> β", ["élan β", "β"]),
        ("batch\n q", ["batch q"]),
        # Any Unicode letter, and the other symbols of opt_einsum.
        ("αβ,βγ->αγ", ["α β", "β γ", "α γ"]),
        ("京都->都", ["京 都", "都"]),
        ("µ×÷->µ", ["µ × ÷", "µ"]),
    ],
)
def test_letters_or_names(text: str, terms: list[str] | None) -> None:
    if terms is None:
        with pytest.raises(EinsumError):
            parse(text)
    else:
        assert written(parse(text)) == terms


def test_numpy_keeps_its_reading_of_a_spaced_text() -> None:
    text = "ab cd, cd -> ab"
    assert str(check(text, (2, 3, 4, 5), (4, 5))) == "abcd,cd->ab"
    assert str(check(text, (2, 3), (3,))) == "ab cd, cd -> ab"
    # Only NumPy's reading has an i.
    assert str(check("ij k, k -> i", (2, 3, 4), (4,))) == "ijk,k->i"
    # Only names do here, since NumPy may not repeat an index of the output.
    assert str(check("aa b -> aa b", (2, 3))) == "aa b -> aa b"


def test_with_an_ellipsis_numpy_decides_where_both_readings_fit() -> None:
    assert str(check("... ab c -> c", (2, 3))) == "... ab c -> c"
    assert str(check("... ab c -> c", (2, 3, 4))) == "...abc->c"


@given(equations())
@examples(100)
def test_names_mean_what_letters_do(case: tuple[str, Shapes]) -> None:
    """Each letter written as a name, beside a spaced term to say so."""
    text, shapes = "xy," + case[0].replace(" ", ""), [(2, 3), *case[1]]
    names = dict(zip("AZabxy", ["Alpha", "Zeta", "alpha", "beta_2", "x_1", "y_1"], strict=True))
    spaced = re.sub("[A-Za-z]", lambda letter: f" {names[letter[0]]} ", text)
    try:
        expression = check(text, *shapes)
    except EinsumError:
        with pytest.raises(EinsumError):
            check(spaced, *shapes)
    else:
        named = check(spaced, *shapes)
        assert named.extents == tuple((names.get(i, i), n) for i, n in expression.extents)
        assert named.output_shape == expression.output_shape
        assert check(named.text, *shapes) == named
