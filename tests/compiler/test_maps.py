"""What is computed for fewer elements than it is written for: maps of sums, and masked sums."""

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


def masked(equal):
    """Sums over pairs of rows whose numbers are equal, or are not."""

    def body(ids, others, a, b):
        same = ids[:, :, None] == others[:, None, :]
        products = np.einsum("nti,nsi->nts", a, b)
        kept = np.where(same, products, 0) if equal else np.where(same, 2, products)
        return kept.sum((1, 2)), (3 * kept).sum(0)

    return compile_einsum(body)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("t", [1, 5, 16, 37, 130])
@pytest.mark.parametrize("twins", [True, False])
@pytest.mark.parametrize("equal", [True, False])
def test_sums_that_no_element_of_a_tile_needs_are_left_out(rng, t, twins, equal):
    """Also at edges of tiles, and where what is left out would not be a number."""
    n, d = 3, 70
    ids = np.sort(rng.integers(0, max(2, t // 3), (n, t)), axis=1)
    a = rng.integers(-2, 3, (n, t, d)).astype("f4")
    b = a if twins else rng.integers(-2, 3, (n, t + 9, d)).astype("f4")
    others = ids if twins else np.sort(rng.integers(0, t, (n, t + 9)), axis=1)
    function = masked(equal)
    for got, expected in zip(
        function(ids, others, a, b), function.__wrapped__(ids, others, a, b), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    a[0, 0, 0] = np.inf
    for got, expected in zip(
        function(ids, others, a, b), function.__wrapped__(ids, others, a, b), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_a_mask_that_is_not_symmetric_has_no_half(rng):
    """`first` tells the two rows of a pair apart."""

    @compile_einsum
    def ordered(ids, a):
        first = ids[:, :, None] < ids[:, None, :]
        products = np.einsum("nti,nsi->nts", a, a)
        return np.where(first, products, 0).sum((1, 2))

    ids = rng.integers(0, 9, (3, 40))
    a = rng.integers(-2, 3, (3, 40, 64)).astype("f4")
    np.testing.assert_array_equal(ordered(ids, a), ordered.__wrapped__(ids, a))
