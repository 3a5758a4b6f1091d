"""Parts of formulas that are computed for fewer elements than they are written for."""

import numpy as np
import pytest
from einsumc import compile_einsum


def steps_of(function, *operands):
    """What the steps of a call compute, and how the kernels are made."""
    execution = function.planned(*operands)[1]
    return [str(statement) for statement in execution.program.statements]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_what_depends_on_few_indices_is_computed_where_it_is_made(rng):
    @compile_einsum
    def normalized(x):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return centred / np.sqrt(variance + 1e-5)

    x = rng.standard_normal((40, 300)).astype("f4")
    steps = steps_of(normalized, x)
    np.testing.assert_allclose(normalized(x), normalized.__wrapped__(x), rtol=2e-6, atol=2e-6)
    assert "/ 300" in steps[0]
    assert "sqrt" not in steps[-1]
    assert sum("sqrt" in step for step in steps) == 1


def test_only_parts_without_the_sum_itself_are_computed_apart(rng):
    @compile_einsum
    def shifted(x, y):
        total = x.sum(-1, keepdims=True)
        return np.exp(x - total / 7) * (total > 0), np.tanh(y * (total / 7)), total

    x, y = rng.integers(-3, 4, (2, 16, 90)).astype("f8")
    for got, expected in zip(shifted(x, y), shifted.__wrapped__(x, y), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_sums_of_integers_keep_their_types(rng):
    @compile_einsum
    def scaled(x):
        total = x.sum(-1, keepdims=True)
        return x * (total / 3), x * np.minimum(total, 2)

    x = rng.integers(-3, 4, (16, 90)).astype("i4")
    for got, expected in zip(scaled(x), scaled.__wrapped__(x), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-13)
