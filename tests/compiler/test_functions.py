"""exp, log, tanh and powers against higher precision, and NumPy for what is special."""

import ctypes
from functools import cache

import numpy as np
import pytest
from einsumc.runtime.target import LEVELS, can_run
from steps import function

pytestmark = pytest.mark.skipif(
    not can_run(LEVELS["x86-64-v3"]), reason="the kernels are for x86-64-v3"
)

LANES = {"f4": 8, "f8": 4}


@cache
def compiled(name, element, operands):
    lanes = LANES[element]
    loads = ", ".join(
        f"load_rows(operand(args, {n}, {element}), i, 0, 1, {lanes}, {lanes})"
        for n in range(operands)
    )
    return function(
        "def kernel(args, begin, end, scratch):\n"
        f"    for i in range(begin, end, {lanes}):\n"
        f"        store_rows(operand(args, {operands}, {element}), i, 0, {name}({loads}))\n"
    )


def computed(name, *arrays):
    out = np.empty_like(arrays[0])
    assert out.size % 8 == 0
    args = (ctypes.c_int64 * (len(arrays) + 1))(*(a.ctypes.data for a in (*arrays, out)))
    element = f"f{out.itemsize}"
    compiled(name, element, len(arrays))(ctypes.addressof(args), 0, out.size, 0)
    return out


def errors(found, exact):
    """The errors in units of the last place of what is exact."""
    with np.errstate(all="ignore"):
        unit = np.spacing(np.abs(exact).astype(found.dtype)).astype(np.longdouble)
        return np.abs((found.astype(np.longdouble) - exact) / unit)


def numbers(name, element, count=1 << 16):
    """Numbers all over the function's domain: near zero, large, and with subnormal results."""
    rng = np.random.default_rng(7)
    tiny, most = (-44, 38) if element == "f4" else (-320, 308)
    sizes = 10 ** rng.uniform(tiny, most, count // 2)
    if name == "log":
        near = 1 + rng.normal(0, 0.2, count // 2).clip(-0.9)
        return np.concatenate([sizes, near]).astype(element)
    reach = {"f4": (103, 88.7), "f8": (745, 709.7)}[element] if name == "exp" else (30, 30)
    wide = rng.uniform(-reach[0], reach[1], count // 4)
    near = rng.normal(0, 1, count // 4)
    return np.concatenate(
        [np.minimum(sizes, 9) * rng.choice([-1, 1], sizes.size), wide, near]
    ).astype(element)


MOST = {"exp": (1.0, 1.0), "log": (1.0, 1.0), "tanh": (2.0, 3.0)}


@pytest.mark.parametrize("name", MOST)
@pytest.mark.parametrize("element", ["f4", "f8"])
def test_errors_are_small(name, element):
    x = numbers(name, element)
    found = computed(name, x)
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(x.astype(np.longdouble))
    worst = errors(found, exact)
    at = np.nanargmax(worst)
    most = MOST[name][element == "f8"]
    assert worst[at] <= most, f"{name}({x[at]!r}) = {found[at]!r}, off by {worst[at]:.2f}"


SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-30, 88.8, 1e30, -1e30, 1e-44, 2.0, 0.5]


@pytest.mark.parametrize("name", MOST)
@pytest.mark.parametrize("element", ["f4", "f8"])
def test_special_values_are_numpys(name, element):
    x = np.array([*SPECIAL, 710.0, -746.0], element)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x)
    found = computed(name, x)
    np.testing.assert_allclose(found, expected, rtol=3e-7)
    np.testing.assert_array_equal(
        np.signbit(found[expected == 0]), np.signbit(expected[expected == 0])
    )


@pytest.mark.parametrize("element", ["f4", "f8"])
def test_powers_are_numpys(element):
    values = np.array([*SPECIAL, 3.0, -3.0, 2.5, -2.5, -2.0, 10.0], element)
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    x, y = (np.concatenate([a, a[: -a.size % 8]]) for a in (x, y))
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
    np.testing.assert_allclose(
        computed("power", x, y), expected, rtol=1e-6 if element == "f4" else 1e-13
    )
