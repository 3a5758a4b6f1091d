"""Common factors are taken out of sums where that is cheaper."""

import numpy as np
import pytest
from einsumc import compile_einsum, einsum

SQUARE = [np.random.default_rng(n).normal(size=(60, 60)) for n in range(4)]

FUNCTIONS = {
    "two products": (
        lambda a, b, c, d: a @ b + a @ c,
        "t2[j0,k] = b[j0,k] + c[j0,k]; out[i,k] = sum_j0 a[i,j0] * t2[j0,k]",
    ),
    "einsums": (
        lambda a, b, c, d: np.einsum("ij,jk->ik", a, b) + np.einsum("ij,jk->ik", a, c),
        "t2[j0,k] = b[j0,k] + c[j0,k]; out[i,k] = sum_j0 a[i,j0] * t2[j0,k]",
    ),
    "a difference within a formula": (
        lambda a, b, c, d: np.tanh(b @ a - c @ a + 1.0),
        "t2[i,j0] = b[i,j0] - c[i,j0]; out[i,k] = tanh((sum_j0 a[j0,k] * t2[i,j0]) + 1)",
    ),
    "three products, one of them turned": (
        lambda a, b, c, d: a @ b + a @ c - einsum("ij,kj->ik", a, d),
        "t3[j0,k] = (b[j0,k] + c[j0,k]) - d[k,j0]; out[i,k] = sum_j0 a[i,j0] * t3[j0,k]",
    ),
    "what is subtracted": (
        lambda a, b, c, d: d - a @ b - a @ c,
        "t2[j0,j] = b[j0,j] + c[j0,j]; out[i,j] = d[i,j] - (sum_j0 a[i,j0] * t2[j0,j])",
    ),
    "two common factors": (
        lambda a, b, c, d: np.einsum("ij,jk,kl->il", a, b, d) + np.einsum("ij,jk,kl->il", a, c, d),
        "t2[j0,k0] = b[j0,k0] + c[j0,k0]; t0[i,k0] = sum_j0 a[i,j0] * t2[j0,k0]; "
        "out[i,l] = sum_k0 t0[i,k0] * d[k0,l]",
    ),
    "nothing in common": (lambda a, b, c, d: a @ b + c @ d, None),
    "other indices": (lambda a, b, c, d: a @ b + c @ a, None),
    "read twice": (lambda a, b, c, d: ((made := a @ b) + a @ c, made), None),
    "a product of sums": (lambda a, b, c, d: (a @ b) * (a @ c), None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_sums_have_in_common(name):
    function, expected = FUNCTIONS[name]
    compiled = compile_einsum(function)
    plan = compiled.explain(*SQUARE)
    if expected is None:
        assert "common factors" not in plan.factorization.chosen
    else:
        assert "common factors" in plan.factorization.chosen
        assert "; ".join(step.statement for step in plan.steps) == expected
    found, right = compiled(*SQUARE), function(*SQUARE)
    for one, other in zip(np.atleast_3d(found), np.atleast_3d(right), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_the_predicted_time_decides():
    function = compile_einsum(lambda a, b, c: a @ c + b @ c)
    tall, short = np.ones((5_000, 4)), np.ones((4, 1))
    found = function.explain(tall, tall * 2, short).factorization
    names = [name for name, _ in found.candidates]
    assert names[0] == "as written"
    assert any(name.startswith("common factors") for name in names)
    assert found.cost.seconds == min(cost.seconds for _, cost in found.candidates)
    np.testing.assert_allclose(function(tall, tall * 2, short), np.full((5_000, 1), 12.0))


def test_other_types_are_left_alone():
    whole = [np.arange(36).reshape(6, 6) % 5 for _ in range(3)]
    function = compile_einsum(lambda a, b, c: a @ b + a @ c)
    np.testing.assert_array_equal(function(*whole), whole[0] @ whole[1] + whole[0] @ whole[2])
    halves = [each.astype("f2") for each in whole]
    np.testing.assert_allclose(
        function(*halves), halves[0] @ halves[1] + halves[0] @ halves[2], rtol=1e-2
    )
