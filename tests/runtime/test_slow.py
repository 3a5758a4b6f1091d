"""Evaluation in dtypes without kernels is NumPy's."""

import numpy as np
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.runtime import slow
from einsumc.runtime.slow import evaluate_slowly
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Seeded, draw_equation, evaluate


def resolved(text, *arrays):
    return resolve(parse(text), [array.shape for array in arrays])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_slow_evaluation_is_numpys(seed, objects):
    equation = draw_equation(Seeded(seed), repeated_output=False)
    if any(0 in shape for shape in equation.shapes):
        return
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(-3, 4, shape) for shape in equation.shapes]
    expected = evaluate(equation, arrays)
    arrays = [array.astype(object if objects else "g") for array in arrays]
    out = np.empty(expected.shape, arrays[0].dtype)
    evaluate_slowly(resolved(equation.text, *arrays), arrays, out)
    assert np.array_equal(out.astype(expected.dtype), expected)


def test_slow_evaluation_takes_large_sums_in_slabs(monkeypatch):
    monkeypatch.setattr(slow, "_SLAB", 50)
    a, b = np.arange(60).reshape(4, 15).astype("g"), np.arange(90).reshape(15, 6).astype("g")
    out = np.empty((4, 6), "g")
    evaluate_slowly(resolved("ij,jk->ik", a, b), [a, b], out)
    assert np.array_equal(out, a @ b)


def test_slow_evaluation_uses_the_objects_own_arithmetic():
    big = np.array([2**100, 3], object)
    out = np.empty((), object)
    evaluate_slowly(resolved("i,i->", big, big), [big, big], out)
    assert out[()] == 2**200 + 9
