"""Simplifying sums lonely indices where that is cheaper, and changes no value."""

from dataclasses import replace

import numpy as np
import pytest
from einsumc.compiler.cost import program_cost
from einsumc.compiler.evaluate import evaluate, verify_program
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.program import Program, from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.rewrite import simplify
from einsumc.compiler.subscripts import parse
from hypothesis import given
from hypothesis import strategies as st
from strategies import Drawn, draw_equation
from sweeps import examples

MACHINE = Machine(TARGETS["x86-64-v3"])
EAGER = Machine(TARGETS["x86-64-v3"], speeds=replace(MACHINE.speeds, call=1e-30))
"""Where a step costs nothing, so that fewer operations are worth another one."""


def program_of(text: str, extents: dict[str, int]) -> Program:
    terms = text.partition("->")[0].split(",")
    return from_expression(resolve(parse(text), [[extents[i] for i in term] for term in terms]))


@pytest.mark.parametrize(
    ("text", "simplified"),
    [
        ("ij,jk->k", ["t0[j] = sum_i a[i,j]", "out[k] = sum_j t0[j] * b[j,k]"]),
        ("i,jk->jk", ["t0 = sum_i a[i]", "out[j,k] = t0 * b[j,k]"]),
        (
            "ij,jk,kl->jk",
            ["t0[j] = sum_i a[i,j]", "t1[k] = sum_l c[k,l]", "out[j,k] = t0[j] * b[j,k] * t1[k]"],
        ),
        ("iij,jk->jk", ["t0[j] = sum_i a[i,i,j]", "out[j,k] = t0[j] * b[j,k]"]),
        # No lonely index, or no other factor:
        ("ij,jk->ik", ["out[i,k] = sum_j a[i,j] * b[j,k]"]),
        ("ij->j", ["out[j] = sum_i a[i,j]"]),
    ],
)
def test_lonely_indices_are_summed_first(text, simplified):
    program = simplify(program_of(text, dict.fromkeys("ijkl", 90)), MACHINE, "f4")
    verify_program(program)
    assert str(program).splitlines() == simplified


def test_nothing_is_summed_first_that_costs_more_to_start_than_it_saves():
    program = program_of("ij,jk->k", dict.fromkeys("ijk", 3))
    assert simplify(program, MACHINE, "f4") == program


@examples(60)
@given(st.data(), st.sampled_from([MACHINE, EAGER]))
def test_the_values_stay_and_the_cost_does_not_rise(data, machine):
    equation = draw_equation(Drawn(data.draw), repeated_output=False)
    program = from_expression(resolve(parse(equation.text), equation.shapes))
    simplified = simplify(program, machine, "f8")
    verify_program(simplified)
    assert len(simplified.statements[-1].factors) == len(equation.shapes)
    before, after = (program_cost(each, "f8", machine) for each in (program, simplified))
    assert after.seconds <= before.seconds
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(-4, 5, shape)
        for name, shape in zip(program.inputs, equation.shapes, strict=True)
    }
    np.testing.assert_array_equal(evaluate(simplified, arrays), evaluate(program, arrays))
