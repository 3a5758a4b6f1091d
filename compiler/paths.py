"""Contraction paths: who proposes them.

A path is a list of contractions, each the positions of the factors that it takes from the list of
those that are left; its result goes to the end of that list. For up to eight factors :mod:`.shared`
looks at all trees, and knows what need not be computed twice where a tensor repeats; where one is
read at windows :mod:`.windows_path` does, which knows that they overlap. From four factors on
opt_einsum and, for large networks, cotengra propose paths too, by counting operations; of more than
eight factors these are improved (:mod:`.subtrees`), and those without hope left out. (Of 250
random products of three to eight factors, those found here are faster by the cost model in 51, and
those of opt_einsum in 15. Up to eight factors it need not be installed.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import combinations
from typing import Any

from .errors import EinsumError
from .machine import Machine
from .program import Program, Statement

__all__ = [
    "MOST_FACTORS",
    "SEARCHED",
    "SMALL",
    "Path",
    "exact_path",
    "pairwise",
    "propose",
    "propose_small",
]

Path = tuple[tuple[int, ...], ...]
"""The positions of the factors that each contraction takes."""

_Search = Callable[..., Iterable[Iterable[int]]]
"""opt_einsum's protocol: (sets of indices, set of the output, extents, memory limit) -> path."""

MOST_FACTORS = 8
"""Of one statement, unless asked for: a loop nest keeps a pointer and strides for each."""

ALONE = 3
"""Factors of which there are no other trees than those that are tried anyway."""

AUTO = 14
"""Factors up to which opt_einsum's "auto" looks at more than "greedy" does."""

RANDOM = 12
"""Factors beyond which a random search finds what the others miss."""

SMALL = ", small"
"""What the names of candidates end in that were searched for their small intermediates."""

SEARCHED = "searched"
"""The name of what :mod:`.shared` proposes."""

HOPELESS = 1e8
"""A path that costs so many times the least is not improved."""

FAR = 3
"""A path that costs so many times the least of all, by a rough count, is not considered."""

WORTH_RANDOM = 1e7
"""Multiply-adds of a path from which on a random search may save more time than it takes."""

TRIALS, EFFORT = 32, 100_000
"""At most so many trials, and at most so many factors squared in all: below a tenth of a second."""


def exact_path(optimize: Any, factors: int) -> tuple[str, Path] | None:
    """What `optimize` leaves no choice about, and its name; None if a path is to be searched."""
    if optimize is None or optimize is False:
        return "unsplit", _all_at_once(factors)
    if optimize is True or isinstance(optimize, str) or callable(optimize):
        return None
    first, *rest = optimize or [()]
    if not isinstance(first, str):
        return "path", _path(optimize)
    return ("path", _path(rest)) if first == "einsum_path" else None


def propose(
    program: Program, optimize: Any, element: str, machine: Machine
) -> Iterator[tuple[str, Path]]:
    """The paths for a program's last statement that `optimize` asks to choose from, with names.

    Those that are `SEARCHED` have all the same one: their caller finds better names.
    """
    statement, extents = program.statements[-1], program.sizes
    factors = len(statement.factors)
    if optimize is not True:
        yield _search(statement, extents, *_named_search(optimize))
        return
    if factors <= MOST_FACTORS:
        yield "unsplit", _all_at_once(factors)
    if factors < 3:
        return
    from .shared import MOST_SHARED, shared_paths

    if factors <= MOST_SHARED:
        most = 3 if factors == ALONE else 2
        for path in shared_paths(statement, extents, element, machine, most):
            yield SEARCHED, path
    forward: Path = ((0, 1), *((0, left) for left in range(factors - 2, 0, -1)))
    counted = [("left to right", forward)]
    if factors > MOST_SHARED or (factors > ALONE and find_spec("opt_einsum")):
        for name in ("greedy", "auto") if factors <= AUTO else ("greedy",):
            counted.append(_search(statement, extents, *_named_search(name)))
    yield from counted if factors <= MOST_FACTORS else _improved(counted, statement, extents)
    if all(factor.is_plain for factor in statement.factors):
        return
    from .windows_path import EXHAUSTIVE, windows_path

    if factors <= EXHAUSTIVE:
        yield "windows", windows_path(statement, extents, program.shapes)


