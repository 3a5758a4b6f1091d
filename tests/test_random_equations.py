"""Random equations, shapes, dtypes, layouts and options give what np.einsum gives."""

import numpy as np
import pytest
from affine_equations import AffineEquation, affine_equations
from einsumc.compiler.evaluate import evaluate
from einsumc.runtime.decorator import einsum
from hypothesis import HealthCheck, assume, given, settings
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


@pytest.mark.parametrize("group", groups(40, 1))
def test_seeded_calls(group):
    for seed in range(50 * group, 50 * (group + 1)):
        check(einsum, draw_call(Seeded(seed)))


@pytest.mark.parametrize("group", groups(10, 1))
def test_seeded_calls_with_out_over_operands(group):
    for seed in range(50 * group, 50 * (group + 1)):
        check(einsum, draw_overlapping_call(Seeded(seed)))


@few
@given(calls())
def test_drawn_calls(call: Call):
    check(einsum, call)


@few
@given(overlapping_calls())
def test_drawn_calls_with_out_over_operands(call: Call):
    check(einsum, call)


@examples(60)
@given(st.booleans().flatmap(lambda affine: affine_equations(affine_output=affine)))
def test_drawn_affine_calls(equation: AffineEquation):
    rng = np.random.default_rng(0)
    operands = [rng.integers(-3, 4, shape).astype("f4") for shape in equation.shapes]
    try:
        found = einsum(equation.text, *operands, sizes=equation.sizes)
    except ValueError as error:
        assert "beyond einsumc" in str(error)
        assume(False)
    program = equation.program
    expected = evaluate(program, dict(zip(program.inputs, operands, strict=True)))
    np.testing.assert_array_equal(found, expected)


def test_the_second_call_is_as_the_first():
    for seed in range(100):
        call = draw_call(Seeded(seed))
        if not call.equation.repeats:
            check(einsum, call)
        check(einsum, call)
