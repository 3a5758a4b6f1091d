"""Rounding: squared norms are not negative, and f4 keeps within its bound of f8 where sums cancel.

With u the unit roundoff of f4 and K the longest sum, a squared norm in any form is off by at most
`(K + 2) u (sum_t |g[t]| |x[t]|)**2`: see `docs/algebra.md`.
"""

import numpy as np
import pytest
from einsumc import compile_einsum, gradnorms

UNIT = 2.0**-24


def cancelling(seed, steps=8, inner=40, outer=30, left=1e-6):
    """Inputs and gradients whose products nearly cancel, step by step in pairs: f4."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(4, steps // 2, inner))
    g = random.normal(size=(4, steps // 2, outer))
    x = np.concatenate([x, x * (1 + left * random.normal(size=(4, steps // 2, 1)))], axis=1)
    g = np.concatenate([g, -g], axis=1)
    return x.astype("f4"), g.astype("f4")


def bound(x, g):
    """What a squared norm may be off by, for each example."""
    longest = max(x.shape[1] ** 2, x.shape[2], g.shape[2], x.shape[2] * g.shape[2])
    sizes = np.linalg.norm(g, axis=2) * np.linalg.norm(x, axis=2)
    return (longest + 2) * UNIT * sizes.sum(axis=1) ** 2


def exact(x, g):
    return np.einsum("nto,nti->noi", g.astype("f8"), x.astype("f8"))


SHAPES = [(2, 40, 30), (8, 40, 30), (32, 4, 3), (64, 200, 10), (4, 300, 300)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("left", [0.0, 1e-7, 1e-3, 1.0])
def test_squared_norms_of_gradients_that_cancel(shape, left):
    for seed in range(3):
        x, g = cancelling(seed, *shape, left=left)
        squares = (exact(x, g) ** 2).sum(axis=(1, 2))
        layer = gradnorms.Linear(g, x, bias=False)
        found = gradnorms.squared_norms(layer)
        assert (found >= 0).all()
        assert (np.abs(found - squares) <= bound(x, g)).all()
        norms = gradnorms.norms(layer)
        assert np.isfinite(norms).all()
        off = np.minimum(bound(x, g) / np.sqrt(np.maximum(squares, 1e-30)), np.sqrt(bound(x, g)))
        assert (np.abs(norms - np.sqrt(squares)) <= off + 4 * UNIT * np.sqrt(squares)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_clipped_sums_of_gradients_that_cancel(shape):
    x, g = cancelling(0, *shape, left=1e-3)
    layer = gradnorms.Linear(g, x, bias=False)
    gradients = exact(x, g)
    coefficients = gradnorms.clip_coefficients(layer, 1e-3)
    assert ((coefficients >= 0) & (coefficients <= 1)).all()
    sums = gradnorms.clipped_sums(layer, 1e-3)["weight"]
    expected = np.einsum("n,noi->oi", coefficients.astype("f8"), gradients)
    terms = np.einsum("n,nto,nti->oi", coefficients, np.abs(g), np.abs(x))
    assert (np.abs(sums - expected) <= (x.shape[1] * 4 + 2) * UNIT * terms).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_written_as_a_sum_of_squares_is_not_negative(shape):
    @compile_einsum
    def norms(x, g):
        gradient = np.einsum("nto,nti->noi", g, x)
        return np.sqrt((gradient * gradient).sum(axis=(1, 2)))

    for seed in range(5):
        x, g = cancelling(seed, *shape, left=1e-7)
        found = norms(x, g)
        assert (found >= 0).all()  # and not NaN
        assert (found**2 <= bound(x, g)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beside", [False, True])
def test_weights_of_a_sum_of_squares_have_its_sign(shape, beside):
    @compile_einsum
    def weighted(x, g, w):
        gradient = np.einsum("nto,nti->noi", g, x)
        if beside:
            return (gradient * gradient * w[:, None, None]).sum(axis=(1, 2))
        return np.einsum("noi,n,noi->n", gradient, w, gradient)

    w = np.array([2, -2, 0, 1], "f4")
    for seed in range(5):
        x, g = cancelling(seed, *shape, left=1e-7)
        found = weighted(x, g, w)
        assert (found * w >= 0).all()
        assert (np.abs(found) <= 2 * bound(x, g)).all()
        x, g = cancelling(seed, *shape, left=1.0)
        squares = (exact(x, g) ** 2).sum(axis=(1, 2))
        assert (np.abs(weighted(x, g, w) - squares * w) <= 2 * bound(x, g)).all()


def test_weights_that_are_no_weights_of_whole_sums():
    """They stay where they are: summed over, of an index of their own, or products themselves."""

    def body(x, g, w, v):
        gradient = np.einsum("nto,nti->noi", g, x)
        return (
            np.einsum("noi,noi,n->", gradient, gradient, w),
            np.einsum("noi,noi,i->n", gradient, gradient, v),
            np.einsum("noi,noi,k->nk", gradient, gradient, v),
            np.einsum("noi,noi,n,n,n->n", gradient, gradient, w, w, w),
            np.einsum("noi,noi,nk,k->n", gradient, gradient, w[:, None] * v, v),
        )

    random = np.random.default_rng(0)
    shapes = (3, 4, 6), (3, 4, 5), (3,), (6,)
    operands = [random.integers(-3, 4, shape).astype("f8") for shape in shapes]
    for found, expected in zip(compile_einsum(body)(*operands), body(*operands), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_other_products_keep_their_sign():
    function = compile_einsum(lambda a, b, c: np.einsum("ij,ij->", a @ b, c))
    a, b = -np.ones((3, 4), "f4"), np.ones((4, 5), "f4")
    assert function(a, b, np.ones((3, 5), "f4")) == -60
    function = compile_einsum(lambda a, b: ((g := a @ b) * g * (a @ b)).sum())
    assert function(a, b) == -64 * 15


def test_embeddings_and_tied_tables_are_not_negative():
    x, g = cancelling(3, 8, 5, 5, left=0.0)
    ids = np.zeros((4, 8), int)
    ids[:, 1] = 1
    assert (gradnorms.squared_norms(gradnorms.Embedding(ids, g)) >= 0).all()
    tied = gradnorms.tied(ids, g, x, g)
    assert (gradnorms.squared_norms(tied) >= 0).all()
    assert (gradnorms.squared_norms_by_layer({"tied": tied})["tied"] >= 0).all()
