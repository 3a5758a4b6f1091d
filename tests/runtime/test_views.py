"""Results that are views, and outputs that are diagonals."""

import numpy as np
import pytest
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.runtime.views import as_view, distinct_output


def resolved(text, *arrays):
    return resolve(parse(text), [array.shape for array in arrays])


@pytest.mark.parametrize(
    "equation", ["ij", "ij->ji", "ii->i", "iij->ji", "ijij->ij", "iii->i", "jii->ij", "...i->i..."]
)
def test_views_are_numpys(equation):
    rank = len(equation.split("->", maxsplit=1)[0].replace("...", "ab"))
    array = np.arange(3.0**rank).reshape((3,) * rank)
    view = as_view(resolved(equation, array))
    assert view is not None
    expected = np.einsum(equation, array)
    result = view(array)
    assert np.array_equal(result, expected)
    assert result.strides == expected.strides
    assert result.base is array.base
    assert result.flags.writeable
    array.flags.writeable = False
    assert not view(array).flags.writeable


@pytest.mark.parametrize("equation", ["i->", "ij->i", "ii->", "ii", "i->ii", "i,i->i"])
def test_what_computes_is_no_view(equation):
    arrays = [np.ones((2,) * len(term)) for term in equation.split("->")[0].split(",")]
    assert as_view(resolved(equation, *arrays)) is None


@pytest.mark.parametrize("equation", ["i->ii", "ij->iji", "ij->jiijj", "ijk->kiji"])
def test_a_repeated_output_is_a_diagonal_of_out(equation):
    inputs, output = equation.split("->")
    array = np.random.default_rng(0).random(tuple(range(2, 2 + len(inputs))))
    expression, part = distinct_output(resolved(equation, array))
    names = [str(axis) for axis in expression.output]
    assert sorted(names) == sorted(inputs)
    out = np.zeros([array.shape[inputs.index(name)] for name in output])
    part(out)[...] = np.einsum(f"{inputs}->{''.join(names)}", array)
    for at in np.ndindex(out.shape):
        index = dict(zip(output, at, strict=True))
        inside = all(index[name] == i for name, i in zip(output, at, strict=True))
        assert out[at] == (array[tuple(index[name] for name in inputs)] if inside else 0)


def test_a_plain_output_is_left_alone():
    expression = resolved("ij->ji", np.ones((2, 3)))
    same, part = distinct_output(expression)
    out = np.ones((3, 2))
    assert same is expression
    assert part(out) is out
