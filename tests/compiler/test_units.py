"""Axes of one element, kept so that kernels of steps with more serve a step."""

from math import prod

import numpy as np
from einsumc.compiler.geometry import Geometry, canonical
from einsumc.compiler.units import with_units
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def steps(draw):
    """Steps of two operands with arrays of any order in memory, some of them with gaps."""
    extents = {index: draw(st.sampled_from([1, 1, 3, 40])) for index in "bijk"}
    strides = []
    for axes in ("bij", "bjk", "bik"):
        order = draw(st.permutations(axes))
        gap = draw(st.sampled_from([1, 1, 2]))
        steps = {i: gap * prod(extents[j] for j in order[n + 1 :]) for n, i in enumerate(order)}
        strides.append({i: steps[i] * draw(st.sampled_from([1, 1, 1, 0, -1])) for i in axes})
    return Geometry(("f4",) * 3, "f4", extents, tuple(strides))


@given(steps(), st.booleans())
def test_no_position_moves_and_neighbours_are_neighbours(plain, outermost):
    found = with_units(plain, 8, outermost)
    if found is None:
        assert 1 not in plain.extents.values()
        return
    step, grown = found
    assert step.volume([*step.extents]) == plain.volume([*plain.extents])
    assert [*step.extents] == [*grown.extents]
    assert grown == canonical(grown)
    for actual, chosen_for, before in zip(step.strides, grown.strides, plain.strides, strict=True):
        assert actual.keys() == chosen_for.keys()
        longer = {i: n for i, n in step.extents.items() if n > 1 and i in actual}
        assert all(actual[i] == 1 for i in longer if chosen_for[i] == 1)
        places = [np.arange(n) * actual[i] for i, n in longer.items()]
        same = [np.arange(plain.extents[i]) * s for i, s in before.items()]
        assert sorted(sums(places)) == sorted(sums(same))


def sums(terms):
    return np.ravel(sum(np.ix_(*terms), np.zeros((1,) * len(terms), int)))
