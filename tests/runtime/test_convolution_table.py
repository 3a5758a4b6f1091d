"""The table of convolutions and their derivatives in docs/convolutions.md, row by row."""

import re
from pathlib import Path

import numpy as np
import pytest
from einsumc import einsum
from numpy.lib.stride_tricks import sliding_window_view
from sweeps import every

TEXT = (Path(__file__).parents[2] / "docs" / "convolutions.md").read_text(encoding="utf-8")
TABLE = TEXT.split("### What else there is of a convolution", 1)[1].split("\n### ", 1)[0]
ROWS = dict(re.findall(r"^\| ([^|]+?) \| `([^`]+)` \|", TABLE, re.M))

TAPS = {"k": 3, "l": 2, "p": 3, "q": 2}


def integers(*shape, seed=0):
    return np.random.default_rng(seed + len(shape)).integers(-3, 4, shape).astype("f8")


IMAGE = integers(2, 2, 3, 8, 9)  # n g c
WEIGHT = integers(2, 4, 3, 3, 2, seed=1)  # g o c k l
ERRORS = integers(2, 2, 4, 4, 5, seed=2)  # n g o y x


def unfolded(image):
    """Windows of 3 by 2 with a stride of 2 and padding of 1, `n g c k l y x`."""
    padded = np.pad(image, ((0, 0),) * 3 + ((1, 1),) * 2)
    windows = sliding_window_view(padded, (3, 2), axis=(3, 4))[:, :, :, ::2, ::2]
    return np.moveaxis(windows, (5, 6), (3, 4))


def folded(columns, shape):
    """The transpose of that: each window is added where it came from."""
    image = np.zeros((*columns.shape[:3], shape[0] + 2, shape[1] + 2))
    for k, l in np.ndindex(columns.shape[3:5]):
        rows, width = columns.shape[5:]
        image[..., k : k + 2 * rows : 2, l : l + 2 * width : 2] += columns[:, :, :, k, l]
    return image[..., 1:-1, 1:-1]


COLUMNS = unfolded(IMAGE)

EXPECTED = {
    "forward": ((IMAGE, WEIGHT), np.einsum("ngcklyx,gockl->ngoyx", COLUMNS, WEIGHT)),
    "gradient of the input": (
        (ERRORS, WEIGHT),
        folded(np.einsum("ngoyx,gockl->ngcklyx", ERRORS, WEIGHT), (8, 9)),
    ),
    "gradient of the weight": (
        (IMAGE, ERRORS),
        np.einsum("ngcklyx,ngoyx->gockl", COLUMNS, ERRORS),
    ),
    "gradient of each example's weight": (
        (IMAGE, ERRORS),
        np.einsum("ngcklyx,ngoyx->ngockl", COLUMNS, ERRORS),
    ),
    "unfold": ((IMAGE,), COLUMNS),
    "fold": ((COLUMNS,), folded(COLUMNS, (8, 9))),
    "KFC, KFAC-expand": (
        (IMAGE, IMAGE),
        np.einsum("ngcklyx,ngdpqyx->gckldpq", COLUMNS, COLUMNS),
    ),
    "KFAC-reduce": (
        (IMAGE, IMAGE),
        np.einsum("ngckl,ngdpq->gckldpq", COLUMNS.sum((-1, -2)), COLUMNS.sum((-1, -2))),
    ),
}


def test_every_row_has_a_definition():
    assert ROWS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", every(2, EXPECTED, first=1))
def test_row(name):
    operands, expected = EXPECTED[name]
    equation = ROWS[name]
    inputs, output = equation.split("->")
    plain = {word for term in inputs.split(",") for word in term.split()}
    sizes = {
        tap: n for tap, n in TAPS.items() if re.search(rf"\+{tap}-", inputs) and tap not in plain
    }
    if "+" in output:
        sizes |= {"2*y+k-1": 8, "2*x+l-1": 9}
    np.testing.assert_array_equal(einsum(equation, *operands, sizes=sizes), expected)