def _improved(
    found: Sequence[tuple[str, Path]], statement: Statement, extents: Mapping[str, int]
) -> Iterator[tuple[str, Path]]:
    """The better ones of some paths of many factors, and what can be made of them."""
    from .subtrees import Network

    network = Network(statement, extents)
    paths = {path: name for name, path in reversed(found)}
    costs = {path: network.cost(path) for path in paths}
    least = min(costs.values())
    if len(statement.factors) > RANDOM and least > WORTH_RANDOM and find_spec("cotengra"):
        name, path = _search(statement, extents, "cotengra", _cotengra)
        paths[path], costs[path] = name, network.cost(path)
    for path, cost in sorted(costs.items(), key=lambda each: each[1]):
        if cost <= HOPELESS * least:
            better = network.improved(path)
            if better not in costs:
                paths[better], costs[better] = f"{paths[path]}, improved", network.cost(better)
    least = min(costs.values())
    for path in sorted(costs, key=costs.__getitem__):
        if costs[path] <= FAR * least:
            yield paths[path], path


def propose_small(
    statement: Statement, extents: Mapping[str, int], optimize: Any, largest: int
) -> Iterator[tuple[str, Path]]:
    """The paths that opt_einsum finds when told how large intermediates may be.

    Where it finds none it contracts many factors at once; that is no proposal.
    """
    factors = len(statement.factors)
    names = ["greedy", *(["auto"] if factors <= AUTO else [])]
    if optimize is not True:
        names = [optimize] if isinstance(optimize, str) else []
    for name in names if factors > 2 else []:
        found, path = _search(statement, extents, *_named_search((name, largest)))
        if all(len(step) <= MOST_FACTORS for step in path):
            yield found + SMALL, path


def _all_at_once(factors: int) -> Path:
    return (tuple(range(factors)),)


def _named_search(optimize: Any) -> tuple[str, _Search, int | None]:
    """The name, the function and the memory limit that `optimize` stands for."""
    if callable(optimize):
        return getattr(optimize, "__name__", type(optimize).__name__), optimize, None
    from opt_einsum import paths  # here, since only planning needs it

    name, limit = (optimize, -1) if isinstance(optimize, str) else optimize
    try:
        search = paths.get_path_fn(name)
    except KeyError:
        raise EinsumError(f"opt_einsum has no path search called {name!r}") from None
    return f"opt_einsum {name}", search, int(limit) if 0 <= limit < math.inf else None


def _search(
    statement: Statement,
    extents: Mapping[str, int],
    name: str,
    search: _Search,
    memory_limit: int | None = None,
) -> tuple[str, Path]:
    """The path that a search finds, under the name of the search."""
    from .arguments import symbol  # where others are asked

    symbols = {index: symbol(n) for n, index in enumerate(statement.indices)}
    inputs = [frozenset(symbols[index] for index in f.names) for f in statement.factors]
    summed = {*statement.contracted}
    output = frozenset(char for index, char in symbols.items() if index not in summed)
    sizes = {char: extents[index] for index, char in symbols.items()}
    return name, _path(search(inputs, output, sizes, memory_limit))


def pairwise(
    inputs: Iterable[frozenset[str]],
    output: frozenset[str],
    extents: Mapping[str, int],
    memory_limit: int | None = None,
) -> Iterable[Iterable[int]]:
    """Two at a time, those first whose product has the fewest elements beyond theirs.

    It is in opt_einsum's protocol and needs no opt_einsum.

    >>> extents = {"i": 9, "j": 9, "k": 20, "l": 1}
    >>> list(pairwise([*map(frozenset, ("ij", "jk", "kl"))], frozenset("il"), extents))
    [(1, 2), (0, 1)]
    """
    waiting = list(inputs)

    def size(indices: Iterable[str]) -> int:
        return math.prod(extents[index] for index in indices)

    while len(waiting) > 1:
        best: tuple[int, tuple[int, int], frozenset[str]] | None = None
        for pair in combinations(range(len(waiting)), 2):
            one, other = (waiting[place] for place in pair)
            rest = output.union(*(w for place, w in enumerate(waiting) if place not in pair))
            left = (one | other) & rest
            more = size(left) - size(one) - size(other)
            if best is None or more < best[0]:
                best = more, pair, left
        assert best is not None
        _, (first, second), left = best
        del waiting[second], waiting[first]
        waiting.append(left)
        yield first, second


def _cotengra(
    inputs: Iterable[frozenset[str]], output: frozenset[str], sizes: dict[str, int], _: int | None
) -> Iterable[Iterable[int]]:
    """The random greedy search of cotengra, bounded by trials instead of time and without
    accelerators, so that it finds the same path everywhere.
    """
    from cotengra import RandomGreedyOptimizer

    terms = [sorted(term) for term in inputs]
    trials = max(min(TRIALS, EFFORT // len(terms) ** 2), 1)
    search = RandomGreedyOptimizer(max_repeats=trials, seed=0, accel=False, parallel=False)
    path: Iterable[Iterable[int]] = search(terms, sorted(output), sizes)
    return path


def _path(steps: Iterable[Iterable[int]]) -> Path:
    """A path in its one form."""
    return tuple(tuple(sorted(map(int, step))) for step in steps)
