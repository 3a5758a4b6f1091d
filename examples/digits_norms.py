"""Which handwritten digits does a network find hard? The norm of each one's gradient tells.

    scripts/demo                       in a checkout; takes the arguments of this script
    python examples/digits_norms.py    where einsumc[demo] is installed

The gradient of one example's loss says how that example would change the network. Its norm is large
where the network is wrong or in doubt. People rank training data by it, and training with
differential privacy clips by it.

Take a linear layer `z = a @ weights + bias`, and call `b` the gradient of the loss at `z`. The
gradient of the weights for example n is the outer product of `a[n]` and `b[n]`. Its squared norm is

    sum over i and j of (b[n, i] * a[n, j])**2        "ni,ni,nj,nj->n" of b, b, a, a

einsumc sees that this is a product of two small sums, and never forms a gradient. (The formula is
Goodfellow's, "Efficient Per-Example Gradient Computations", 2015, arXiv:1510.01799.)

The script trains a small network, computes all norms, checks them against norms found the slow way,
measures, and draws the digits with the largest and the smallest norms. It exits with 1 if the check
fails. Run it twice: the second time nothing is compiled.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from einsumc import compile_einsum, get_num_threads
from einsumc.runtime.kernels import counts
from einsumc.runtime.settings import current
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Array = NDArray[Any]

SIZES = (64, 128, 64, 10)  # pixels, two hidden layers, classes
TOLERANCE = 1e-10  # relative; everything is float64
DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "demo-output"

console = Console(highlight=False)


# --- What einsumc computes ------------------------------------------------------------------------
# The same array twice in a call is what tells einsumc that a term is a square.


@compile_einsum("ni,ni,nj,nj->n")
def weight_norms_squared(b, b_again, a, a_again):
    """Squared norm of each example's gradient of a layer's weights."""


@compile_einsum("ni,ni->n")
def bias_norms_squared(b, b_again):
    """Squared norm of each example's gradient of a layer's bias."""


def gradient_norms(inputs: Sequence[Array], gradients: Sequence[Array]) -> Array:
    """The norm of each example's gradient of all weights and biases together.

    Args:
        inputs: for each layer its inputs, `[examples, inputs]`.
        gradients: for each layer the gradients at its outputs, `[examples, outputs]`.
    """
    squared = np.zeros(len(inputs[0]))
    for a, b in zip(inputs, gradients, strict=True):
        squared += weight_norms_squared(b, b, a, a)
        squared += bias_norms_squared(b, b)
    return np.sqrt(squared)


# --- A network in NumPy ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A linear layer: `weights` are [inputs, outputs], `bias` is [outputs]."""

    weights: Array
    bias: Array


def random_network(sizes: Sequence[int], seed: int = 0) -> list[Layer]:
    random = np.random.default_rng(seed)
    return [
        Layer(random.standard_normal((inputs, outputs)) / np.sqrt(inputs), np.zeros(outputs))
        for inputs, outputs in pairwise(sizes)
    ]


def forward(network: Sequence[Layer], images: Array) -> tuple[list[Array], Array]:
    """The inputs of every layer, and a score for each class."""
    inputs = [images]
    for layer in network[:-1]:
        inputs.append(np.tanh(inputs[-1] @ layer.weights + layer.bias))
    return inputs, inputs[-1] @ network[-1].weights + network[-1].bias


def backward(
    network: Sequence[Layer], inputs: Sequence[Array], scores: Array, labels: Array
) -> list[Array]:
    """The gradients of each example's loss (softmax cross entropy) at every layer's outputs."""
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    b = likelihood / likelihood.sum(axis=1, keepdims=True)
    b[np.arange(len(labels)), labels] -= 1
    gradients = [b]
    for layer, a in zip(network[:0:-1], inputs[:0:-1], strict=True):
        b = (b @ layer.weights.T) * (1 - a * a)  # a is the tanh before this layer
        gradients.append(b)
    return gradients[::-1]


