"""Norms of gradients of single layers against Opacus, whose functions get the same arrays.

    python benchmarks/opacus_layers.py            where torch and opacus are installed

"instantiated" are the gradients that `GradSampleModule` forms for each example, and their norms;
"ghost" is what Opacus has for "fast gradient clipping", for the layers that it has it for. Both get
the activations and gradients that hooks would hand them: no forward or backward pass is measured.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping

import torch
from einsumc import gradnorms, set_num_threads
from opacus.grad_sample import (
    GradSampleModule,
    GradSampleModuleFastGradientClipping,
)
from torch import Tensor, nn

Norms = Callable[[], Tensor]


Case = tuple[nn.Module, Tensor, Tensor, gradnorms.Layer]
"""A layer, what comes in, gradients at what comes out, and the same as a record."""


def case(layer: nn.Module, inputs: Tensor, record: Callable[..., gradnorms.Layer]) -> Case:
    """A layer with random gradients at its outputs."""
    with torch.no_grad():
        gradients = torch.randn_like(layer(inputs))
    return layer, inputs, gradients, record(gradients, inputs)


def linear(i: int, o: int, *shape: int) -> Case:
    """A linear layer for `[n, t]` or `[n]` examples."""
    return case(nn.Linear(i, o), torch.randn(*shape, i), gradnorms.Linear)


def cases() -> dict[str, Case]:
    """The layers by what they are."""
    torch.manual_seed(0)
    ids = torch.randint(5000, (16, 128))
    table = case(nn.Embedding(5000, 256), ids, lambda g, x: gradnorms.Embedding(x, g))
    norm = case(nn.LayerNorm(768), torch.randn(16, 128, 768), gradnorms.LayerNorm)
    return {
        "linear 784 to 1024, n=256": linear(784, 1024, 256),
        "linear 768 to 768, n=32, t=16": linear(768, 768, 32, 16),
        "linear 768 to 768, n=16, t=128": linear(768, 768, 16, 128),
        "linear 256 to 256, n=8, t=1024": linear(256, 256, 8, 1024),
        "embedding 5000 x 256, n=16, t=128": table,
        "layer norm 768, n=16, t=128": norm,
    }


def samplers(module: type, kind: str) -> Mapping[type, Callable[..., dict[nn.Parameter, Tensor]]]:
    """Opacus' functions of a kind, by the layers' types."""
    found: Mapping[type, Callable[..., dict[nn.Parameter, Tensor]]] = getattr(module, kind)
    return found


def instantiated(layer: nn.Module, inputs: Tensor, gradients: Tensor) -> Norms:
    """From gradients of every example."""
    sample = samplers(GradSampleModule, "GRAD_SAMPLERS")[type(layer)]

    def norms() -> Tensor:
        found = sample(layer, [inputs], gradients).values()
        return torch.stack([each.flatten(1).square().sum(1) for each in found]).sum(0).sqrt()

    return norms


def ghost(layer: nn.Module, inputs: Tensor, gradients: Tensor) -> Norms | None:
    """Without them, where Opacus can."""
    sample = samplers(GradSampleModuleFastGradientClipping, "NORM_SAMPLERS").get(type(layer))
    if sample is None:
        return None

    def norms() -> Tensor:
        found = sample(layer, [inputs], gradients).values()
        return torch.stack([each.square() for each in found]).sum(0).sqrt()

    return norms


def fastest(calls: Mapping[str, Norms], seconds: float) -> dict[str, float]:
    """The least time of each, in turns, for about so many seconds.

    A turn begins with a call that is not timed: what another one left in caches is its own then.
    """
    least = dict.fromkeys(calls, math.inf)
    until, rounds = time.perf_counter() + seconds, 0
    while rounds < 3 or time.perf_counter() < until:
        for name, call in calls.items():
            call()
            begin = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - begin)
        rounds += 1
    return least


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each layer")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    set_num_threads(arguments.threads)
    ratios: dict[str, list[float]] = {"instantiated": [], "ghost": []}
    print("| layer | einsumc | Opacus, instantiated | Opacus, ghost |")
    print("|---|---:|---:|---:|")
    for name, (layer, inputs, gradients, record) in cases().items():
        calls: dict[str, Norms] = {"einsumc": lambda record=record: gradnorms.norms(record)}
        calls["instantiated"] = instantiated(layer, inputs, gradients)
        other = ghost(layer, inputs, gradients)
        if other is not None:
            calls["ghost"] = other
        expected = calls["instantiated"]()
        for each in calls.values():
            torch.testing.assert_close(each(), expected, rtol=1e-4, atol=1e-4)
        took = fastest(calls, arguments.seconds)
        cells = [f"{1e3 * took['einsumc']:.3f} ms"]
        for kind, found in ratios.items():
            if kind in took:
                found.append(took[kind] / took["einsumc"])
                cells.append(f"{1e3 * took[kind]:.3f} ms, x {found[-1]:.2f}")
            else:
                cells.append("has none")
        print(f"| {name} | {' | '.join(cells)} |")
    for kind, found in ratios.items():
        mean = math.exp(sum(map(math.log, found)) / len(found))
        print(f"geometric mean, {kind}: {mean:.2f}")


if __name__ == "__main__":
    main()
