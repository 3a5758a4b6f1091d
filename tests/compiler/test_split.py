"""Splitting an index for the sake of an operand's cache lines."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from einsumc import einsum
from einsumc.compiler.choose import choose
from einsumc.compiler.geometry import Geometry, canonical
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.pipeline import stages
from einsumc.compiler.split import in_lines

MACHINE = Machine(TARGETS["x86-64-v3"])


def crossed(extents, out=("c", "d", "a")):
    """``a[a,e,d], b[c,e] -> out``: neighbours of the first lie along d, of the output along a."""
    tensors = (("a", "e", "d"), ("c", "e"), out)
    strides = []
    for axes in tensors:
        step, found = 1, {}
        for axis in reversed(axes):
            found[axis] = step
            step *= extents[axis]
        strides.append(found)
    return canonical(Geometry(("f8",) * 3, "f8", extents, tuple(strides)))


def addresses(step: Geometry) -> list[tuple[int, ...]]:
    """Where every product and its sum lie, in any order."""
    ranges = [range(extent) for extent in step.extents.values()]
    return sorted(
        tuple(
            sum(tensor.get(i, 0) * p for i, p in zip(step.extents, at, strict=True))
            for tensor in step.strides
        )
        for at in itertools.product(*ranges)
    )


def test_the_outputs_last_index_is_split_and_nothing_else_changes():
    step = crossed({"c": 3, "d": 9, "a": 16, "e": 2})
    split = in_lines(step, MACHINE)
    assert split.extents == {"c": 3, "d": 9, "a/8": 2, "a%8": 8, "e": 2}
    assert addresses(split) == addresses(step)


@pytest.mark.parametrize(
    ("extents", "out"),
    [
        ({"c": 3, "d": 9, "a": 15, "e": 2}, ("c", "d", "a")),  # no whole parts
        ({"c": 3, "d": 9, "a": 8, "e": 2}, ("c", "d", "a")),  # a single part
        ({"c": 3, "d": 2, "a": 16, "e": 2}, ("c", "d", "a")),  # lines of two elements
        ({"c": 3, "d": 9, "a": 16, "e": 2}, ("c", "a", "d")),  # both along d
        ({"c": 16, "d": 9, "a": 16, "e": 2}, ("d", "a", "c")),  # along the other operand's index
    ],
)
def test_other_steps_stay_as_they_are(extents, out):
    step = crossed(extents, out)
    assert in_lines(step, MACHINE) == step


@pytest.mark.parametrize("a", [48, 50])
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "i4"])
def test_products_whose_neighbours_cross(a, dtype):
    random = np.random.default_rng(a)
    x = random.integers(-9, 9, (a, 21, 5, 19)).astype(dtype)
    y = random.integers(-9, 9, (13, 21)).astype(dtype)
    expected = np.einsum("aebd,ce->dcba", x, y, optimize=True)
    assert np.array_equal(einsum("aebd,ce->dcba", x, y, order="C"), expected)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
def test_panels_that_are_neighbours_are_filled_together(dtype):
    # Rows of 91 elements: whole lines, then a vector that is left, then single elements.
    x = np.arange(32 * 21 * 3 * 91).reshape(32, 21, 3, 91) % 23
    y = np.arange(13 * 21).reshape(13, 21) % 7
    x, y = x.astype(dtype)[..., : 91 - 2 * (dtype == "f4")], y.astype(dtype)
    step = crossed({"c": 13, "d": 91, "a": 32, "e": 21})
    source = stages(choose(in_lines(step, MACHINE), MACHINE).schedule).source
    assert source.count("is_brick") == 2
    expected = np.einsum("aebd,ce->dcba", x, y, optimize=True)
    assert np.array_equal(einsum("aebd,ce->dcba", x, y, order="C"), expected)


def crossed_sums(m, n, p, q):
    """``a[m,p,q], b[n,q,p] -> out[m,n]``: each operand has neighbours along another sum."""
    return canonical(
        Geometry(
            ("f4",) * 3,
            "f4",
            {"m": m, "n": n, "p": p, "q": q},
            ({"m": p * q, "p": q, "q": 1}, {"n": p * q, "q": p, "p": 1}, {"m": n, "n": 1}),
        )
    )


def test_a_sum_is_split_where_both_operands_have_neighbours_along_sums():
    step = crossed_sums(40, 48, 36, 64)
    split = in_lines(step, MACHINE)
    assert {"q/16": 4, "q%16": 16}.items() <= split.extents.items()
    choice = choose(split, MACHINE)
    assert choice.members["k"] == ("q/16", "p", "q%16")
    small = crossed_sums(6, 6, 4, 32)
    assert addresses(in_lines(small, replace(MACHINE, worth_packing=1))) == addresses(small)


@pytest.mark.parametrize(
    ("sizes"),
    [
        (4, 4, 4, 16),  # too small to be packed
        (40, 300, 36, 64),  # one operand is much larger, and decides alone
        (40, 48, 35, 63),  # no whole parts
    ],
)
def test_other_sums_stay_as_they_are(sizes):
    step = crossed_sums(*sizes)
    assert in_lines(step, MACHINE) == step


@pytest.mark.parametrize("equation", ["mpq,nqp->mn", "mpq,qpn->mn", "pqm,nqp->nm"])
@pytest.mark.parametrize("dtype", ["f4", "c16"])
def test_sums_in_any_order_are_right(equation, dtype):
    extents = {"m": 40, "n": 48, "p": 20, "q": 32}
    random = np.random.default_rng(0)
    x, y = (
        random.standard_normal([extents[i] for i in term]).astype(dtype)
        for term in equation.split("->")[0].split(",")
    )
    expected = np.einsum(equation, x, y, dtype="c16")
    np.testing.assert_allclose(einsum(equation, x, y), expected, 1e-3, 1e-3)
