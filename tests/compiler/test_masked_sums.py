"""Masked sums: those that no element of a register tile needs are left out."""

import numpy as np
import pytest
from einsumc import compile_einsum


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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
    n, d = 20, 70
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

    ids = rng.integers(0, 9, (40, 64))
    a = rng.integers(-2, 3, (40, 64, 96)).astype("f4")
    np.testing.assert_array_equal(ordered(ids, a), ordered.__wrapped__(ids, a))
