"""Contraction trees of products in which tensors repeat: equal parts are counted once.

Searches that count operations take every subtree for itself, and so never find that

    out[n] = sum_{t,s,i,j} b[n,t,i] * b[n,s,i] * a[n,t,j] * a[n,s,j]

falls into two halves that are equal up to the names of `t` and `s`: that the sum over `t` of the
one, computed once, has only to be squared and summed. Here subsets of the factors are put into
classes: those in one class are the same tensor, up to the names of indices and the order of axes.
Dynamic programming over subsets then finds for every way to split the whole into two parts the
cheapest tree, whose cost is that of the classes in it. What comes out are trees of all kinds: equal
halves ("instantiated": the square of a sum), products of Gram matrices, and mixtures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, islice
from math import prod

from .access import Access
from .affine import Affine
from .machine import Machine
from .program import Statement
from .rewrite.renaming import fingerprint, renamings

__all__ = ["MOST_SHARED", "shared_paths"]

MOST_SHARED = 8
"""Factors up to which all subsets are looked at."""

_NARROW = 4
"""A contraction with a side that is shorter than this runs at an eighth of the peak."""


def shared_paths(
    statement: Statement, sizes: Mapping[str, int], element: str, machine: Machine, most: int = 2
) -> list[tuple[tuple[int, ...], ...]]:
    """Paths of the cheapest trees of a product, each of other parts than the ones before it.

    Args:
        statement: its factors are contracted; an epilogue keeps the indices that it needs.
        sizes: the extent of each index.
        element: type of all elements, such as ``f4``.
        machine: what the costs are for. They are rough: the caller is to compare what comes out.
        most: so many paths; one of two equal halves is added, if there is any.

    >>> from .machine import TARGETS
    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> expression = resolve(parse("nti,nsi,ntj,nsj->n"), [(8, 20, 50)] * 4)
    >>> program = from_expression(expression, "bbaa", same=[0, 0, 2, 2])
    >>> machine = Machine(TARGETS["x86-64-v3"])
    >>> shared_paths(program.statements[0], program.sizes, "f4", machine, most=1)
    [((0, 1), (0, 1), (0, 1)), ((0, 2), (0, 1), (0, 1))]
    """
    factors = len(statement.factors)
    if not 2 < factors <= MOST_SHARED:
        return []
    search = _Search(statement, sizes, element, machine)
    found: dict[float, tuple[int, int]] = {}  # trees that cost the same are mostly mirror images
    for left, right in search.splits(search.whole):
        seconds, _ = search.joined(search.whole, left, right)
        if seconds not in found or search.class_of[left] == search.class_of[right]:
            found[seconds] = left, right
    cheapest = sorted(found)
    halves = (s for s in cheapest if len({search.class_of[part] for part in found[s]}) == 1)
    chosen = sorted({*cheapest[:most], *islice(halves, 1)})
    return [search.path(*found[seconds]) for seconds in chosen]


_Tree = tuple[float, dict[int, float]]
"""Seconds, and those of each class of subsets that the tree computes."""


class _Search:
    """Subsets of the factors and of the indices are sets of bits."""

    def __init__(
        self, statement: Statement, sizes: Mapping[str, int], element: str, machine: Machine
    ) -> None:
        self.statement, self.sizes = statement, sizes
        self.whole = (1 << len(statement.factors)) - 1
        indices = statement.indices
        bit = {name: 1 << place for place, name in enumerate(indices)}
        self.extents = [sizes[name] for name in indices]
        self.names = [sum(bit[name] for name in f.names) for f in statement.factors]
        self.needed = sum(bit[name] for name in indices if name not in statement.contracted)
        self.plain = {bit[name]: Affine.index(name) for name in indices}
        self.flops = 1 / machine.speeds.flops.of(element)
        self.moved = int(element[1:]) / machine.speeds.read.l3
        self.call = machine.speeds.call
        self.volumes: dict[int, float] = {}
        self.best: dict[int, tuple[_Tree, int, int]] = {}
        self.have = [0] * (self.whole + 1)  # the indices of each subset's factors
        for subset in range(1, self.whole + 1):
            low = subset & -subset
            self.have[subset] = self.have[subset ^ low] | self.names[low.bit_length() - 1]
        self.kept = [self._kept(subset) for subset in range(self.whole + 1)]
        self.tensors = [f.tensor for f in statement.factors]
        self.class_of = self._classes()
        for subset in sorted(range(1, self.whole), key=int.bit_count):
            if subset.bit_count() > 1:
                trees = (
                    (self.joined(subset, left, right), left, right)
                    for left, right in self.splits(subset)
                )
                self.best[subset] = min(trees, key=lambda each: each[0][0])

    def _classes(self) -> list[int]:
        """A number for each subset, the same one where they are the same tensor."""
        classes = list(range(self.whole + 1))
        if len({*self.tensors}) == len(self.tensors):
            return classes
        for size in range(1, len(self.tensors) // 2 + 1):
            kinds: dict[object, list[tuple[Statement, int]]] = {}
            for places in combinations(range(len(self.tensors)), size):
                subset = sum(1 << place for place in places)
                kinds.setdefault(tuple(sorted(self.tensors[p] for p in places)), []).append(
                    (self._part(subset), subset)
                )
            for alike in kinds.values():
                known: dict[object, list[tuple[Statement, int]]] = {}
                for part, subset in alike if len(alike) > 1 else ():
                    others = known.setdefault(fingerprint(part), [])
                    for other, number in others:
                        if next(renamings(other, part, self.sizes), None) is not None:
                            classes[subset] = number
                            break
                    else:
                        others.append((part, subset))
        return classes

    def _kept(self, subset: int) -> int:
        """The indices of a subset's product that are needed outside of it."""
        return self.have[subset] & (self.have[self.whole ^ subset] | self.needed)

    def _part(self, subset: int) -> Statement:
        kept = self.kept[subset]
        axes = tuple(axis for bit, axis in self.plain.items() if bit & kept)
        factors = (f for place, f in enumerate(self.statement.factors) if subset >> place & 1)
        return Statement(Access("", axes), tuple(factors))

    def volume(self, indices: int) -> float:
        """The product of the extents of some indices."""
        known = self.volumes.get(indices)
        if known is None:
            extents = [e for place, e in enumerate(self.extents) if indices >> place & 1]
            known = self.volumes[indices] = float(min(prod(extents), 10**300))
        return known

    def splits(self, subset: int) -> Iterator[tuple[int, int]]:
        """Every way to part a subset in two; the first part has its first factor."""
        first = subset & -subset
        rest = subset ^ first
        part = rest
        while part:
            part = (part - 1) & rest
            yield first | part, rest ^ part

    def joined(self, subset: int, left: int, right: int) -> _Tree:
        """The best trees of two parts, and their product."""
        classes: dict[int, float] = {}
        for part in (left, right):
            if part in self.best:
                classes |= self.best[part][0][1]
        classes[self.class_of[subset]] = self._step(subset, left, right)
        return sum(classes.values()), classes

    def _step(self, subset: int, left: int, right: int) -> float:
        """About the seconds of the product of two parts."""
        x, y, out, volume = self.kept[left], self.kept[right], self.kept[subset], self.volume
        every = x | y
        narrow = (
            volume(x & ~y & out) < _NARROW
            or volume(y & ~x & out) < _NARROW
            or volume(every & ~out) < _NARROW
        )
        work = volume(every) * (16 if narrow else 2) * self.flops
        if x != y and self.class_of[left] == self.class_of[right]:
            work /= 2  # a Gram matrix: its half is enough
        elements = volume(x) + volume(y) + volume(out)
        return self.call + work + elements * self.moved

    def path(self, left: int, right: int) -> tuple[tuple[int, ...], ...]:
        """The path of the tree whose last step joins two parts."""
        items = [1 << place for place in range(len(self.tensors))]
        steps: list[tuple[int, ...]] = []

        def contract(subset: int, parts: tuple[int, int] | None = None) -> None:
            if subset.bit_count() == 1:
                return
            one, other = parts or self.best[subset][1:]
            contract(one)
            contract(other)
            step = tuple(sorted((items.index(one), items.index(other))))
            for place in reversed(step):
                del items[place]
            items.append(subset)
            steps.append(step)

        contract(left | right, (left, right))
        return tuple(steps)