def train(images: Array, labels: Array, steps: int = 400, rate: float = 0.2) -> list[Layer]:
    """Stochastic gradient descent with batches of 64; the same network every time."""
    network = random_network(SIZES)
    random = np.random.default_rng(1)
    for _ in range(steps):
        batch = random.choice(len(images), min(64, len(images)), replace=False)
        inputs, scores = forward(network, images[batch])
        gradients = backward(network, inputs, scores, labels[batch])
        for layer, a, b in zip(network, inputs, gradients, strict=True):
            layer.weights[...] -= rate / len(batch) * (a.T @ b)
            layer.bias[...] -= rate / len(batch) * b.sum(axis=0)
    return network


# --- The check ------------------------------------------------------------------------------------


def slow_norms(network: Sequence[Layer], images: Array, labels: Array) -> Array:
    """The same norms without einsumc: one backward pass per example, and every gradient formed."""
    norms = np.zeros(len(images))
    for n in range(len(images)):
        inputs, scores = forward(network, images[n : n + 1])
        gradients = backward(network, inputs, scores, labels[n : n + 1])
        squared = 0.0
        for a, b in zip(inputs, gradients, strict=True):
            squared += np.sum(np.outer(a[0], b[0]) ** 2) + np.sum(b[0] ** 2)
        norms[n] = np.sqrt(squared)
    return norms


def largest_difference(norms: Array, expected: Array) -> float:
    """The largest relative difference."""
    return float(np.max(np.abs(norms - expected) / expected))


# --- Times ----------------------------------------------------------------------------------------

Method = Callable[[Array, Array], Array]

METHODS: Mapping[str, Method] = {
    "einsumc": lambda b, a: weight_norms_squared(b, b, a, a),
    "np.einsum, optimize=True": lambda b, a: np.einsum("ni,ni,nj,nj->n", b, b, a, a, optimize=True),
    "np.einsum": lambda b, a: np.einsum("ni,ni,nj,nj->n", b, b, a, a),
    "by hand: (b*b).sum(1)*(a*a).sum(1)": lambda b, a: (b * b).sum(1) * (a * a).sum(1),
    "by hand: two np.einsum": lambda b, a: (
        np.einsum("ni,ni->n", b, b) * np.einsum("ni,ni->n", a, a)
    ),
}


def fastest_times(layers: Sequence[tuple[Array, Array]], rounds: int = 15) -> dict[str, float]:
    """Seconds that each method takes for the weights of these layers; the methods take turns.

    Left out is what would need more than 10**9 multiplications. Only plain np.einsum does: it
    multiplies once for every example, input and output.
    """
    best: dict[str, float] = {}
    multiplications = sum(b.size * a.shape[1] for b, a in layers)
    for _ in range(rounds):
        for name, method in METHODS.items():
            if name == "np.einsum" and multiplications > 10**9:
                continue
            begin = time.perf_counter()
            for b, a in layers:
                method(b, a)
            best[name] = min(best.get(name, np.inf), time.perf_counter() - begin)
    return best


def random_wide_layer() -> tuple[Array, Array]:
    """Gradients at the outputs, and inputs, of a layer as large networks have them."""
    random = np.random.default_rng(2)
    b, a = (random.standard_normal((4096, 1024), dtype=np.float32) for _ in range(2))
    return b, a


def times_table(inputs: Sequence[Array], gradients: Sequence[Array]) -> Table:
    digits = list(zip(gradients, inputs, strict=True))
    wide = [random_wide_layer()]
    cases = {
        f"digits: {len(digits)} layers\n{len(inputs[0])} examples\nfloat64": fastest_times(digits),
        "random: 1024 x 1024\n4096 examples\nfloat32": fastest_times(wide),
    }
    table = Table("Weights' norms,\nmilliseconds")
    for case in cases:
        table.add_column(case, justify="right")
    for name in METHODS:
        table.add_row(name, *(_milliseconds(name, times) for times in cases.values()))
    return table


