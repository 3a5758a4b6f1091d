"""Factored convolutions: one equation of many operands, against the kernel multiplied out."""

import json
from pathlib import Path

import numpy as np
import pytest
from einsumc import einsum
from numpy.lib.stride_tricks import sliding_window_view
from sweeps import every

PATH = Path(__file__).parents[2] / "benchmarks" / "cases" / "conv_cases.json"
CASES = json.loads(PATH.read_text(encoding="utf-8"))
SIZES = dict(zip("ncohwdklmrstuvg", (2, 3, 4, 5, 6, 4, 3, 2, 3, 2, 3, 2, 3, 2, 2), strict=True))


def check(equation):
    inputs, output = (part.strip() for part in equation.split("->"))
    image, *factors = (term.split() for term in inputs.split(","))
    shape, taps = [], []
    for axis in image:
        position, _, tap = axis.partition("+")
        shape.append(SIZES[position] + (SIZES[tap] - 1 if tap else 0))
        taps += [tap] if tap else []
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=shape)
    operands = [rng.normal(size=[SIZES[index] for index in term]) for term in factors]
    positions = [axis[0] for axis in image if "+" in axis]
    first = len(shape) - len(taps)
    windows = sliding_window_view(
        pixels, [SIZES[tap] for tap in taps], axis=tuple(range(first, len(shape)))
    )
    outer = [axis for axis in image if "+" not in axis]
    wanted = dict.fromkeys(index for term in factors for index in term)
    kernel_axes = "".join(i for i in wanted if i in {*output.split(), *outer, *taps})
    kernel = np.einsum(f"{','.join(map(''.join, factors))}->{kernel_axes}", *operands)
    term = "".join([*outer, *positions, *taps])
    expected = np.einsum(f"{term},{kernel_axes}->{output.replace(' ', '')}", windows, kernel)
    np.testing.assert_allclose(einsum(equation, pixels, *operands), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", every(2, CASES["named"]), ids=lambda case: case["name"])
def test_a_named_convolution(case):
    check(case["eq"])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES["enum3d_sample"], ids=lambda case: " ".join(case["factors"]))
def test_an_enumerated_convolution(case):
    check(case["eq"])
