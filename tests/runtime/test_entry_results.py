"""Functions with several results in the native entry: what they return, that nothing is lost."""

import gc
import tracemalloc
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from einsumc import compile_einsum
from einsumc.runtime import entry

pytestmark = pytest.mark.skipif(not entry._is_supported(), reason="there is no native entry here")

Both = namedtuple("Both", "product total")

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "tuple": lambda a, b: (a @ b, a * b),
    "scalars": lambda a, b: ((a * b).sum(), a @ b, a.sum(), b.sum()),
    "one in a tuple": lambda a, b: (a @ b,),
    "one in a list": lambda a, b: [a @ b],
    "dict": lambda a, b: {"x": a @ b, "rest": [(a + b).sum(axis=0), {"y": a - b}]},
    "named": lambda a, b: Both(a @ b, (a @ b).sum()),
    "values of its own": lambda a, b: {"rows": a.shape[0], "x": a @ b, "none": None, "text": "t"},
    "transposed": lambda a, b: ((a @ b).T, (a + b).T),
}


def assert_alike(result: Any, expected: Any) -> None:
    assert type(result) is type(expected)
    if isinstance(expected, dict):
        assert list(result) == list(expected)
        result, expected = list(result.values()), list(expected.values())
    if isinstance(expected, tuple | list):
        for each, other in zip(result, expected, strict=True):
            assert_alike(each, other)
    elif isinstance(expected, np.ndarray | np.generic):
        assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(result, expected, rtol=1e-12)
    else:
        assert result == expected


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_structures_of_results(kind: str) -> None:
    function = FUNCTIONS[kind]
    compiled = compile_einsum(function)
    random = np.random.default_rng(1)
    for _ in range(5):
        a, b = random.random((2, 6, 6))
        assert_alike(compiled(a, b), function(a, b))
    native = kind != "transposed"  # whose results are views
    assert bool(hasattr(compiled, "_native_plans") and compiled._native_plans[0]) == native


def test_results_are_new_and_of_threads_as_well() -> None:
    compiled = compile_einsum(lambda a, b: (a @ b, (a * b).sum(axis=1)))
    a, b = np.random.default_rng(2).random((2, 400, 400))
    (first, second), *others = [compiled(a, b) for _ in range(4)]
    for product, sums in others:
        assert not np.shares_memory(product, first)
        assert product.tobytes() == first.tobytes()
        assert sums.tobytes() == second.tobytes()


def test_memory_does_not_grow() -> None:
    made = [compile_einsum(FUNCTIONS[kind]) for kind in ("tuple", "scalars", "dict")]
    a, b = np.ones((2, 4, 4))
    for _ in range(10):
        [each(a, b) for each in made]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20_000):
            [each(a, b) for each in made]
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_keys_that_are_equal_but_of_other_types_stay_what_they_are():
    a, b = np.ones((2, 4, 4))
    keys = [(1,), (True,), 1, True, (1.0,), ((1, "x"),), ((True, "x"),)]

    def under(key):
        return compile_einsum(lambda a, b: {key: a @ b})

    functions = [*map(under, keys)]
    for _ in range(4):
        for key, function in zip(keys, functions, strict=True):
            (found,) = function(a, b)
            assert repr(found) == repr(key)
    same = compile_einsum(lambda p: dict(p))
    for key in [1, True, (1,), (True,)] * 2:
        assert [*map(repr, same({key: a}))] == [repr(key)]
