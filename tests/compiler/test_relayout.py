"""Operands that are copied into the order in which a step reads them."""

import numpy as np
import pytest
from einsumc import compile_einsum, einsum

CASES = {
    "lanes": ("ijk,kj->i", {"i": 90, "j": 40, "k": 50}, 1),
    "scattered": ("bji,jkb->bki", {"b": 300, "j": 30, "i": 20, "k": 40}, 1),
    # Few enough lines stay in the first cache until their neighbours are read.
    "near": ("bji,jkb->bki", {"b": 300, "j": 8, "i": 20, "k": 10}, 0),
    # Each element is used too rarely for a copy to pay.
    "once": ("bji,jkb->bki", {"b": 300, "j": 30, "i": 4, "k": 40}, 0),
    "in order": ("bji,bjk->bki", {"b": 300, "j": 30, "i": 20, "k": 40}, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_badly_read_is_copied_first(name):
    equation, sizes, copies = CASES[name]
    random = np.random.default_rng(0)
    terms = equation.partition("->")[0].split(",")
    arrays = [random.integers(-9, 10, [sizes[i] for i in term]).astype("f8") for term in terms]
    plan = compile_einsum(equation).explain(*arrays)
    assert len(plan.steps) == 1 + copies
    assert all(step.recipe != "packed" for step in plan.steps)
    found = einsum(equation, *arrays)
    np.testing.assert_array_equal(found, np.einsum(equation, *arrays, optimize=True))
