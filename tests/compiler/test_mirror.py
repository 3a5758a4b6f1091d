"""Products of a tensor with its own transpose: half of the tiles, and the same numbers."""

from dataclasses import replace

import einsumc
import numpy as np
import pytest
from einsumc.compiler.choose import choose, substitutes
from einsumc.compiler.geometry import Geometry, canonical
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.runtime.threads import get_num_threads, set_num_threads
from hypothesis import given
from hypothesis import strategies as st
from sweeps import examples

MACHINE = Machine(TARGETS["x86-64-v3"])


def gram(m=200, k=300, batch=1, element="f4", twins=True, **other):
    """`bmk,bnk->bmn`, with other strides of single axes where they are given."""
    strides = {"b": m * k, "m": k, "k": 1}, {"b": m * k, "n": k, "k": 1}
    strides[1].update(other)
    out = {"b": m * m, "m": m, "n": 1}
    extents = {"b": batch, "m": m, "n": m, "k": k}
    return canonical(Geometry((element,) * 3, element, extents, (*strides, out), twins=twins))


def is_mirrored(step):
    return choose(step, MACHINE).schedule.mirrored


def test_a_tensor_times_its_own_transpose_is_mirrored():
    assert is_mirrored(gram())
    assert is_mirrored(gram(batch=7))
    assert is_mirrored(gram(element="i4"))
    assert is_mirrored(gram(k=10**5))  # a sum in several blocks


def test_both_sides_read_the_same_panels():
    (panel,) = choose(gram(m=100), MACHINE).schedule.packs
    assert (panel.operand, panel.also, panel.width) == ("x1", "x0", 48)  # of tiles of 6 by 16
    assert len(choose(gram(m=100, twins=False), MACHINE).schedule.packs) == 2
    assert len(choose(gram(m=1000), MACHINE).schedule.packs) == 2  # they would leave the cache


def test_the_half_that_has_fewer_tiles_is_computed():
    assert not choose(gram(m=96), MACHINE).schedule.below
    assert choose(gram(m=100), MACHINE).schedule.below  # 4 rows more, or 12 columns of which 4 are


@pytest.mark.parametrize("t", [50, 96, 100, 197])
@pytest.mark.parametrize("threads", [1, 3])
def test_products_of_gram_matrices_count_both_halves(t, threads):
    rng = np.random.default_rng(t)
    a, b = (rng.integers(-1, 2, (9, t, size)).astype("f4") for size in (1000, 800))
    expected = np.einsum("nts,nts->n", a @ a.swapaxes(1, 2), b @ b.swapaxes(1, 2), dtype="f8")
    before = get_num_threads()
    try:
        set_num_threads(threads)
        result = einsumc.einsum("nti,nsi,ntj,nsj->n", a, a, b, b)
        part = einsumc.einsum("ti,si->ts", a[0], a[0])
    finally:
        set_num_threads(before)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_array_equal(part, a[0] @ a[0].T)


@pytest.mark.parametrize(
    "step",
    [
        gram(twins=False),
        gram(n=301),  # other rows of the same tensor
        gram(k=301 * 200, n=1),  # the same memory, but not its transpose
        gram(element="c8"),  # products of complex numbers do not commute to the last bit
    ],
)
def test_what_is_not_symmetric_is_not(step):
    assert not is_mirrored(step)


def pixels(across=14, others=14, out=None, over=False):
    """`cyz,cab->yzab` of every second pixel of an image, so that no indices are merged."""
    extents = {"y": across, "z": across, "a": others, "b": others, "c": 300}
    first, second = ({"c": 4096, i: 128, j: 2} for i, j in ("yz", "ab"))
    out = out or {"y": across * others**2, "z": others**2, "a": others, "b": 1}
    return canonical(Geometry(("f4",) * 3, "f4", extents, (first, second, out), twins=True))


def test_gram_matrices_over_several_indices():
    assert is_mirrored(pixels())
    assert not is_mirrored(pixels(others=7))
    assert not is_mirrored(pixels(out={"y": 2744, "z": 196, "b": 14, "a": 1}))


def test_no_kernel_for_a_symmetric_step_is_taken_for_another():
    """With other extents, of which a substitute is made, the same step would be symmetric."""
    step = gram()
    others = replace(step, extents={**step.extents, "n": 90})
    for each, mirrored in ((step, True), (others, False)):
        choices = [choice for _, choice in substitutes(each, each, MACHINE)]
        assert any(choice.schedule.mirrored for choice in choices) == mirrored


@pytest.mark.parametrize("equation", ["cyz,cab->yzab", "ncyz,ncab,noyz,noab->n"])
def test_every_second_pixel_times_every_other(equation):
    rng = np.random.default_rng(3)
    a = rng.integers(-3, 4, (2, 70, 25, 23)).astype("f4")[..., ::2, ::2]
    b = rng.integers(-1, 2, (2, 30, 13, 12)).astype("f4")
    given = (a[0], a[0]) if equation[0] == "c" else (a, a, b, b)
    wide = [each.astype("f8") for each in given]
    found = einsumc.einsum(equation, *given)
    np.testing.assert_allclose(found, np.einsum(equation, *wide, optimize=True), rtol=1e-6)


@examples(10)
@given(
    st.sampled_from(["nti,nsi->nts", "nit,nis->tsn", "tni,sni->nst", "ti,si->ts"]),
    st.sampled_from(["f4", "f8", "f2", "i4"]),
    st.integers(1, 150),
    st.integers(1, 60) | st.integers(1000, 1200),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 2**30),
)
def test_gram_matrices_of_any_layout(equation, dtype, t, i, n, backwards, seed):
    sizes = {"n": n, "t": t, "s": t, "i": i}
    rng = np.random.default_rng(seed)
    shape = [sizes[index] for index in equation.partition(",")[0]]
    a = rng.integers(-3, 4, shape).astype(dtype)
    a = a[::-1, ..., ::-1] if backwards else a
    wide = a.astype("f8")
    result = einsumc.einsum(equation, a, a)
    expected = np.einsum(equation, wide, wide)
    np.testing.assert_array_equal(result, expected.astype(dtype))


@pytest.mark.parametrize("length", [257, 1100])
def test_the_same_bits_for_any_number_of_threads_and_exactly_symmetric(length):
    rng = np.random.default_rng(1)
    a = rng.standard_normal((2, 333, length)).astype("f4")
    before, found = get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            found.append(einsumc.einsum("nti,nsi->nts", a, a))
    finally:
        set_num_threads(before)
    assert all(each.tobytes() == found[0].tobytes() for each in found)
    np.testing.assert_array_equal(found[0], found[0].transpose(0, 2, 1))
    np.testing.assert_allclose(
        found[0], np.einsum("nti,nsi->nts", a.astype("f8"), a), rtol=0, atol=2e-3
    )


def test_the_two_halves_of_one_array_are_not_taken_for_twins():
    a = np.random.default_rng(2).standard_normal((2, 100, 90))
    x, y = a[0], a[1]
    np.testing.assert_allclose(einsumc.einsum("ti,si->ts", x, y), x @ y.T)
