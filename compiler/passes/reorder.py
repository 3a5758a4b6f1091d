"""Reorder: put the loops into the schedule's order, with a register tile innermost.

Before (``m`` and ``n`` make the register tile, ``k`` is reduced)::

    for m_tile: for m: for n_tile: for n:
        acc = 0
        for k:
            acc += x0[m, k] * x1[k, n]
        out[m, n] = acc

after: the loops of the tile move inside ``k``, and the scalar ``acc`` becomes a tile of its own::

    for m_tile: for n_tile:
        for m: for n: acc[m, n] = 0
        for k:
            for m: for n: acc[m, n] += x0[m, k] * x1[k, n]
        for m: for n: out[m, n] = acc[m, n]

A long sum is cut into partial sums (blocked summation: the error grows with the number of blocks
and a block's length, not with the whole length): each round of the loop ``schedule.partial`` clears
and fills a tile ``part``, which is then added to ``acc``.

A reduced block loop may stand outside the tile; then the output collects the blocks' sums, and the
last statement is ``out[m, n] += acc[m, n]`` from that loop's second round on. Lanes may be reduced
too: then they stay in the tile until its columns are summed into the output. TVM calls the moving
of ``acc`` into an array *scalar expansion* and the loop order *reorder*.

The values of an epilogue's formula may be summed in turn. That is a second tile, ``total``, around
the first: it has no rows if these are summed too, for each tile's are added as soon as it is done.

What is done with a whole sum cannot wait in the output for the sum's blocks. A schedule that is
``collected`` has them added up in scratch, and uses what is there once they all are::

    for k_block: for m_tile: for n_tile:
        ...
        sums[m, n] += acc[m, n]
    for m_tile: for n_tile:
        out[m, n] = sums[m, n]
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..affine import Affine
from ..loopnest import (
    Assign,
    Buffer,
    Loop,
    Nest,
    Ref,
    Scope,
    Statement,
    Term,
    at,
    nested,
    walk,
)
from ..records import dataclass, replace
from ..schedule import Schedule


def reorder(nest: Nest, schedule: Schedule) -> Nest:
    """Rebuild the nest in the order ``schedule.outer``, then ``schedule.inner``, then the tile."""
    loops = {s.index: s for s in walk(nest.body) if isinstance(s, Loop)}
    assigns = [s for s in walk(nest.body) if isinstance(s, Assign)]
    outer = [loops[index] for index in schedule.outer]
    inner = [loops[index] for index in schedule.inner]
    sides = tuple(loops[index] for index in (schedule.rows, schedule.lanes) if index is not None)
    if len(assigns) == 1:
        return replace(nest, body=nested(outer, nested(list(sides), (assigns[0],))))
    store = replace(assigns[-1], add=_late(nest, schedule))
    tile = _Tile("acc", sides, schedule)
    used = _in_scratch(schedule) if schedule.collected else tile.ref()
    sums: tuple[Statement, ...]
    if len(assigns) == 3:
        summed = {group.name for group in nest.groups if group.reduced}
        cut = schedule.inner.index(schedule.partial) + 1 if schedule.partial else 0
        sums = tile.sums(inner, cut, assigns[1])
        uses = tile.uses(store, summed, used)
        body = uses if schedule.collected else (*sums, *uses)
        parts = {"part": "acc"} if cut else {}
    else:
        # The sum of the formula's values is a tile of its own, around that of the products.
        update, add = assigns[2:4]
        over = {group.name for group in nest.groups if group.over}
        contracted = {group.name for group in nest.groups if group.reduced and not group.over}
        around = [loop for loop in inner if schedule.group_of(loop.index) in over]
        within = [loop for loop in inner if loop not in around]
        names = [loop.index for loop in within]
        cut = names.index(schedule.partial) + 1 if schedule.partial else 0
        kept = (s for s in sides if s.index not in contracted | (over - {schedule.lanes}))
        total = _Tile("total", tuple(kept), schedule)
        pieces = int(len(around) > 1 and around[0].index.endswith("_block"))

        sums = tile.sums(within, cut, update)

        def added(target: Ref) -> tuple[Statement, ...]:
            value = tile.uses(replace(add, target=target), contracted, used)
            return value if schedule.collected else (*sums, *value)

        body = (*total.collects(around, pieces, added), *total.uses(store, over))
        parts = ({"part": "acc"} if cut else {}) | ({"total_part": "total"} if pieces else {})
    buffers = tuple(replace(nest.buffer(whole), name=part) for part, whole in parts.items())
    if schedule.collected:
        cut = schedule.outer.index("k_block")
        save = Assign(used, (tile.ref(),), add="k_block")
        tiles = [loop for loop in inner if loop.index.endswith(("_panel", "_tile"))]
        first = nested([*outer[cut:], *tiles], (*sums, *nested(list(sides), (save,))))
        body = (*first, *nested(outer[cut + 1 :], body))
        outer = outer[:cut]
        room = ("M_TASK", "N_TASK")
        buffers += (Buffer(used.buffer, schedule.accumulator, Scope.SCRATCH, room),)
    return replace(nest, body=nested(outer, body), buffers=(*nest.buffers, *buffers))


def _in_scratch(schedule: Schedule) -> Ref:
    """Where a tile's sums are collected."""
    terms = (Term(at("m", "-m_task"), "N_TASK"), Term(at("n", "-n_task"), 1))
    return Ref("sums", terms)


