"""Chains: statements that share outer indices run block by block, out of a cache.

    t0[i] = sum_j x[i,j]
    t1[i,j] = x[i,j] - (t0[i] / 1024)
    t2[i] = sum_j t1[i,j] * t1[i,j]
    out[i,j] = t1[i,j] / sqrt(t2[i] / 1024)

One after the other, each statement reads from memory what the one before it wrote there. All of
them keep `i`, so they may as well be done for 64 positions of `i`, then for the next 64:

    for i in blocks of 64:                      on one thread, `t0`, `t1` and `t2` of its own
        t0[i] = ...
        out[i,j] = ...

`x` is read once from memory, though two statements read it, and `t1` never leaves the cache. Blocks
do not depend on each other, so threads take them as they take a kernel's tiles
(`compiler/chain.py`). Kernels are chosen for the extents of a block, as for any call: a chain may
round otherwise than its statements one by one.

Where a product packs an operand that all blocks need, every block packs it again. Which chains are
worth it, and in what blocks, the cost model says; how large blocks may be follows from the caches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import ceil, inf, prod

from .cost import rate, statement_cost
from .machine import Machine
from .program import Access, Program, Statement
from .records import dataclass
from .sliced import Slice
from .workspace import Workspace, most_alive, workspace

__all__ = ["MOST_LOOPS", "Chain", "chains", "common_workspace", "own_workspace"]

MOST_LOOPS = 4
"""Around a chain: see `compiler/chain.py`."""

LEAST_BLOCKS = 16
"""So many blocks keep all threads busy."""

GAIN = 0.95
"""A chain takes at most this part of the time without it, or is none: a prediction is no more."""

LONGEST = 12
"""Statements of a chain."""

MOST_STATEMENTS = 64
"""Programs of more are networks, whose intermediates are small."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Statements `first` to `last`, which is not among them, of a program.

    Attributes:
        first: a statement's number.
        last: another one.
        slices: the loops around them, outermost first; all but the last are in steps of one.
        local: the intermediates that nothing else reads, of which there is a block alone.
    """

    first: int
    last: int
    slices: tuple[Slice, ...]
    local: frozenset[str]

    def __str__(self) -> str:
        """What is done how: `1 to 4: i in 256 blocks of 32`."""
        return f"{self.first + 1} to {self.last}: {', '.join(map(str, self.slices))}"

    @property
    def blocks(self) -> int:
        """How many there are."""
        return prod(each.count for each in self.slices)


def own_workspace(program: Program, chain: Chain, element: str) -> Workspace:
    """Where a block of each of a chain's own intermediates is.

    The program has the extents of a block; what has no type of its own is of ``element``.
    """
    shapes = program.shapes
    sizes = {
        tensor.name: prod(shapes[tensor.name]) * int((tensor.element or element)[1:])
        for tensor in program.tensors
        if tensor.name in chain.local
    }
    return workspace(program.statements[chain.first : chain.last], sizes)


def common_workspace(
    program: Program, found: Sequence[Chain], sizes: Mapping[str, int]
) -> Workspace:
    """Where all other intermediates are; `sizes` are the bytes of all."""
    local = frozenset(name for chain in found for name in chain.local)
    statements = list(program.statements)
    for chain in found:
        # Blocks run through a chain one after the other: whatever it needs it needs until its end.
        inside = statements[chain.first : chain.last]
        read = tuple(access for each in inside for access in each.accesses)
        for number in range(chain.first, chain.last):
            statements[number] = Statement(statements[number].target, read)
    return workspace(statements, {name: n for name, n in sizes.items() if name not in local})


def chains(
    program: Program,
    element: str,
    machine: Machine,
    runs: Callable[[Statement], bool] = lambda statement: True,
) -> list[Chain]:
    """The chains of a program that make it faster, in their order.

    Args:
        program: in the order of execution.
        element: type of most elements, such as ``f4``.
        machine: its caches, and what the costs are for.
        runs: whether a kernel does a statement, in one call.

    >>> from .affine import Affine
    >>> from .machine import TARGETS
    >>> from .program import Tensor
    >>> def access(name, axes):
    ...     return Access(name, tuple(map(Affine.index, axes)))
    >>> x, t, out = access("x", "ij"), access("t", "ij"), access("out", "i")
    >>> tensors = Tensor("x", (8192, 1024)), Tensor("out", (8192,))
    >>> square = Program(tensors, ("x",), (), ("out",), (("i", 8192), ("j", 1024)))
    >>> square = square.with_statements([Statement(t, (x, x)), Statement(out, (t,))])
    >>> for chain in chains(square, "f4", Machine(TARGETS["x86-64-v3"])):
    ...     print(*chain.slices, *chain.local)
    i in 128 blocks of 64 t
    """
    count = len(program.statements)
    if not 1 < count <= MOST_STATEMENTS or not _is_large(program, element, machine):
        return []
    search = _Search(program, element, machine, runs)
    best: list[float] = [0.0] * (count + 1)
    chosen: list[Chain | None] = [None] * count
    for first in reversed(range(count)):
        best[first] = search.alone[first] + best[first + 1]
        for seconds, chain in search.starting(first):
            if seconds + best[chain.last] < best[first]:
                best[first], chosen[first] = seconds + best[chain.last], chain
    found: list[Chain] = []
    first = 0
    while first < count:
        taken = chosen[first]
        if taken is not None:
            found.append(taken)
        first = first + 1 if taken is None else taken.last
    return found


def _is_large(program: Program, element: str, machine: Machine) -> bool:
    """Whether anything that is read after it was made, or read again, leaves a core's own cache."""
    items = {t.name: int((t.element or element)[1:]) for t in program.tensors}
    return any(
        prod(program.shapes[name]) * items[name] > machine.l2_bytes
        for name in {s.target.tensor for s in program.statements} | _read_again(program.statements)
        if name not in program.results
    )


