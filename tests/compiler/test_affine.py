"""An affine expression is canonical, prints as it is written, and evaluates."""

import pickle

import pytest
from einsumc.compiler.affine import Affine
from einsumc.compiler.subscripts import parse_axis
from hypothesis import given
from hypothesis import strategies as st

affines = st.builds(
    Affine,
    st.lists(st.tuples(st.sampled_from(["i", "k", "y", "row"]), st.integers(-3, 3))).map(tuple),
    st.integers(-9, 9),
)


def test_terms_are_merged_sorted_and_without_zeros() -> None:
    axis = Affine((("y", 1), ("k", 1), ("y", 1), ("z", 0)), -1)
    assert axis.terms == (("k", 1), ("y", 2))
    assert axis == Affine((("y", 2), ("k", 1)), -1)
    assert hash(axis) == hash(Affine((("y", 2), ("k", 1)), -1))
    assert axis.names == ("k", "y")


@pytest.mark.parametrize(
    ("axis", "text"),
    [
        (Affine.index("i"), "i"),
        (Affine((("y", 2), ("k", 1)), -1), "2*y+k-1"),
        (Affine((("y", 1), ("k", -1))), "y-k"),
        (Affine((("y", -2),), 3), "-2*y+3"),
        (Affine((("y", 1), ("y", -1))), "0"),
        (Affine((), -4), "-4"),
    ],
)
def test_text(axis: Affine, text: str) -> None:
    assert str(axis) == text


def test_only_a_lone_name_is_an_index() -> None:
    assert Affine.index("row").is_index
    for terms, constant in [((("i", 2),), 0), ((("i", 1),), 1), ((("i", 1), ("j", 1)), 0), ((), 0)]:
        assert not Affine(terms, constant).is_index


@given(affines)
def test_print_and_parse_are_inverse(axis: Affine) -> None:
    assert parse_axis(str(axis), (0, len(str(axis)))) == axis


@given(
    affines, affines, st.fixed_dictionaries(dict.fromkeys(["i", "k", "y", "row"], st.integers()))
)
def test_value_is_linear(a: Affine, b: Affine, values: dict[str, int]) -> None:
    total = Affine(a.terms + b.terms, a.constant + b.constant)
    assert total.evaluate(values) == a.evaluate(values) + b.evaluate(values)
    assert a.evaluate(values) == eval(str(a), {}, values)


def test_a_missing_value_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Affine.index("i").evaluate({})


@given(affines)
def test_pickles(axis: Affine) -> None:
    assert pickle.loads(pickle.dumps(axis)) == axis
