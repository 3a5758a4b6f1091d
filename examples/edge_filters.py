"""Filters of a photograph, and a layer's gradients: convolutions as einsums.

    python examples/edge_filters.py    where einsumc[demo] is installed

Every filter is an equation whose image is read at sums of indices. `y+k-1` is the row `k` of a
window of three around row `y`; what is outside of the image is zero. The script

- finds edges, the lengths of Sobel's gradients,
- blurs, with a kernel that is a product of two vectors: einsumc finds out that the two passes along
  columns and rows take less than the window,
- answers at which angle the picture has stripes, with a bank of Gabor filters,
- takes a convolution layer forward, with stride and padding, and its two gradients: those of the
  weights and of the image are einsums of the same axes, in other places,
- takes a small network of two layers forward and back in one compiled function, which is NumPy as
  one would write it: padding, sliding windows, and einsums over them.

It compares the layer with loops over all positions, the blur with one of the whole window, and the
network with what NumPy makes of the same function, draws what the filters see, and exits with 1 if
a comparison fails.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from einsumc import compile_einsum, einsum
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]

DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "demo-output"

STRIDE, PADDING = 2, 1  # of the layer; its equations have them as numbers


# --- What einsumc computes ------------------------------------------------------------------------


@compile_einsum("y+k-1 x+l-1, d k l -> d y x")
def differences(image, kernels):
    """What each kernel of 3x3 says about the surroundings of each pixel."""


@compile_einsum("y+k-7 x+l-7, k, l -> y x")
def blur(image, column, row):
    """The image seen through a window of 15x15 that is a product of two vectors."""


@compile_einsum("y+k-7 x+l-7, k l -> y x")
def blur_by_window(image, window):
    """The same with the window as a whole."""


@compile_einsum("y+k-10 x+l-10, f k l -> f y x")
def bank(image, filters):
    """Every filter of a bank, of 21x21."""


@compile_einsum("n c 2*y+k-1 2*x+l-1, o c k l -> n o y x")
def forward(images, weights):
    """A convolution layer."""


@compile_einsum("n c 2*y+k-1 2*x+l-1, n o y x -> o c k l", sizes={"k": 3, "l": 3})
def weight_gradient(images, gradients):
    """The gradient of its weights, from that of its output."""


def image_gradient(gradients: Array, weights: Array, height: int, width: int) -> Array:
    """The gradient of its images. A stride leaves open how long they were."""
    equation = "n o y x, o c k l -> n c 2*y+k-1 2*x+l-1"
    lengths = {"2*y+k-1": height, "2*x+l-1": width}
    gradient: Array = einsum(equation, gradients, weights, sizes=lengths)
    return gradient


def windows(images: Array) -> Array:
    """Around every pixel its window of 3x3: images, channels, taps (two axes), pixels (two)."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sliding_window_view(padded, (3, 3), (2, 3)).transpose(0, 1, 4, 5, 2, 3)


@compile_einsum
def network(images, first, second, wanted):
    """Two layers of 3x3 with a ReLU between them, and half their squared distance from `wanted`.

    Returns the distance, and its gradients: what a step of training needs. NumPy computes the same
    (`network.__wrapped__`), but copies the windows.
    """
    sums = np.einsum("ncklyx,ockl->noyx", windows(images), first)
    hidden = np.maximum(sums, 0)
    errors = np.einsum("ncklyx,ockl->noyx", windows(hidden), second) - wanted
    back = np.einsum("noklyx,ockl->ncyx", windows(errors), second[:, :, ::-1, ::-1])
    back = np.where(sums > 0, back, 0)
    return {
        "distance": (errors * errors).sum() / 2,
        "first": np.einsum("ncklyx,noyx->ockl", windows(images), back),
        "second": np.einsum("ncklyx,noyx->ockl", windows(hidden), errors),
        "images": np.einsum("noklyx,ockl->ncyx", windows(back), first[:, :, ::-1, ::-1]),
    }


# --- Kernels --------------------------------------------------------------------------------------


def sobel() -> Array:
    """Differences along rows and along columns."""
    along = np.outer([1, 2, 1], [-1, 0, 1]) / 8
    return np.stack([along, along.T]).astype("f4")


def bell(width: float = 2.5) -> Array:
    """A Gaussian bell of 15 values whose sum is 1."""
    values = np.exp(-(np.arange(-7, 8) ** 2) / (2 * width**2))
    return (values / values.sum()).astype("f4")


def gabor(angles: Array, wavelength: float = 6, width: float = 4) -> Array:
    """For each angle, in radians, a wave across it under a bell; each kernel's sum is zero."""
    y, x = np.mgrid[-10:11, -10:11]
    across = x * np.cos(angles)[:, None, None] + y * np.sin(angles)[:, None, None]
    under = np.exp(-(x**2 + y**2) / (2 * width**2))
    waves = np.cos(2 * np.pi * across / wavelength) * under
    waves -= under * (waves.sum(axis=(1, 2)) / under.sum())[:, None, None]
    return (waves / np.abs(waves).sum(axis=(1, 2), keepdims=True)).astype("f4")


