"""All forms of a call mean what they mean to NumPy, opt_einsum and torch."""

import string
from typing import Any

import numpy as np
import pytest
from einsumc.compiler.arguments import from_call, from_interleaved
from einsumc.compiler.errors import EinsumError, EinsumTypeError
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import Expression, parse


def call(*args: Any) -> Expression:
    subscripts, operands = from_call(args)
    return resolve(subscripts, [np.shape(operand) for operand in operands])


A, B, V = np.ones((2, 3)), np.ones((3, 4)), np.ones(3)


@pytest.mark.parametrize(
    "args",
    [
        (A, [0, 1], B, [1, 2], [0, 2]),
        (A, [0, 1], B, [1, 2]),
        (A, [26, 0], B, [0, 51]),
        (A, (27, 0)),
        (A, [..., 1], [...]),
        (A, [0, ...], B, [..., 2], [2, 0]),
        (A, [0, 1], [..., 1]),
        (A, np.array([1, 0])),
        (A, range(2), [np.int64(1)]),
        (1.0, []),
        (1.0, [], []),
    ],
)
def test_interleaved_calls_agree_with_numpy(args: tuple[Any, ...]) -> None:
    try:
        expected = np.einsum(*args)
    except ValueError:
        expected = np.einsum(*args, optimize=True)
    expression = call(*args)
    assert expression.output_shape == np.shape(expected)
    shapes = [np.shape(array) for array in args[: len(args) // 2 * 2 : 2]]
    assert resolve(parse(expression.text), shapes) == expression


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((A, [0, 1], B, [1, 2], [0, 2]), "AB,BC->AC"),
        ((A, ["i", "j"], B, ["j", "k"]), "ij,jk->ik"),
        ((A, ["row", "k"], B, ["k", "col"]), "row k, k col -> col row"),
        ((A, ["row", "k"], []), "row k ->"),
        ((A, [..., "k"], B, ["k", "col"]), "... k, k col -> ... col"),
        ((A, [(1, 0), (0, 1)]), "BA->AB"),  # lettered in their order
        ((A, ["a b", "c"]), "AB->AB"),
    ],
)
def test_labels_of_an_interleaved_call(args: tuple[Any, ...], text: str) -> None:
    assert str(call(*args)) == text


def test_many_labels_keep_their_order() -> None:
    labels = [(n,) for n in range(60)]
    subscripts, _ = from_interleaved([np.ones((1,) * 60), labels])
    assert list(subscripts.inputs[0].names) == sorted(subscripts.inputs[0].names)
    assert subscripts.inputs[0].names[:52] == tuple(string.ascii_uppercase + string.ascii_lowercase)


def test_a_list_of_operands_as_torch_takes_it() -> None:
    assert call("ij,jk->ik", [A, B]).output_shape == (2, 4)
    assert call("i->i", [V]).output_shape == (3,)
    assert call("ij->ij", [V]).output_shape == (1, 3)  # to NumPy the list is an array
    assert call("...i->...i", [V]).output_shape == (1, 3)
    assert call("i->i", [1, 2]).output_shape == (2,)
    with pytest.raises(EinsumError, match="2 terms but there are 3 operands"):
        call("ij,jk->ik", [A, B, V])


def test_the_equation_must_be_text() -> None:
    with pytest.raises(EinsumTypeError, match="must be a str, not NoneType"):
        parse(None)  # type: ignore[arg-type]
