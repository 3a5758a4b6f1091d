"""Random equations, shapes, dtypes, layouts and options give what np.einsum gives."""

import numpy as np
import pytest
from affine_equations import AffineEquation, affine_equations
from einsumc.compiler.errors import EinsumError
from einsumc.compiler.evaluate import evaluate
from einsumc.runtime.decorator import compile_einsum, einsum
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from strategies import (
    Call,
    Seeded,
    calls,
    check,
    draw_call,
    draw_overlapping_call,
    overlapping_calls,
)
from sweeps import examples, groups

# Kernels may have to be compiled, so no example has a deadline.
few = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@pytest.mark.parametrize("group", groups(80, 1))
def test_seeded_calls(group):
    for seed in range(25 * group, 25 * (group + 1)):
        check(einsum, draw_call(Seeded(seed)))


@pytest.mark.parametrize("group", groups(20, 1))
def test_seeded_calls_with_out_over_operands(group):
    for seed in range(25 * group, 25 * (group + 1)):
        check(einsum, draw_overlapping_call(Seeded(seed)))


@few
@given(calls())
def test_drawn_calls(call: Call):
    check(einsum, call)


@few
@given(overlapping_calls())
def test_drawn_calls_with_out_over_operands(call: Call):
    check(einsum, call)


BESIDE = AffineEquation("1*k, +1*l+3 1*x -> 1*l 1*k 1*x", ((13,), (7, 2)), {"x": 2, "l": 8})
PIECES = AffineEquation(
    "1*l 1*y 1*l, +2*k+1*y+1 1*l -> 1*l", ((5, 20, 5), (19, 5)), {"y": 20, "k": 8, "l": 5}
)


@examples(60)
@example(BESIDE, None, "C")  # a window that is not summed over
@example(PIECES, 1000, "C")  # an operand that is copied for each piece
@given(
    st.booleans().flatmap(lambda affine: affine_equations(affine_output=affine)),
    st.sampled_from([None, 500, 2000]),
    st.sampled_from(["C", "F", "reversed", "spread"]),
)
def test_drawn_affine_calls(equation: AffineEquation, limit: int | None, layout: str):
    rng = np.random.default_rng(0)
    numbers = (rng.integers(-3, 4, shape).astype("f4") for shape in equation.shapes)
    operands = [laid_out(array, layout) for array in numbers]
    compiled = compile_einsum(equation.text, sizes=equation.sizes, memory_limit=limit)
    try:
        found = compiled(*operands)
    except EinsumError as error:
        assert "beyond einsumc" in str(error) or "memory_limit" in str(error)
        assume(False)
    program = equation.program
    expected = evaluate(program, dict(zip(program.inputs, operands, strict=True)))
    np.testing.assert_array_equal(found, expected)


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers otherwise in memory."""
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "reversed":
        return array[::-1].copy()[::-1]
    return np.repeat(array, 2, axis=-1)[..., ::2] if layout == "spread" else array


@pytest.mark.parametrize("group", groups(5, 2))
def test_the_second_call_is_as_the_first(group):
    for seed in range(20 * group, 20 * (group + 1)):
        call = draw_call(Seeded(seed))
        if not call.equation.repeats:
            check(einsum, call)
        check(einsum, call)
