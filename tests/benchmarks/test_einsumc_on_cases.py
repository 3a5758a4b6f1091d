"""Every einsum of the benchmark cases, shrunk until it can be checked, is right."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from einsumc import einsum
from sweeps import sweep

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))  # scripts beside each other, not a package
try:
    cases = importlib.import_module("cases")
finally:
    sys.path.remove(str(BENCHMARKS))


def is_affine(case):
    """Whether an index expression is more than an index, which NumPy does not know."""
    return any(
        axis.offset or len(axis.terms) != 1 or axis.terms[0][0] != 1
        for access in case.expression.inputs
        for axis in access
    )


ALL = {case.name: case.shrink(2e5, 2**20) for case in cases.load_all()}
EVERY_RUN = set(list(ALL)[::4])


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