def _milliseconds(name: str, times: Mapping[str, float]) -> str:
    if name not in times:
        return "takes too long"
    text = f"{times[name] * 1e3:.2f}"
    return f"[bold green]{text}[/]" if times[name] == min(times.values()) else text


# --- The picture ----------------------------------------------------------------------------------


def draw(path: Path, images: Array, norms: Array, labels: Array, predicted: Array) -> None:
    """The eight digits with the largest norms over the eight with the smallest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    order = np.argsort(norms)[::-1]
    rows = {"largest": order[:8], "smallest": order[-8:]}
    figure, axes = plt.subplots(2, 8, figsize=(11, 4), layout="constrained")
    figure.suptitle("The digits with the largest and the smallest gradients", fontsize=14)
    for row, (name, examples) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name, fontsize=12)
        for axis, n in zip(row, examples, strict=True):
            image = np.pad(images[n].reshape(8, 8), 1)
            axis.imshow(image, cmap="gray_r", interpolation="bicubic")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.set_xlabel(f"norm {norms[n]:.2g}", fontsize=9, color="dimgray")
            color = "black" if predicted[n] == labels[n] else "firebrick"
            axis.set_title(f"{labels[n]}, seen as {predicted[n]}", fontsize=10, color=color)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# --- All of it ------------------------------------------------------------------------------------


def load_digits() -> tuple[Array, Array]:
    """The 1797 digits that come with scikit-learn: images [examples, 64] in 0 to 1, and labels."""
    from sklearn.datasets import load_digits as load

    digits = load()
    return digits.data / 16.0, digits.target


def print_plan(a: Array, b: Array) -> None:
    """What einsumc does for the weights of one layer, and what else it could have done."""
    plan = weight_norms_squared.explain(b, b, a, a)  # print(plan) also shows loops and source
    text = f"\nThe plan for the first layer: {plan.stage('program')}\n\n{plan.stage('tree')}\n"
    console.print(text, markup=False, soft_wrap=True)


def report_kernels() -> None:
    """How the kernels of this process came to be."""
    store = escape(current().store_dir)
    if counts.compiled:
        console.print(
            f"Kernels: {counts.compiled} compiled, {counts.stored} from {store}; "
            "run it again, and none is compiled",
            soft_wrap=True,
        )
    else:
        numba = "was imported" if "numba" in sys.modules else "was not even imported"
        console.print(
            f"Kernels: nothing compiled: all {counts.stored} kernels came from {store} "
            f"(Numba {numba})",
            soft_wrap=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Per-example gradient norms of digits.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="for the picture")
    options = parser.parse_args(arguments)

    images, labels = load_digits()
    network = train(images, labels)
    inputs, scores = forward(network, images)
    gradients = backward(network, inputs, scores, labels)
    predicted = scores.argmax(axis=1)
    share = np.mean(predicted == labels)
    console.print(f"A network of sizes {SIZES} gets {share:.1%} of {len(labels)} digits right")

    begin = time.perf_counter()
    norms = gradient_norms(inputs, gradients)
    seconds = time.perf_counter() - begin
    console.print(f"Norms: {seconds:.2f} s for the first time, planning and kernels included")

    difference = largest_difference(norms, slow_norms(network, images, labels))
    right = difference <= TOLERANCE
    verdict = "[bold green]passed[/]" if right else "[bold red]FAILED[/]"
    console.print(
        f"Check: {verdict}: compared with one backward pass per example, the largest\n"
        f"       relative difference is {difference:.1e} (tolerance {TOLERANCE:.0e})"
    )

    print_plan(inputs[0], gradients[0])
    console.print(times_table(inputs, gradients))
    console.print(
        "The fastest of several rounds, in which all take turns.\n"
        f"einsumc may use {get_num_threads()} threads. These NumPy calls use one.\n"
    )

    picture = options.output / "digits_norms.png"
    draw(picture, images, norms, labels, predicted)
    report_kernels()
    console.print(f"Picture: {escape(str(picture))}", soft_wrap=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
