"""Every einsum of the benchmark cases, shrunk until it can be checked, is right."""

from functools import partial

import numpy as np
import pytest
from benchmark_scripts import benchmark
from einsumc import compile_einsum, einsum
from einsumc.runtime.virtual import virtual
from sweeps import sweep

cases = benchmark("cases")


def is_affine(case):
    """Whether an index expression is more than an index, which NumPy does not know."""
    return any(
        axis.offset or len(axis.terms) != 1 or axis.terms[0][0] != 1
        for access in case.expression.inputs
        for axis in access
    )


ALL = {case.name: case.shrink(2e5, 2**20) for case in cases.load_all()}
EVERY_RUN = set(list(ALL)[::32])


def operands_of(case):
    """Small integers, so that sums of products are exact; one array for each name."""
    rng = np.random.default_rng(len(case.name))
    arrays = {}
    for name, shape in zip(case.operands, case.shapes, strict=True):
        if name not in arrays:
            arrays[name] = rng.integers(-2, 3, shape).astype(case.dtype)
    return [arrays[name] for name in case.operands]


@pytest.mark.parametrize("name", sweep(ALL, lambda name: name in EVERY_RUN))
def test_case(name):
    case = ALL[name]
    operands = operands_of(case)
    found = einsum(case.equation, *operands)
    exact = [operand.astype("f8") for operand in operands]
    expected = einsum(case.equation, *exact, optimize="greedy")
    known = len(operands) < 20 and case.equation.isascii() and not is_affine(case)
    peer = np.einsum if known else None
    if peer is not None:
        expected = peer(case.equation, *exact, optimize="greedy")
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=scale * np.finfo(case.dtype).eps * 64)


def plan_of(compiled, operands):
    """What a plan consists of: its kernels with their work, and the memory between them."""
    plan = compiled.explain(*operands)
    steps = [(step.key, step.subscripts.count(","), step.cost, step.tiles) for step in plan.steps]
    return steps, plan.peak_memory, plan.dtype


def computed(equation, operands, names, *given):
    """An equation of these operands, of which the distinct ones are given."""
    named = dict(zip(names, given, strict=True))
    return np.einsum(equation, *(named[name] for name in operands))


@pytest.mark.parametrize("suite", ["norms", "other_norms"])
def test_a_body_has_the_plan_of_its_equation(suite):
    for case in cases.load(suite):
        arrays = dict(zip(case.operands, case.shapes, strict=True))
        arrays = {name: virtual(shape, case.dtype) for name, shape in arrays.items()}
        operands = [arrays[name] for name in case.operands]
        body = compile_einsum(partial(computed, case.equation, case.operands, tuple(arrays)))
        wanted = plan_of(compile_einsum(case.equation), operands)
        found = plan_of(body, arrays.values())  # apart: arrays without memory cannot be printed
        assert found == wanted, case.name


@pytest.mark.parametrize("t", [4, 64, 700])
def test_gradients_that_are_squared_have_the_plan_of_one_equation(t):
    @compile_einsum
    def squared_norms(b, a):
        gradient = np.einsum("nti,ntj->nij", b, a)
        return (gradient * gradient).sum(axis=(1, 2))

    b, a = virtual((8, t, 300), "f4"), virtual((8, t, 200), "f4")
    one = compile_einsum("nti,nsi,ntj,nsj->n").explain(b, b, a, a)
    body = squared_norms.explain(b, a)
    assert body.peak_memory <= one.peak_memory + 64
    last = body.steps[len(one.steps) :]  # which makes sure that no sum of squares is negative
    assert all("maximum" in step.statement for step in last)
    assert [s.recipe for s in body.steps[: len(one.steps)]] == [s.recipe for s in one.steps]
    assert body.predicted <= 1.01 * one.predicted + 1e-6
