"""Better contraction paths for many tensors: subtrees of a tree, one after the other, made optimal.

A path of pairs is a tree whose leaves are the factors. What hangs below one of its nodes is a small
product of its own: of up to `WIDEST` parts, each a factor or the result of a subtree further down,
that may be contracted in any order without that anything else changes. The best order of so few is
found by dynamic programming, over those sets of parts that are connected. The costliest nodes come
first, and it goes on for as long as a round improves something and there is effort left.

(The idea is that of `subtree_reconfigure` in cotengra: J. Gray, S. Kourtis: Hyper-optimized tensor
network contraction. Quantum 5, 2021.)

Of the chain of 100 matrices in `benchmarks/cases/einsum_instances.json`, the greedy path takes 5.4
times as many operations as the best one; from there it is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .paths import Path
from .program import Statement
from .records import dataclass

__all__ = ["Network"]

WIDEST = 8
"""Parts of a product whose best order is looked for."""

EFFORT = 150_000
"""Pairs of parts that are looked at, in all: a fifth of a second."""

WORTH = 100
"""Multiply-adds that a path costs for each pair that is looked at to make it better."""

TRAFFIC = 6
"""Multiply-adds in the time that it takes to read or write an element."""


@dataclass(slots=True)
class _Node:
    """A contraction of two subtrees, or a factor, which has none.

    Attributes:
        factors: the factors in it, as bits.
        indices: those that its result has, as bits.
        children: the subtrees.
        cost: of this contraction alone.
    """

    factors: int
    indices: int
    children: tuple[_Node, _Node] | None
    cost: float


class Network:
    """A product of factors: what a path through it costs, and a better one.

    >>> from .affine import Affine
    >>> from .program import Access
    >>> def access(name, axes):
    ...     return Access(name, tuple(map(Affine.index, axes)))
    >>> factors = tuple(access(axes, axes) for axes in ("ab", "bc", "cd", "de"))
    >>> chain = Statement(access("out", "ae"), factors)
    >>> network = Network(chain, {"a": 90, "b": 90, "c": 90, "d": 90, "e": 1})
    >>> forward = ((0, 1), (0, 2), (0, 1))
    >>> better = network.improved(forward)
    >>> better, round(network.cost(better)), round(network.cost(forward))
    (((2, 3), (1, 2), (0, 1)), 173340, 1807380)
    """

    def __init__(self, statement: Statement, extents: Mapping[str, int]) -> None:
        summed = {*statement.contracted}
        self._bits = {index: 1 << n for n, index in enumerate(statement.indices)}
        self._extents = {bit: float(extents[index]) for index, bit in self._bits.items()}
        holders = dict.fromkeys(self._extents, 0)
        self._factors = []
        for n, factor in enumerate(statement.factors):
            names = [self._bits[name] for name in factor.names]
            for bit in names:
                holders[bit] |= 1 << n
            self._factors.append(sum(names))
        # What an index that is kept belongs to lies outside of all factors.
        outside = 1 << len(statement.factors)
        for index, bit in self._bits.items():
            if index not in summed:
                holders[bit] |= outside
        self._holders = holders
        self._sizes: dict[int, float] = {}
        self._effort = 0.0
        self._known: set[tuple[int, ...]] = set()  # parts that are in their best order

    def cost(self, path: Path) -> float:
        """Multiply-adds of a path, with those that fit in the time that its traffic takes."""
        costs = []
        for step in self._steps(path):
            *parts, made = step
            union = 0
            for part in parts:
                union |= part.indices
            traffic = sum(self._size(part.indices) for part in (*parts, made))
            costs.append(self._size(union) + TRAFFIC * traffic)
        return sum(costs)

    def improved(self, path: Path) -> Path:
        """A path that costs less or as much; the same if it is not one of pairs."""
        if len(path) < 2 or any(len(step) != 2 for step in path):
            return path
        *_, (_, _, root) = self._steps(path)
        self._effort = min(EFFORT, sum(node.cost for node in _inner(root)) / WORTH)
        self._known.clear()
        improved = True
        while improved:
            improved = False
            for node in sorted(_inner(root), key=lambda node: -node.cost):
                improved |= self._improve(node)
        return _path_of(root, len(self._factors))

    def _steps(self, path: Path) -> Iterator[tuple[_Node, ...]]:
        """For each contraction its parts and what it makes."""
        left = [_Node(1 << n, indices, None, 0.0) for n, indices in enumerate(self._factors)]
        for positions in path:
            parts = [left[position] for position in positions]
            for position in sorted(positions, reverse=True):
                del left[position]
            if len(parts) == 2:
                made = self._joined(parts[0], parts[1])
            else:
                factors = sum(part.factors for part in parts)
                indices = 0
                for part in parts:
                    indices |= part.indices
                made = _Node(factors, self._kept(indices, factors), None, 0.0)
            left.append(made)
            yield (*parts, made)

    def _joined(self, first: _Node, second: _Node) -> _Node:
        factors = first.factors | second.factors
        union = first.indices | second.indices
        kept = self._kept(union, factors)
        traffic = self._size(first.indices) + self._size(second.indices) + self._size(kept)
        cost = self._size(union) + TRAFFIC * traffic
        return _Node(factors, kept, (first, second), cost)

    def _kept(self, indices: int, factors: int) -> int:
        """Those of some indices that are needed outside of the factors that are contracted."""
        rest, kept = indices, 0
        while rest:
            bit = rest & -rest
            rest ^= bit
            if self._holders[bit] & ~factors:
                kept |= bit
        return kept

    def _size(self, indices: int) -> float:
        size = self._sizes.get(indices)
        if size is None:
            size, rest = 1.0, indices
            while rest:
                bit = rest & -rest
                rest ^= bit
                size *= self._extents[bit]
            self._sizes[indices] = size
        return size

    def _improve(self, node: _Node) -> bool:
        """Contract what is below a node in the best order; whether that is better than before."""
        if self._effort <= 0:
            return False
        parts, before = _parts(node)
        key = tuple(sorted(part.factors for part in parts))
        if len(parts) < 3 or key in self._known:
            return False
        self._known.add(key)
        best = self._best(parts, before)
        if best is None:
            return False
        node.children, node.cost = best.children, best.cost
        return True

    def _best(self, parts: Sequence[_Node], most: float) -> _Node | None:
        """The best contraction of some parts; None if none costs less than `most`."""
        most *= 1 - 1e-9  # sums of the same costs in another order are not less
        levels = [{part.factors: (0.0, part) for part in parts}]
        for size in range(2, len(parts) + 1):
            found: dict[int, tuple[float, _Node]] = {}
            for few in range(1, size // 2 + 1):
                ones, others = levels[few - 1], levels[size - few - 1]
                self._effort -= len(ones) * len(others)
                for one, (first_cost, first) in ones.items():
                    for other, (second_cost, second) in others.items():
                        if one & other or not first.indices & second.indices:
                            continue
                        known = found.get(one | other)
                        limit = known[0] if known is not None else most
                        paid = first_cost + second_cost
                        if paid + self._size(first.indices | second.indices) >= limit:
                            continue
                        node = self._joined(first, second)
                        if paid + node.cost < limit:
                            found[one | other] = paid + node.cost, node
            levels.append(found)
        return next((node for _, node in levels[-1].values()), None)


def _parts(node: _Node) -> tuple[list[_Node], float]:
    """The parts of the product below a node, and what it costs now: its costliest subtrees are
    taken apart.
    """
    parts, cost = [node], 0.0
    while len(parts) < WIDEST:
        inner = [part for part in parts if part.children is not None]
        if not inner:
            break
        largest = max(inner, key=lambda part: part.cost)
        assert largest.children is not None
        cost += largest.cost
        parts.remove(largest)
        parts += largest.children
    return parts, cost


def _inner(node: _Node) -> Iterator[_Node]:
    """The contractions of a tree."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.children is not None:
            yield node
            waiting += node.children


def _path_of(root: _Node, factors: int) -> Path:
    """The path of a tree, one branch after the other."""
    order: list[_Node] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.children is not None:
            order.append(node)
            waiting += node.children
    left = [1 << n for n in range(factors)]
    path = []
    for node in reversed(order):
        assert node.children is not None
        positions = sorted(left.index(child.factors) for child in node.children)
        for position in reversed(positions):
            del left[position]
        left.append(node.factors)
        path.append(tuple(positions))
    return tuple(path)
