"""Emit the sums of a packed product that ask for what lies ahead.

An operand that is used a few times only comes from memory as often as it is multiplied. While the
tiles of one block are summed, each asks for some of the lines that the next block is packed from:
a few at a time, so that all have come when they are wanted, and nothing has waited for them::

    for k_line in range(k_block, k_block_end, 8):      # 8 positions of k on a cache line
        for line in range(asked, asked_end):           # those that this tile asks for
            fetch_rows(...)
        for k in range(k_line, min(k_line + 8, k_block_end)):
            acc = multiply_add(acc, ...)

Addresses behind an operand's end may be asked for: they are passed over.
"""

from __future__ import annotations

from .affine import Affine
from .loopnest import Assign, Loop, Ref, at, walk
from .records import dataclass
from .tile_source import Axis, TileSource, moved_to, tile_of

_ONE = Axis(None, Affine(()), 1, None)


@dataclass
class PackSource(TileSource):
    """The source of a kernel whose sums may ask ahead."""

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
        group, other = ahead.group, "n" if ahead.group == "m" else "m"
        tile = self.loop_of(f"{other}_tile")
        own = self.loop_of(f"{group}_tile")
        whole = own if schedule.in_place is not None else self.loop_of(f"{group}_block")
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
