"""Better paths: they are paths, cost no more, and are the best where that is known."""

from __future__ import annotations

from random import Random

import numpy as np
from einsumc.compiler.affine import Affine
from einsumc.compiler.evaluate import evaluate
from einsumc.compiler.follow import follow
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.paths import Path, propose
from einsumc.compiler.program import Access, Program, Statement, Tensor
from einsumc.compiler.subtrees import TRAFFIC, WIDEST, Network


def product(terms: list[list[str]], output: list[str], sizes: dict[str, int]) -> Program:
    accesses = [Access(f"x{n}", tuple(map(Affine.index, names))) for n, names in enumerate(terms)]
    out = Access("out", tuple(map(Affine.index, output)))
    tensors = [Tensor(a.tensor, tuple(sizes[name] for name in a.names)) for a in (*accesses, out)]
    names = tuple(each.tensor for each in accesses)
    statement = Statement(out, tuple(accesses))
    return Program(tuple(tensors), names, (statement,), ("out",), tuple(sizes.items()))


def forward(factors: int) -> Path:
    return ((0, 1), *((0, left) for left in range(factors - 2, 0, -1)))


def test_the_best_order_of_a_chain_is_found() -> None:
    random = Random(0)
    for _ in range(20):
        sizes = [random.randint(2, 90) for _ in range(WIDEST + 1)]
        names = [f"i{n}" for n in range(WIDEST + 1)]
        chain = product(
            [names[n : n + 2] for n in range(WIDEST)],
            [names[0], names[-1]],
            dict(zip(names, sizes, strict=True)),
        )
        least: dict[tuple[int, int], float] = {(n, n + 1): 0 for n in range(WIDEST)}
        for length in range(2, WIDEST + 1):
            for i in range(WIDEST + 1 - length):
                j = i + length
                least[i, j] = min(
                    least[i, k]
                    + least[k, j]
                    + sizes[i] * sizes[k] * sizes[j]
                    + TRAFFIC * (sizes[i] * sizes[k] + sizes[k] * sizes[j] + sizes[i] * sizes[j])
                    for k in range(i + 1, j)
                )
        network = Network(chain.statements[-1], chain.sizes)
        network_path = network.improved(forward(WIDEST))
        assert np.isclose(network.cost(network_path), least[0, WIDEST])


def test_better_paths_compute_the_same() -> None:
    """Of networks with indices in up to four tensors, some of which are kept."""
    random = Random(1)
    better = 0
    for _ in range(12):
        factors = random.randint(9, 14)
        names = [f"i{n}" for n in range(factors + 4)]
        sizes = {name: random.randint(1, 3) for name in names}
        terms: list[list[str]] = [[] for _ in range(factors)]
        for name in names:
            for term in random.sample(terms, random.choice((1, 2, 2, 2, 3, 4))):
                term.append(name)
        program = product(terms, random.sample(names, 2), sizes)
        statement = program.statements[-1]
        network, path = Network(statement, program.sizes), forward(factors)
        found = network.improved(path)
        assert network.cost(found) <= network.cost(path) * (1 + 1e-9)
        better += network.cost(found) < network.cost(path)
        generator = np.random.default_rng(0)
        arrays = {t.name: generator.random(t.axes) for t in program.tensors[:-1]}
        first, second = (evaluate(follow(program, p), arrays) for p in (path, found))
        np.testing.assert_allclose(first, second)
    assert better > 6


def test_many_tensors_get_a_better_path_than_the_greedy_one() -> None:
    random = Random(3)
    sizes = {f"i{n}": random.randint(50, 500) for n in range(41)}
    names = list(sizes)
    terms = [names[n : n + 2] for n in range(40)]
    program = product(terms, [names[0], names[-1]], sizes)
    found = dict(propose(program, True, "f8", Machine(TARGETS["x86-64-v3"])))
    network = Network(program.statements[-1], sizes)
    greedy = next(
        iter(dict(propose(program, "greedy", "f8", Machine(TARGETS["x86-64-v3"]))).values())
    )
    assert min(map(network.cost, found.values())) < 0.8 * network.cost(greedy)
