"""Results of functions that are parts of what is computed, or more than it."""

import numpy as np
import pytest
from einsumc import compile_einsum

PARTS = {
    "rows of sums": lambda x: np.einsum("ab,ab->a", x, x)[:3],
    "sums": lambda x: x.sum(axis=1)[:2],
    "rows of a product": lambda x: (x @ x.T)[:2],
    "a corner of a product": lambda x: (x @ x.T)[:2, :3],
    "turned": lambda x: np.einsum("ab,cb->ac", x, x)[:3].T,
    "two parts": lambda x: (x.sum(axis=1)[:3], x.sum(axis=1)[1:]),
    "the end": lambda x: x.sum(axis=1)[2:],
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_what_is_computed(name):
    """What is written ends with the result: the bytes behind it stay as they were."""
    function, x = PARTS[name], np.arange(20.0).reshape(5, 4)
    wanted = function(x)
    found = compile_einsum(function)(x)
    for got, expected in zip(
        *(r if isinstance(r, tuple) else (r,) for r in (found, wanted)), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    if not isinstance(wanted, tuple):
        around = np.full(wanted.size + 64, 7.0)
        out = around[: wanted.size].reshape(wanted.shape)
        np.testing.assert_array_equal(compile_einsum(function)(x, out=out), wanted)
        np.testing.assert_array_equal(around[wanted.size :], 7)


PADDED = {
    "a view of one row": lambda x: np.pad(x[:, 1:], [(0, 1), (0, 0)]) * 1,
    "itself": lambda x: np.pad(x, [(0, 1), (0, 0)]) * 1,
    "with steps": lambda x: np.pad(x[:, 1:], [(0, 2), (0, 0)])[:, ::3] * 1,
    "summed": lambda x: np.einsum("ab->a", np.pad(2 * x[:, 1:], [(0, 1), (0, 3)])),
}


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("rows", [1, 3])
def test_zeros_behind_what_is_padded(name, rows):
    x = np.arange(1.0, 4 * rows + 1).reshape(rows, 4)
    np.testing.assert_array_equal(compile_einsum(PADDED[name])(x), PADDED[name](x))