def _read_again(statements: Iterable[Statement]) -> set[str]:
    """The tensors that several of these statements read."""
    readers = Counter(name for s in statements for name in {a.tensor for a in s.accesses})
    return {name for name, count in readers.items() if count > 1}


class _Search:
    """The search for the chains of a program."""

    def __init__(
        self,
        program: Program,
        element: str,
        machine: Machine,
        runs: Callable[[Statement], bool],
    ) -> None:
        self.program, self.machine, self.element = program, machine, element
        self.sizes, self.statements = program.sizes, program.statements
        self.items = {t.name: int((t.element or element)[1:]) for t in program.tensors}
        self.alone = [self._cost(each, {}) for each in self.statements]
        self.fit = [_is_plain(each) and runs(each) for each in self.statements]
        self.last_read = {
            access.tensor: number
            for number, statement in enumerate(self.statements)
            for access in statement.accesses
        }

    def starting(self, first: int) -> Iterator[tuple[float, Chain]]:
        """The chains that begin with a statement, each with its predicted time."""
        statements = self.statements
        shared: Collection[str] = statements[first].target.names
        made: dict[str, Access] = {}
        for last in range(first, min(len(statements), first + LONGEST)):
            if not self.fit[last]:
                return
            shared = _shared(shared, statements[last], made)
            if not shared:
                return
            made[statements[last].target.tensor] = statements[last].target
            local = frozenset(
                name
                for name in made
                if name not in self.program.results and self.last_read.get(name, last) <= last
            )
            again = _read_again(statements[first : last + 1]) - made.keys()
            if last == first or not self._leaves_cache(local | again):
                continue
            before = sum(self.alone[first : last + 1])
            for slices in self._loops([i for i in shared if self.sizes[i] > 1], local, again):
                chain = Chain(first, last + 1, slices, local)
                seconds = self._seconds(chain)
                if seconds <= GAIN * before and not self._packs_again(chain):
                    yield seconds, chain

    def _packs_again(self, chain: Chain) -> bool:
        """Whether a product needs a large operand whole in each block, and packs it each time."""
        loops = {each.index for each in chain.slices}
        return any(
            loops.isdisjoint(factor.names)
            and prod(self.sizes[i] for i in factor.names) * self.items[factor.tensor]
            > self.machine.l1_bytes
            for statement in self.statements[chain.first : chain.last]
            if len(statement.factors) > 1 and statement.contracted
            for factor in statement.factors
        )

    def _leaves_cache(self, tensors: Collection[str]) -> bool:
        shapes = self.program.shapes
        bytes_ = (prod(shapes[name]) * self.items[name] for name in tensors)
        return max(bytes_, default=0) > self.machine.l2_bytes

    def _loops(
        self, shared: Sequence[str], local: Collection[str], again: Collection[str]
    ) -> Iterator[tuple[Slice, ...]]:
        """Loops over the first of these indices, so that a block stays in a core's own cache.

        A block has what is `local`, and what is read `again`.
        """
        for depth in range(1, min(len(shared), MOST_LOOPS) + 1):
            outer, inner = shared[: depth - 1], shared[depth - 1]
            ones = dict.fromkeys([*outer, inner], 1)
            position = self._block_bytes(local, ones) + self._read_bytes(again, ones)
            extent, runs = self.sizes[inner], prod(self.sizes[i] for i in outer)
            most = extent // max(1, ceil(LEAST_BLOCKS / runs))
            tried: dict[int, None] = {}
            for room in (self.machine.l2_bytes // 4, self.machine.l2_bytes // 2):
                block = _rounded(min(max(room // max(position, 1), 1), most))
                if block and (position <= 2 * self.machine.l2_bytes or len(shared) == depth):
                    tried[block] = None
            for block in tried:
                steps = [*((index, 1) for index in outer), (inner, block)]
                yield tuple(Slice(i, self.sizes[i], step, False) for i, step in steps)

    def _block_bytes(self, local: Collection[str], blocks: dict[str, int]) -> int:
        """The most bytes of a block of these tensors that are needed at once."""
        extents = {**self.sizes, **blocks}
        inside = [s for s in self.statements if s.target.tensor in local]
        sizes = {
            s.target.tensor: prod(extents[i] for i in s.target.names) * self.items[s.target.tensor]
            for s in inside
        }
        return most_alive(self.statements, sizes)[0]

    def _read_bytes(self, tensors: Collection[str], blocks: dict[str, int]) -> int:
        """The bytes of a block of what is made elsewhere."""
        extents = {**self.sizes, **blocks}
        reads = {
            access.tensor: prod(extents[i] for i in access.names) * self.items[access.tensor]
            for statement in self.statements
            for access in statement.accesses
            if access.tensor in tensors
        }
        return sum(reads.values())

    def _seconds(self, chain: Chain) -> float:
        """The predicted time of a chain: that of all blocks, and of what comes from further away.

        The cost of a block takes its operands to be where the block is; each that is not made there
        is read, or written, once from where all of it is.
        """
        blocks = {each.index: each.block for each in chain.slices}
        inside = self.statements[chain.first : chain.last]
        seconds = chain.blocks * sum(self._cost(each, blocks) for each in inside)
        outside = {
            access.tensor: prod(self.sizes[i] for i in access.names) * self.items[access.tensor]
            for each in inside
            for access in (*each.accesses, each.target)
            if access.tensor not in chain.local and not blocks.keys().isdisjoint(access.names)
        }
        moved, speeds = sum(outside.values()), self.machine.speeds
        far, near = (
            rate(speeds.read, speeds.read_all, size, self.machine, threads=1)
            for size in (moved, self.machine.l2_bytes)
        )
        return seconds + moved * max(0.0, 1 / far - 1 / near)

    def _cost(self, statement: Statement, blocks: dict[str, int]) -> float:
        extents = {**self.sizes, **blocks} if blocks else self.sizes
        if 0 in (extents[i] for i in statement.indices):
            return inf
        return statement_cost(statement, extents, self.element, self.machine).seconds


def _is_plain(statement: Statement) -> bool:
    """Whether a block of an index is a block of whatever has it."""
    return all(access.is_plain for access in (statement.target, *statement.accesses))


def _shared(
    shared: Collection[str], statement: Statement, made: dict[str, Access]
) -> Sequence[str]:
    """Those of the indices that a statement keeps, and by which it reads what was made by them."""
    found = [index for index in shared if index in statement.target.names]
    for access in statement.accesses:
        maker = made.get(access.tensor)
        if maker is not None:
            same = {
                one.names[0]
                for one, other in zip(maker.subscripts, access.subscripts, strict=True)
                if one == other
            }
            found = [index for index in found if index in same]
    return found


def _rounded(block: int) -> int:
    """A block of about as many positions, in whole registers if there are so many.

    >>> [_rounded(block) for block in (5, 13, 100)]
    [5, 8, 96]
    """
    return block if block < 8 else block // 8 * 8 if block < 64 else block // 32 * 32
