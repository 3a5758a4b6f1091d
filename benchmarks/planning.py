"""What planning a network of many tensors takes, beside one run of it.

    python benchmarks/planning.py [--json planning.json]

Each network is planned in a process that has planned another one before, so that nothing is
imported any more, and no plan is taken from a store: a process that finds one there does not plan.
Printed are the steps and how many kernels they share; the time of planning, and that of a later
call, the fastest of several; and the peak of what intermediates take, beside the sum of all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

Network = tuple[str, list[tuple[int, ...]]]
"""An equation in spaced names, and the shapes of its operands."""


@dataclass(frozen=True)
class Planned:
    """What was measured of one network; times in seconds, sizes in bytes."""

    name: str
    tensors: int
    steps: int
    kernels: int
    planning: float
    later: float
    peak: int
    intermediates: int


def matrix_product_state(sites: int = 150, bond: int = 16) -> Network:
    """The norm of a matrix product state: two rows of tensors, joined site by site."""
    terms, shapes = [], []
    for row in "ab":
        for site in range(sites):
            left = [f"{row}{site}"] if site else []
            right = [f"{row}{site + 1}"] if site < sites - 1 else []
            terms.append(" ".join([*left, f"p{site}", *right]))
            shapes.append((bond,) * len(left) + (2,) + (bond,) * len(right))
    return f"{', '.join(terms)} ->", shapes


def lattice(side: int = 10, bond: int = 2) -> Network:
    """A square of tensors, each joined to its neighbours."""
    terms, shapes = [], []
    for y in range(side):
        for x in range(side):
            names = []
            names += [f"h{y}_{x}"] if x else []
            names += [f"h{y}_{x + 1}"] if x < side - 1 else []
            names += [f"v{y}_{x}"] if y else []
            names += [f"v{y + 1}_{x}"] if y < side - 1 else []
            terms.append(" ".join(names))
            shapes.append((bond,) * len(names))
    return f"{', '.join(terms)} ->", shapes


def random_regular(tensors: int = 60, bond: int = 3) -> Network:
    """Tensors of three indices, joined at random."""
    random = Random(0)
    while True:
        ends = [tensor for tensor in range(tensors) for _ in range(3)]
        random.shuffle(ends)
        pairs = list(zip(ends[::2], ends[1::2], strict=True))
        simple = {tuple(sorted(pair)) for pair in pairs}
        if len(simple) == len(pairs) and all(a != b for a, b in pairs):
            break
    names: list[list[str]] = [[] for _ in range(tensors)]
    for number, pair in enumerate(pairs):
        for tensor in pair:
            names[tensor].append(f"i{number}")
    terms = ", ".join(" ".join(each) for each in names)
    return f"{terms} ->", [(bond,) * 3] * tensors


def chain(matrices: int = 100) -> Network:
    """Matrices of 10 to 150 rows, one after the other."""
    random = Random(0)
    sizes = [random.randint(10, 150) for _ in range(matrices + 1)]
    terms = ", ".join(f"i{n} i{n + 1}" for n in range(matrices))
    return f"{terms} -> i0 i{matrices}", list(pairwise(sizes))


NETWORKS: dict[str, Callable[[], Network]] = {
    "norm of a matrix product state, 150 sites": matrix_product_state,
    "lattice of 10 x 10": lattice,
    "random, three indices each": random_regular,
    "chain of 100 matrices": chain,
}


def measure(name: str, network: Network, rounds: int) -> Planned:
    """Plan and run a network."""
    import numpy as np
    from einsumc import compile_einsum

    equation, shapes = network
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(shape) / np.sqrt(np.prod(shape)) for shape in shapes]
    begin = time.perf_counter()
    plan = compile_einsum(equation).explain(*arrays)
    planning = time.perf_counter() - begin
    compiled = compile_einsum(equation)
    compiled(*arrays)  # compiles what is in no store
    later = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        compiled(*arrays)
        later = min(later, time.perf_counter() - begin)
    return Planned(
        name,
        len(arrays),
        len(plan.steps),
        len({step.key for step in plan.steps}),
        planning,
        later,
        plan.peak_memory,
        plan.temporary_bytes,
    )


def rows(found: list[Planned]) -> Iterator[str]:
    """The table, line by line."""
    yield f"{'network':44} steps kernels  planning  later calls   peak / all MiB"
    for each in found:
        times = f"{1e3 * each.planning:6.0f} ms {1e3 * each.later:9.2f} ms"
        memory = f"{each.peak / 2**20:8.2f} / {each.intermediates / 2**20:.2f}"
        yield f"{each.name:44} {each.steps:5} {each.kernels:7} {times}   {memory}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["EINSUMC_NUM_THREADS"] = str(options.threads)
    with TemporaryDirectory() as store:
        os.environ["EINSUMC_CACHE_DIR"] = store
        measure("", chain(12), 1)
        found = [measure(name, make(), options.rounds) for name, make in NETWORKS.items()]
    print("\n".join(rows(found)))
    if options.json:
        text = json.dumps({"networks": [asdict(each) for each in found]}, indent=1)
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