# --- The layer by loops ---------------------------------------------------------------------------


def by_loops(images: Array, weights: Array, gradients: Array) -> tuple[Array, Array, Array]:
    """The layer's output and the gradients of weights and images, position by position."""
    output = np.zeros(gradients.shape)
    weights_gradient, images_gradient = np.zeros(weights.shape), np.zeros(images.shape)
    height, width = images.shape[2:]
    for y, x in np.ndindex(*gradients.shape[2:]):
        gradient = gradients[:, :, y, x]
        for k, m in np.ndindex(*weights.shape[2:]):
            row, column = STRIDE * y + k - PADDING, STRIDE * x + m - PADDING
            if not (0 <= row < height and 0 <= column < width):
                continue
            pixel, weight = images[:, :, row, column], weights[:, :, k, m]
            output[:, :, y, x] += pixel @ weight.T
            weights_gradient[:, :, k, m] += gradient.T @ pixel
            images_gradient[:, :, row, column] += gradient @ weight
    return output, weights_gradient, images_gradient


# --- The script -----------------------------------------------------------------------------------


def photograph() -> Array:
    """A photograph of a temple that comes with scikit-learn, as reds, greens and blues in 0..1."""
    from sklearn.datasets import load_sample_image

    return np.ascontiguousarray(load_sample_image("china.jpg").transpose(2, 0, 1) / np.float32(255))


def worst_errors(colours: Array) -> dict[str, float]:
    """For each comparison the largest relative error."""
    grey = colours.mean(axis=0)
    images = colours[None, :, 100:131, 200:240]  # an odd height: the stride does not divide it
    random = np.random.default_rng(0)
    weights = random.standard_normal((8, 3, 3, 3)).astype("f4")
    output = forward(images, weights)
    gradients = random.standard_normal(output.shape).astype("f4")
    expected = by_loops(images, weights, gradients)
    taps = bell()
    return {
        "layer": _error(output, expected[0]),
        "gradient of weights": _error(weight_gradient(images, gradients), expected[1]),
        "gradient of images": _error(
            image_gradient(gradients, weights, *images.shape[2:]), expected[2]
        ),
        "blur": _error(blur(grey, taps, taps), blur_by_window(grey, np.outer(taps, taps))),
        **network_errors(images),
    }


def network_errors(images: Array) -> dict[str, float]:
    """For each result of the network its largest relative error; NumPy has twice the digits."""
    random = np.random.default_rng(1)
    shapes = (6, 3, 3, 3), (4, 6, 3, 3), (1, 4, *images.shape[2:])
    operands = [images, *(random.standard_normal(shape).astype("f4") for shape in shapes)]
    found = network(*operands)
    expected = network.__wrapped__(*(each.astype("f8") for each in operands))
    return {f"network: {name}": _error(found[name], each) for name, each in expected.items()}


def longest_steps(grey: Array, count: int = 2) -> list[str]:
    """Of what the blur is computed in, the steps with most operations, in their order."""
    steps = blur.explain(grey, bell(), bell()).steps
    longest = sorted(steps, key=lambda step: -step.cost.flops)[:count]
    return [step.statement for step in steps if step in longest]


def _error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def draw(colours: Array, path: Path) -> None:
    """Save a picture of what the filters see."""
    from matplotlib.figure import Figure

    grey, taps = colours.mean(axis=0), bell()
    edges = np.hypot(*differences(grey, sobel()))
    angles = np.arange(8) * np.pi / 8
    answers = np.abs(bank(grey - grey.mean(), gabor(angles)))
    strongest = answers.max(axis=0)
    visible = np.minimum(strongest / np.percentile(strongest, 95), 1)  # angles, where there are any
    panels = {
        "photograph": (grey, "grey"),
        "edges: Sobel": (edges, "magma"),
        "blurred, 15x15": (blur(grey, taps, taps), "grey"),
        "finer than the blur": (grey - blur(grey, taps, taps), "grey"),
        "strongest of 8 Gabor filters": (strongest, "magma"),
        "its angle": (answers.argmax(axis=0), "twilight"),
    }
    figure = Figure(figsize=(15, 7), layout="constrained")
    for axes, (title, (values, colour_map)) in zip(
        figure.subplots(2, 3).flat, panels.items(), strict=True
    ):
        axes.imshow(values, cmap=colour_map, alpha=visible if title == "its angle" else None)
        axes.set_title(title)
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Compare, draw, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder of the picture")
    options = parser.parse_args()
    colours = photograph()
    errors = worst_errors(colours)
    for name, error in errors.items():
        print(f"{name:20} largest relative error {error:.1e}")
    print("\nof the blur, the steps that take longest:")
    for step in longest_steps(colours[0]):
        print(f"  {step}")
    picture = options.output / "edge_filters.png"
    draw(colours, picture)
    print(f"\n{picture}")
    return 0 if max(errors.values()) < 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
