"""Lanes that are two elements apart: every second element of vectors."""

import einsumc
import numpy as np
import pytest
from guards import guarded, in_a_child


@pytest.mark.parametrize(
    ("equation", "element"),
    [("ij,ij->i", "f4"), ("ij,ij->i", "c8"), ("bij,bj->bi", "f8"), ("bij,bkj->ik", "f4")],
)
def test_every_second_element(equation, element):
    """Of some operands or all, forwards and backwards, next to memory that may not be touched."""
    rng = np.random.default_rng(0)
    terms = equation.partition("->")[0].split(",")
    for extent in (1, 7, 8, 19, 70):
        sizes = {"b": 3, "i": 5, "k": 6, "j": extent}
        for steps in ((2, 1), (2, 2), (-2, 1), (1, 3)):
            arrays = []
            for term, step in zip(terms, steps, strict=True):
                shape = [sizes[index] for index in term]
                shape[-1] *= abs(step)
                arrays.append(rng.integers(-3, 4, shape).astype(element)[..., ::step])
            expected = np.einsum(equation, *arrays)
            np.testing.assert_array_equal(einsumc.einsum(equation, *arrays), expected)
            kept = [guarded(each, at_end) for each in arrays for at_end in (True, False)]
            ways = [[array for _, array in kept[n::2]] for n in (0, 1)]

            def work(ways=ways, expected=expected):
                for each in ways:
                    assert np.array_equal(einsumc.einsum(equation, *each), expected)

            if extent in (7, 19) and steps == (2, 1):
                status, said = in_a_child(work)
                assert status == 0, f"{extent}: exit status {status}\n{said}"


@pytest.mark.parametrize("taps", [3, 5])
def test_windows_of_single_channels_with_a_stride(taps):
    rng = np.random.default_rng(1)
    image = rng.integers(-3, 4, (2, 3, 40, 41)).astype("f4")
    gradient = rng.integers(-3, 4, (2, 3, 17, 15)).astype("f4")
    found = einsumc.einsum(
        "n g y x, n g 2*y+k 2*x+l -> n g k l", gradient, image, sizes={"k": taps, "l": taps}
    )
    windows = np.lib.stride_tricks.sliding_window_view(image, (taps, taps), axis=(2, 3))
    every = windows[:, :, :34:2, :30:2]
    np.testing.assert_array_equal(found, np.einsum("ngyx,ngyxkl->ngkl", gradient, every))
