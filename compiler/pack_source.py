"""Emit the loops along ``k`` of a packed product: strips that are copied, and sums that ask ahead.

**Strips.** Where a panel is filled in strips of a few positions of ``k`` (:mod:`.passes.pack`), a
whole strip of one panel is one operation: its rows are the positions of ``k``.

**Asking ahead.** An operand that is used a few times only comes from memory as often as it is
multiplied. While the tiles of one block are, each asks for some of the lines that the next block
will be packed from: so many that they come when there is time for them, and all have come then::

    for k_line in range(k_block, k_block_end, 8):      # 8 positions of k on a cache line
        for line in range(asked, asked_end):           # those that this tile asks for
            fetch_rows(...)
        for k in range(k_line, min(k_line + 8, k_block_end)):
            acc = multiply_add(acc, ...)
"""

from __future__ import annotations

from .affine import Affine
from .loopnest import Assign, Loop, Ref, Tabulate, at, walk
from .records import dataclass
from .schedule import STRIP, Pack
from .tile_source import Axis, TileSource, moved_to, tile_of

_ONE = Axis(None, Affine(()), 1, None)


@dataclass
class PackSource(TileSource):
    """The source of a kernel whose operands are packed."""

    # Strips.

    def strip_of(self, loop: Loop) -> Pack | None:
        """The pack of which a loop along ``k`` copies a strip whose lanes may be neighbours."""
        if loop.index != "k" or len(loop.body) != 1 or isinstance(loop.body[0], Tabulate):
            return None
        statement, _, lanes = tile_of(loop.body[0])
        jobs = (p for p in self.schedule.packs if statement.target.buffer == f"{p.operand}_panel")
        job = next(jobs, None)
        if job is None or not job.strips or lanes is None:
            return None
        (factor,) = statement.factors
        if int(self.nest.buffer(factor.buffer).element[1:]) < 4:
            return None  # tiles of so many elements take long to compile
        runs, self.in_runs = self.in_runs, True
        _, _, step = self.steps(factor, _ONE, self.axis(lanes, "")[0])
        self.in_runs = runs
        return job if step == "1" else None

    def strip(self, loop: Loop) -> None:
        """Copy a strip at once if all of it is inside; begin the branch for any other."""
        statement, _, lanes = tile_of(loop.body[0])
        lane_axis, guard = self.axis(lanes, "columns")
        rows = Axis(loop.index, loop.start, STRIP, None)
        tests = [f"{self.stop(loop.stop)} - {loop.start} == {STRIP}"]
        if guard:
            self.line(f"columns = {guard}")
            tests.append(f"columns == {lane_axis.size}")
        runs = self.runs(statement, _ONE, lane_axis)
        tests += [self.tests.get(test, test) for test in runs]
        self.line(f"if {' and '.join(tests)}:")
        self.depth += 1
        self.in_runs = True
        (factor,) = statement.factors
        last = self.stop(loop.stop[1:])
        self.line(f"ahead = min({loop.start} + {STRIP}, {last} - {STRIP})")
        there = moved_to(factor, {loop.index: at("ahead", loop.index, f"-{loop.start}")})
        first, step, _ = self.steps(there, rows, lane_axis)
        self.line(f"fetch_rows({factor.buffer}, {first}, {step}, {STRIP}, {lane_axis.size})")
        element = self.nest.buffer(statement.target.buffer).element
        strip = self.load(factor, rows, lane_axis, "", element, name=f"{factor.buffer}_strip")
        self.store(statement.target, rows, lane_axis, "", strip)
        self.in_runs = False
        self.depth -= 1
        self.line("else:")
        self.depth += 1
        if guard and not runs:
            self.whole["columns"] = False  # or part of the strip: it takes masks anyway

    # Asking ahead.

    def asks_ahead(self, loop: Loop) -> bool:
        """Whether a loop makes the sums of a tile, and asks for the next block meanwhile."""
        if self.schedule.ahead is None or loop.index != "k" or len(loop.body) != 1:
            return False
        return tile_of(loop.body[0])[0].target.buffer == "acc"

    def ask_for_block(self, loop: Loop, start: str, stop: str) -> None:
        """Open a loop over cache lines along ``k``, ask for those of the next block, and begin the
        loop over one line's positions.
        """
        schedule, ahead = self.schedule, self.schedule.ahead
        assert ahead is not None
        loops = {s.index: s for s in walk(self.nest.body) if isinstance(s, Loop)}
        group, other = ahead.group, "n" if ahead.group == "m" else "m"
        own, tile = loops[f"{group}_tile"], loops[f"{other}_tile"]
        whole = own if schedule.in_place is not None else loops[f"{group}_block"]
        self.line(f"asked = ({tile.index} - {tile.start}) // {tile.step} * ASKED")
        self.line("asked_end = asked")
        self.line(f"if {own.index} + AHEAD < {self.stop(whole.stop)}:")
        self.line(f"    asked_end = min(asked + ASKED, {schedule.asked_lines})")
        positions = schedule.asked_positions
        self.line(f"for k_line in range({start}, {stop}, {positions}):")
        self.depth += 1
        self.line("for line in range(asked, asked_end):")
        self.depth += 1
        place = {own.index: 1, "AHEAD": 1}
        if ahead.along == "k":
            place["line"] = 1
            width, k = 1, at("k_line")
        else:
            self.line(f"there = min(k_line + line, {stop} - 1)")
            width, k = int(own.step), at("there")
        source = moved_to(self.source_of(ahead.operand), {"k": k, group: Affine((*place.items(),))})
        first, _, _ = self.steps(source, _ONE, _ONE)
        self.line(f"fetch_rows({source.buffer}, {first}, 0, 1, {width})")
        self.depth -= 1
        self.line(f"for k in range(k_line, min(k_line + {positions}, {stop})):")

    def source_of(self, operand: str) -> Ref:
        """Where a factor's elements are read in memory."""
        assigns = (each for each in walk(self.nest.body) if isinstance(each, Assign))
        return next(ref for each in assigns for ref in each.factors if ref.buffer == operand)
