"""Train a small network with differential privacy: clip every example's gradient, add noise.

    python examples/dp_sgd.py                where torch, opacus and scikit-learn are installed

Differentially private training (Abadi et al., "Deep learning with differential privacy", 2016,
arXiv:1607.00133) limits what one example can do to the weights. Each step needs the norm of every
example's gradient over all parameters, and then the sum of all gradients, each scaled down to a
norm of at most `MAX_NORM`. PyTorch's backward pass gives neither: it sums first.

Both follow from what each layer saw. Hooks keep the inputs of every layer and the gradients at its
outputs, `einsumc.gradnorms` computes the clipped sums from them, and no gradient of an example is
ever formed. The network reads handwritten digits as 64 tokens, one a pixel, so that it has an
embedding, linear layers over a sequence, and layer normalization.

The script checks the norms against Opacus (which forms the gradients), prints the time of both, and
trains. It exits with 1 if the norms disagree.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from einsumc import gradnorms
from opacus import GradSampleModule
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn

WIDTH = 64
CLASSES = 10
MAX_NORM = 1.0
NOISE = 0.5  # times MAX_NORM: the standard deviation of what is added to the sum
TOLERANCE = 1e-5  # relative; everything is float32

console = Console(highlight=False)


def network() -> nn.Module:
    """Pixels as tokens, a small network for each of them, then their mean and a class."""

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1)

    return nn.Sequential(
        nn.Embedding(17 * 64, WIDTH),  # an intensity at a place
        nn.LayerNorm(WIDTH),
        nn.Linear(WIDTH, 4 * WIDTH),
        nn.ReLU(),
        nn.Linear(4 * WIDTH, WIDTH),
        Mean(),
        nn.LayerNorm(WIDTH),
        nn.Linear(WIDTH, CLASSES),
    )


def digits() -> tuple[Tensor, Tensor]:
    """Tokens `[examples, 64]` and labels `[examples]`."""
    pictures, labels = load_digits(return_X_y=True)
    tokens = torch.tensor(pictures, dtype=torch.int64) + 17 * torch.arange(64)
    return tokens, torch.tensor(labels)


# --- What the layers saw --------------------------------------------------------------------------


class Watched:
    """A network whose layers keep their inputs and the gradients at their outputs."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            if list(module.parameters(recurse=False)):
                module.register_forward_hook(self._forward(name))

    def _forward(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.inputs[name] = inputs[0].detach()
            if output.requires_grad:
                output.register_hook(partial(self.outputs.__setitem__, name))

        return keep

    def layers(self) -> dict[str, gradnorms.Layer]:
        """The record of each layer, by its name."""
        modules = dict(self.model.named_modules())
        return {
            name: record(modules[name], self.inputs[name], outputs)
            for name, outputs in self.outputs.items()
        }


def record(module: nn.Module, x: Tensor, g: Tensor) -> gradnorms.Layer:
    """What a layer saw, in the terms of `einsumc.gradnorms`. Tensors are read where they are."""
    match module:
        case nn.Linear():
            return gradnorms.Linear(g, x, bias=module.bias is not None)
        case nn.Embedding():
            return gradnorms.Embedding(x, g, rows=module.num_embeddings)
        case nn.LayerNorm():
            axes = len(module.normalized_shape)
            return gradnorms.LayerNorm(g, x, axes, module.eps, bias=module.bias is not None)
    raise TypeError(f"no formula for the gradients of {type(module).__name__}")


def backward(watched: Watched, tokens: Tensor, labels: Tensor) -> float:
    """Run the network and its backward pass; returns the mean loss."""
    loss = nn.functional.cross_entropy(watched.model(tokens), labels, reduction="sum")
    loss.backward()
    return loss.item() / len(labels)


# --- A step of training ---------------------------------------------------------------------------


def private_gradients(layers: Mapping[str, gradnorms.Layer], examples: int) -> dict[str, Tensor]:
    """The mean of all clipped gradients, with noise, by the names of the parameters."""
    sums = gradnorms.clipped_sums(layers, MAX_NORM)
    gradients = {}
    for layer, each in sums.items():
        for parameter, total in each.items():
            noise = NOISE * MAX_NORM * torch.randn(total.shape)
            gradients[f"{layer}.{parameter}"] = (total + noise) / examples
    return gradients


def train(model: nn.Module, tokens: Tensor, labels: Tensor, steps: int, batch: int) -> None:
    """Train with clipped and noised gradients, and print how well it goes."""
    watched = Watched(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        chosen = torch.randperm(len(tokens))[:batch]
        loss = backward(watched, tokens[chosen], labels[chosen])
        gradients = private_gradients(watched.layers(), batch)
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name]
        optimizer.step()
        if step % max(steps // 5, 1) == 0 or step == steps - 1:
            right = (model(tokens).argmax(1) == labels).float().mean().item()
            console.print(f"step {step:3}: loss {loss:.3f}, {right:.1%} of the digits recognized")


# --- The same by Opacus ---------------------------------------------------------------------------


def opacus_norms(model: nn.Module, tokens: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """Norms from gradients that Opacus forms; what is returned computes them."""
    sampled = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")

    def norms() -> Tensor:
        sampled.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(sampled(tokens), labels, reduction="sum")
        loss.backward()
        squares = [
            parameter.grad_sample.flatten(1).square().sum(1) for parameter in sampled.parameters()
        ]
        return torch.stack(squares).sum(0).sqrt()

    return norms


def our_norms(model: nn.Module, tokens: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """Norms by einsumc; what is returned computes them."""
    watched = Watched(copy.deepcopy(model))

    def norms() -> Tensor:
        backward(watched, tokens, labels)
        return gradnorms.norms(watched.layers())

    return norms


def fastest(rounds: int, *calls: Callable[[], object]) -> list[float]:
    """The least time of each call, in seconds; they take turns."""
    times = [float("inf")] * len(calls)
    for _ in range(rounds):
        for n, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            times[n] = min(times[n], time.perf_counter() - begin)
    return times


def compare(model: nn.Module, tokens: Tensor, labels: Tensor, rounds: int) -> bool:
    """Print norms' agreement and times; returns whether they agree."""
    theirs, ours = opacus_norms(model, tokens, labels), our_norms(model, tokens, labels)
    expected, found = theirs(), ours()
    error = ((found - expected).abs() / expected).max().item()
    watched = Watched(copy.deepcopy(model))
    passes = fastest(rounds, theirs, ours, lambda: backward(watched, tokens, labels))
    table = Table(title=f"gradient norms of {len(tokens)} examples")
    table.add_column("")
    table.add_column("forward, backward and norms", justify="right")
    table.add_column("norms alone", justify="right")
    for name, seconds in zip(("Opacus", "einsumc"), passes, strict=False):
        table.add_row(name, f"{1e3 * seconds:.1f} ms", f"{1e3 * (seconds - passes[2]):.1f} ms")
    console.print(table)
    console.print(f"largest relative difference of a norm: {error:.1e}")
    return error < TOLERANCE


def main() -> int:
    """Compare, then train."""
    parser = argparse.ArgumentParser(description="Train with differential privacy.")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5, help="of which the fastest counts")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    tokens, labels = digits()
    model = network()
    batch = arguments.batch
    agree = compare(model, tokens[:batch], labels[:batch], arguments.rounds)
    train(model, tokens, labels, arguments.steps, batch)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