@dataclass(frozen=True)
class _Tile:
    """A register tile that sums are made in: ``sides`` are the loops over its rows and lanes."""

    name: str
    sides: tuple[Loop, ...]
    schedule: Schedule

    def sums(self, loops: list[Loop], cut: int, update: Assign) -> tuple[Statement, ...]:
        """Clear the tile and fill it; the loops from ``cut`` on make partial sums."""

        def updated(target: Ref) -> tuple[Statement, ...]:
            return nested(list(self.sides), (replace(update, target=target),))

        return self.collects(loops, cut, updated)

    def collects(
        self, loops: list[Loop], cut: int, add: Callable[[Ref], tuple[Statement, ...]]
    ) -> tuple[Statement, ...]:
        """The same where ``add`` makes the statements that add to a tile."""
        if not cut:
            return (*self._cleared(), *nested(loops, add(self.ref())))
        part = replace(self, name="part" if self.name == "acc" else f"{self.name}_part")
        sum_up = Assign(self.ref(whole=True), (part.ref(whole=True),), add=True)
        rounds = (*part.collects(loops[cut:], 0, add), *nested(self._whole(), (sum_up,)))
        return (*self._cleared(), *nested(loops[:cut], rounds))

    def uses(
        self, statement: Assign, summed: Collection[str], source: Ref | None = None
    ) -> tuple[Statement, ...]:
        """A statement that reads the tile first, whose lanes are totalled if they are summed.

        Or it reads ``source``, if the tile was put there.
        """
        total = any(s.index == self.schedule.lanes and s.index in summed for s in self.sides)
        loops = [s for s in self.sides if not (total and s.index == self.schedule.lanes)]
        factors = (source or self.ref(), *statement.factors[1:])
        return nested(loops, (replace(statement, factors=factors, total=total),))

    def ref(self, *, whole: bool = False) -> Ref:
        """A place in the tile: row after row, relative to the tile's first position."""
        terms = []
        for side in self.sides:
            position = at(side.index) if whole else at(side.index, f"-{side.index}_tile")
            lanes = side.index == self.schedule.lanes
            terms.append(Term(position, 1 if lanes else self.schedule.lane_tile))
        return Ref(self.name, tuple(terms))

    def _cleared(self) -> tuple[Statement, ...]:
        return nested(self._whole(), (Assign(self.ref(whole=True), ()),))

    def _whole(self) -> list[Loop]:
        """The loops over all rows or lanes, counted from 0."""
        sizes = {self.schedule.rows: self.schedule.row_tile}
        sizes[self.schedule.lanes] = self.schedule.lane_tile
        return [
            replace(side, start=Affine(()), stop=(Affine((), sizes[side.index]),))
            for side in self.sides
        ]


def _late(nest: Nest, schedule: Schedule) -> bool | str:
    """The loops outside the tile whose rounds all add to the same part of the output, if any."""
    groups = {index: nest.group(schedule.group_of(index)) for index in schedule.outer}
    if schedule.formula is not None:
        # The innermost loop of each group tells; sums before the formula are whole.
        over = {group.name: index for index, group in groups.items() if group.over}
        return " + ".join(over.values()) or False
    if schedule.collected:
        return False
    late = {group.name: index for index, group in groups.items() if group.reduced}
    return " + ".join(late.values()) or False
