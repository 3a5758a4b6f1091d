"""Slicing: compute a program piece by piece, so that its intermediates take less memory.

    t0[i,k] = sum_j a[i,j] * b[j,k]
    out[i,l] = sum_k t0[i,k] * c[k,l]

with `i` sliced in blocks of 100:

    for i in blocks of 100:
        t0[i,k] = sum_j a[i,j] * b[j,k]
        out[i,l] = sum_k t0[i,k] * c[k,l]

and `t0` is as long along `i` as a block. Where the index is kept, as here, every piece writes a
part of the result. Where it is summed the pieces are partial sums, and are added up. A piece runs
the kernels that the whole would run: they take extents and strides; a block begins at an offset.
A program may have several results: an index may be kept in one and summed in another.

Statements that do not depend on the index of an inner loop run outside of it (their *level* is how
many loops are around them) if there is memory for what they leave.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from operator import mul

from .cost import statement_cost
from .errors import EinsumError
from .machine import Machine
from .program import Access, Program, Statement
from .records import dataclass, replace
from .sliced import (
    TOTAL,
    Element,
    Slice,
    Sliced,
    added_results,
    adding,
    arrange,
    dependences,
    index_sums,
    intermediate_bytes,
    with_extents,
)
from .workspace import depth_first, most_alive

__all__ = ["fit"]

MOST_RUNS = 1 << 20
"""Of one statement: more pieces than this would take for ever."""

SEARCHED = 2
"""So many programs are tried to be sliced, those with the least predicted time."""

BLOCK = 16
"""Blocks of at least so many positions are made multiples of 8, and begin on cache lines."""

SHORT = 64
"""Indices that are longer may have a last block that is shorter than the others."""


def fit(
    candidates: Mapping[str, Program],
    limit: int,
    element: Element,
    machine: Machine,
    fixed: Collection[str] = (),
) -> tuple[str, Sliced]:
    """The fastest way to compute one of several equal programs in a workspace of at most `limit`.

    Programs that fit as they are compete with slices of those that would be fastest.

    Args:
        candidates: programs by name, with the indices' whole extents.
        limit: in bytes.
        element: sizes of elements.
        machine: what the costs are for.
        fixed: indices that are not to be sliced.

    Returns:
        The name of the program, and how to run it.

    Raises:
        EinsumError: (a ValueError) there is none; the message says what could be reached.
    """
    distinct = {id(program): (name, program) for name, program in candidates.items()}
    searches = {
        name: _Search(program, element, machine, fixed) for name, program in distinct.values()
    }
    found: tuple[str, Sliced] | None = None
    best = inf  # seconds
    least: list[int] = []
    for name, search in sorted(searches.items(), key=lambda item: item[1].seconds):
        if search.seconds >= best:
            break  # slices of it would be slower still
        as_it_is = arrange(candidates[name], element)
        if as_it_is.workspace.size <= limit:
            return name, as_it_is  # the others that fit are slower
        if len(least) < SEARCHED:
            seconds, made = search.run(limit, best)
            least.append(made.workspace.size)
            if made.workspace.size <= limit:
                found, best = (name, made), seconds
    if found is None:
        from .show import size

        raise EinsumError(
            f"memory_limit={limit}: the intermediates of this contraction need at least "
            f"{min(least)} bytes ({size(min(least))}), sliced as far as einsumc does"
        )
    return found


@dataclass(frozen=True, slots=True)
class _State:
    """A set of blocks, and what they lead to."""

    slices: tuple[Slice, ...]
    hoisted: bool
    seconds: float
    runs: int
    peak: int
    at_peak: tuple[str, ...]  # the indices of the intermediates that live at the peak


def _not_plain(access: Access) -> Iterator[str]:
    """The indices that an access with an affine axis has there, or twice."""
    seen: set[str] = set()
    if all(axis.is_index for axis in access.subscripts):
        return
    for axis in access.subscripts:
        yield from axis.names if not axis.is_index else seen.intersection(axis.names)
        seen.update(axis.names)


def _read_otherwise(statements: Sequence[Statement]) -> Iterator[str]:
    """The indices of axes of intermediates that are written along one and read along another.

    What `t` and `s` need of `t0[t]` and `t0[s]`, which are computed once, are different blocks.
    """
    made = {statement.target.tensor: statement.target for statement in statements}
    for statement in statements:
        for access in statement.accesses:
            if access.tensor in made:
                written = made[access.tensor].subscripts
                for one, other in zip(written, access.subscripts, strict=True):
                    if one != other:
                        yield from (*one.names, *other.names)


def _not_linear(program: Program) -> Iterator[str]:
    """The indices whose sums a result is a product of, if it is one of two or more.

    Pieces of `sum_t a[t]` may be added up, but not those of its square. Equal sums are computed
    once, so that such a sum may be read in several places.
    """
    sums = index_sums(program.statements)
    halves = {tensor.name for tensor in program.tensors if tensor.element == "f2"}
    targets = {statement.target.tensor: statement.target for statement in program.statements}
    for result in program.results:
        for index, count in sums[result].items():
            if count > 1 or result in halves or index in targets[result].names:
                yield index


class _Search:
    """The search for the slices of a program.

    Round by round, the index is sliced further that lowers the peak most for the time that it adds.
    Only those matter that the intermediates have which live at the peak.
    """

    def __init__(
        self, program: Program, element: Element, machine: Machine, fixed: Collection[str] = ()
    ) -> None:
        self.element, self.machine = element, machine
        self.extents = program.sizes
        statements = depth_first(
            program.statements, intermediate_bytes(program, self.extents, (), element)
        )
        self.program = replace(program, statements=tuple(statements))
        self.axes = {statement.target.tensor: statement.target.names for statement in statements}
        results = [self.axes[name] for name in program.results]
        self.axes[TOTAL] = results[-1]
        self.kept = {index for axes in results for index in axes}
        self.statements = (*statements, *(adding(program, name) for name in program.results))
        self.indices = [statement.indices for statement in self.statements]
        self.depends = dependences(statements)
        self.whole = {
            name
            for statement in statements
            for access in (statement.target, *statement.accesses)
            for name in _not_plain(access)
        }
        self.whole.update(_read_otherwise(statements), _not_linear(self.program), fixed)
        self.costs: dict[tuple[int, tuple[int, ...]], float] = {}
        self.seconds = sum(self._cost(n, self.extents) for n in range(len(statements)))

    def run(self, limit: int, longest: float) -> tuple[float, Sliced]:
        """Slice until the intermediates fit, or as far as it goes: predicted time and slices.

        It goes no further than to a predicted time of ``longest`` seconds.
        """
        current = best = self._state({}, limit)
        while True:
            if current.peak <= limit:
                sliced = self._sliced(current)
                if sliced.workspace.size <= limit:
                    return current.seconds, sliced
            tried = [
                state
                for state in self._next(current, limit)
                if state.runs <= MOST_RUNS and state.seconds < longest
            ]
            if not tried:
                return best.seconds, self._sliced(best)
            before = current
            current = max(tried, key=lambda state: _merit(before, state, limit))
            best = min(best, current, key=lambda state: state.peak)

    def _next(self, state: _State, limit: int) -> Iterator[_State]:
        """The states in which one index more is sliced, or sliced further."""
        blocks = {each.index: each.block for each in state.slices}
        for index in state.at_peak:
            if index in self.whole:
                continue  # where a block begins decides what it may read
            extent = self.extents[index]
            block = _smaller(extent, blocks.get(index, extent))
            if block:
                yield self._state({**blocks, index: block}, limit)

    def _state(self, blocks: Mapping[str, int], limit: int) -> _State:
        """What these blocks lead to, with statements hoisted if there is memory for it."""
        extents = {**self.extents, **blocks}
        costs = [self._cost(n, extents) for n in range(len(self.depends))]
        # The loop on whose index most work depends is the outermost: least is done over again.
        share = {
            index: sum(costs[n] for n, names in enumerate(self.depends) if index in names)
            for index in blocks
        }
        loops = sorted(blocks, key=lambda index: (index not in self.kept, -share[index]))
        slices = tuple(
            Slice(index, self.extents[index], blocks[index], index not in self.kept)
            for index in loops
        )
        runs = [1, *accumulate((each.count for each in slices), mul)]
        added = added_results(self.program, loops)
        sizes = intermediate_bytes(self.program, extents, added, self.element)
        first, results = len(costs), self.program.results
        numbers = [first + n for n, name in enumerate(results) if name in added]
        adding = sum(self._cost(number, extents) for number in numbers)
        states = []
        for hoisted in (True, False):
            levels = [len(loops)] * len(costs)
            if hoisted:
                levels = [
                    max((n for n, index in enumerate(loops, start=1) if index in names), default=0)
                    for names in self.depends
                ]
            order = [*sorted(range(len(levels)), key=levels.__getitem__), *numbers]
            around = [*levels, *([len(loops)] * len(results))]
            peak, alive = most_alive(
                [self.statements[n] for n in order], sizes, [around[n] for n in order]
            )
            seconds = sum(cost * runs[level] for cost, level in zip(costs, levels, strict=True))
            seconds += adding * runs[-1]
            at_peak = tuple(dict.fromkeys([i for name in alive for i in self.axes[name]]))
            states.append(_State(slices, hoisted, seconds, runs[-1], peak, at_peak))
            if peak <= limit or not loops:
                return states[-1]
        return min(states, key=lambda state: state.peak)

    def _sliced(self, state: _State) -> Sliced:
        program = with_extents(self.program, {each.index: each.block for each in state.slices})
        return arrange(program, self.element, state.slices, state.hoisted)

    def _cost(self, number: int, extents: Mapping[str, int]) -> float:
        """The predicted seconds of a statement, or of adding a result's pieces up."""
        key = number, tuple([extents[index] for index in self.indices[number]])
        if key not in self.costs:
            self.costs[key] = statement_cost(
                self.statements[number], extents, self.element.operand, self.machine
            ).seconds
        return self.costs[key]


def _smaller(extent: int, block: int) -> int:
    """The next smaller block, about half of this one; 0 if there is none.

    >>> [_smaller(extent, block) for extent, block in [(1000, 1000), (1000, 504), (6, 6), (7, 7)]]
    [504, 256, 3, 1]
    >>> _smaller(2, 1)
    0
    """
    if extent > SHORT and block > 1:
        half = -(-block // 2)
        return -(-half // 8) * 8 if half >= BLOCK else half
    return next((fewer for fewer in range(block // 2, 0, -1) if extent % fewer == 0), 0)


def _merit(before: _State, after: _State, limit: int) -> tuple[bool, float]:
    """How good a further slice is: those that fit come first, and of them the fastest."""
    if after.peak <= limit:
        return True, -after.seconds
    slower = max(after.seconds / before.seconds - 1, 0) + 1e-3
    return False, (1 - after.peak / before.peak) / slower
