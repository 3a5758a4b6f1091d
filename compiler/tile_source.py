"""Emit register tiles: rows and lanes around one assignment become operations of :mod:`.simd`.

An operation works on a whole tile. At an edge, where fewer rows or columns are inside, the same
operation takes their counts and masks the rest. Which of its ways an operand is loaded or stored in
follows from the steps from row to row and from lane to lane.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import gcd

from .affine import Affine
from .express import Expression
from .finish import inputs_of, wanted_where, wide
from .formula import Apply
from .loopnest import (
    Assign,
    Fill,
    Kind,
    Loop,
    Nest,
    Ref,
    Scope,
    Statement,
    Tabulate,
    Term,
    Write,
    walk,
)
from .records import dataclass, field, replace
from .schedule import CACHE_LINE, STRIP, Schedule, vector_lanes


@dataclass(frozen=True, slots=True)
class Axis:
    """One side of a register tile: its loop variable, first position, size and count inside."""

    index: str | None
    start: Affine
    size: int
    inside: str | None  # the variable that holds how many are inside; None when all are


@dataclass
class TileSource:
    """Source in the making: its lines, and what they have given a name to."""

    nest: Nest
    schedule: Schedule
    lines: list[str] = field(default_factory=list)
    depth: int = 0
    ends: dict[tuple[Affine, ...], str] = field(default_factory=dict)  # bounds that have a name
    firsts: dict[str, str] = field(default_factory=dict)  # offsets that have a name
    loop: str = ""  # the innermost loop's index
    whole: dict[str, bool | None] = field(default_factory=dict)  # sides known to be whole or not
    fixed: dict[str, str] = field(default_factory=dict)  # parts of offsets named before that loop
    tests: dict[str, str] = field(default_factory=dict)  # what is tested before that loop
    rows_at: set[str] = field(default_factory=set)  # operands with rows found before that loop
    near: bool = False  # whether rows outside are read as the last one inside
    in_runs: bool = False  # what `runs` tests has been found true
    numbers: dict[tuple[int, str, str], str] = field(default_factory=dict)  # a formula's, typed
    values: int = 0  # parts of formulas that have a name
    asked: bool = False  # whether `wanted` says if the next tile's sums matter

    def line(self, text: str) -> None:
        """Add a line at the present depth."""
        self.lines.append("    " * self.depth + text)

    def stop(self, stops: tuple[Affine, ...]) -> str:
        """The least of several bounds, by the names that outer loops gave to them."""
        if stops in self.ends:
            return self.ends[stops]
        if len(stops) == 1:
            return str(stops[0])
        return f"min({stops[0]}, {self.stop(stops[1:])})"

    def loop_of(self, index: str) -> Loop:
        """The first loop over an index."""
        loops = (each for each in walk(self.nest.body) if isinstance(each, Loop))
        return next(loop for loop in loops if loop.index == index)

    def register_tile(self, statement: Statement) -> None:
        """Rows and lanes around one assignment: an operation on a whole tile."""
        statement, rows, lanes = tile_of(statement)
        if statement.total:
            tile, *others = statement.factors
            self.line(f"{tile.buffer}_sum = total_rows({tile.buffer})")
            sums = (Ref(f"{tile.buffer}_sum", tile.terms[:-1]), *others)
            statement = replace(statement, factors=sums, total=False)
        row_axis, row_guard = self.axis(rows, "rows")
        lane_axis, lane_guard = self.axis(lanes, "columns")
        in_memory = self.is_guarded(statement)
        runs = self.runs(statement, row_axis, lane_axis)
        if rows is None:
            self.ask_for_strip(statement, row_axis, lane_axis)
        part = in_memory and False in self.whole.values()
        turns = self.turns_into_panel(statement, row_axis, lane_axis)
        if turns and lanes is not None:
            self.ask_for_panel(statement.factors[0], row_axis, lane_axis, self.stop(lanes.stop[1:]))
        tests = []
        for axis, guard in ((row_axis, row_guard), (lane_axis, lane_guard)):
            if guard and in_memory and axis.inside not in self.whole:
                self.line(f"{axis.inside} = {guard}")
                if not (turns and axis is lane_axis):
                    tests.append(f"{axis.inside} == {axis.size}")
        tests += [self.tests.get(test, test) for test in runs]
        if isinstance(statement.add, str):
            self.update(statement, row_axis, lane_axis, tests)
            return
        if not tests or part:
            self.assign(statement, row_axis, lane_axis, inside=part)
            return
        if not runs:
            self.name_firsts(statement, row_axis, lane_axis)
        self.line(f"if {' and '.join(tests)}:")
        self.depth += 1
        self.in_runs = True
        self.assign(statement, row_axis, lane_axis, inside=False)
        self.in_runs = False
        self.depth -= 1
        self.line("else:")
        self.depth += 1
        self.assign(statement, row_axis, lane_axis, inside=True)
        self.depth -= 1
        self.firsts.clear()

    def turns_into_panel(self, statement: Assign, rows: Axis, lanes: Axis) -> bool:
        """Whether a panel is filled with runs along its rows, which are transposed in registers."""
        if not self.is_packed(statement.target) or rows.size == 1:
            return False
        (factor,) = statement.factors
        self.in_runs = True
        _, row_step, lane_step = self.steps(factor, rows, lanes)
        self.in_runs = False
        return row_step == "1" and lane_step not in ("0", "1")

    def update(self, statement: Assign, rows: Axis, lanes: Axis, tests: list[str]) -> None:
        """Store a tile of sums, or add it to those of the blocks before."""
        (tile,) = statement.factors
        target, again = statement.target, f"{statement.add} > 0"
        self.in_runs = True
        first, row_step, lane_step = self.steps(target, rows, lanes)
        self.in_runs = False
        counts = f"{rows.inside or rows.size}, {lanes.inside or lanes.size}"
        neighbours = lane_step == "1"
        if neighbours and self.is_scratch(target):
            self.line(f"update_rows({target.buffer}, {first}, {row_step}, {tile.buffer}, {again})")
            return
        if neighbours:
            rows_call = f"({target.buffer}, {first}, {row_step}, {tile.buffer}, {again})"
            if self.is_scratch(target):
                self.line(f"update_rows{rows_call}")
                return
            self.line(f"if {' and '.join(tests) or 'True'}:")
            self.line(f"    update_rows{rows_call}")
            self.line("else:")
            self.depth += 1
        first, row_step, lane_step = self.steps(target, rows, lanes)
        woven = not neighbours and row_step == "1"
        if woven := woven and self.is_woven(rows.size, self.lanes(lanes.size)):
            self.line(f"if {' and '.join([*tests, f'{statement.add} == 0'])}:")
            self.line(f"    store_woven({target.buffer}, {first}, {lane_step}, {tile.buffer})")
            self.line("else:")
            self.depth += 1
        places = f"{target.buffer}, {first}, {row_step}, {lane_step}"
        self.line(f"update_part({places}, {tile.buffer}, {again}, {counts})")
        self.depth -= neighbours + woven

    def ask_for_update(self, statement: Statement) -> None:
        """Ask for the part of the output that a tile's sums go to, before they are made."""
        if not isinstance(statement, Loop) or statement.kind is Kind.SERIAL:
            return
        statement, *sides = tile_of(statement)
        if isinstance(statement.add, str) and not self.is_scratch(statement.target):
            target, (rows, lanes) = statement.target, [self.axis(side, "")[0] for side in sides]
            self.in_runs = True
            first, row_step, lane_step = self.steps(target, rows, lanes)
            self.in_runs = False
            if lane_step == "1":
                places = f"{target.buffer}, {first}, {row_step}, {rows.size}, {lanes.size}"
                self.line(f"prefetch_rows({places})")

    def name_fixed_parts(self, loop: Loop) -> None:
        """Compute once what an innermost loop's offsets have in common in all rounds."""
        self.loop = loop.index
        for tile in loop.body:
            if isinstance(tile, Tabulate | Fill | Write):
                continue
            statement, *sides = tile_of(tile)
            axes = [self.axis(side, "")[0] for side in sides]
            for ref in (statement.target, *statement.factors):
                if self.in_register(ref) or ref.buffer in self.fixed:
                    continue
                if ref.buffer == self.schedule.in_place:
                    continue  # its rows are found instead
                parts, _ = self.offset_parts(ref, *axes)
                text = " + ".join(parts)
                if len(parts) > 1 or (text and not text.isidentifier()):
                    self.line(f"{ref.buffer}_at = {text}")
                    self.fixed[ref.buffer] = text

    def name_rows(self, loop: Loop) -> None:
        """Find the rows that an innermost loop reads where they are, once for all of its rounds."""
        for tile in loop.body:
            statement, *sides = tile_of(tile)
            rows, lanes = (self.axis(side, "rows") for side in sides)
            for ref in statement.factors:
                if ref.buffer == self.schedule.in_place and self.in_memory(ref):
                    self.find_rows(ref, rows[0], lanes[0], rows[1] or rows[0].size)

    def name_near_rows(self, loop: Loop) -> None:
        """Find rows that a table says where to read, once for all rounds of a sum along them."""
        for tile in loop.body:
            statement, *sides = tile_of(tile)
            rows, lanes = (self.axis(side, "rows")[0] for side in sides)
            for ref in statement.factors:
                if any(term.table and rows.index in term.position.names for term in ref.terms):
                    self.find_rows(ref, rows, lanes, rows.inside)

    def find_rows(self, ref: Ref, rows: Axis, lanes: Axis, inside: str | int | None) -> None:
        """Find a tile's rows in memory: what moves with the loop around it is added to each."""
        fixed, _ = self.offset_parts(ref, rows, lanes)
        begin = " + ".join(fixed) or "0"
        if self.fixed.get(ref.buffer) == begin:
            begin = f"{ref.buffer}_at"
        _, step, _ = self.steps(ref, rows, lanes)
        place = f"{ref.buffer}, {begin}, {step}, {rows.size}, {inside}"
        self.line(f"{ref.buffer}_rows = find_rows({place})")
        self.rows_at.add(ref.buffer)

    def name_tests(self, loop: Loop) -> None:
        """Test once whether a panel's tiles are runs, where it is the same in all rounds."""
        panels = {f"{pack.operand}_panel": pack.operand for pack in self.schedule.packs}
        for tile in loop.body:
            if isinstance(tile, Tabulate):
                continue
            statement, *sides = tile_of(tile)
            operand = panels.get(statement.target.buffer)
            if operand is None:
                continue
            for test in self.runs(statement, *(self.axis(side, "")[0] for side in sides)):
                if not re.search(rf"\b{loop.index}\b", test):
                    self.line(f"{operand}_runs = {test}")
                    self.tests[test] = f"{operand}_runs"

    def name_firsts(self, statement: Assign, rows: Axis, lanes: Axis) -> None:
        """Compute the offsets of a tile's first elements once for the branches that follow."""
        for ref in (statement.target, *statement.factors):
            if not self.in_register(ref):
                first, _, _ = self.steps(ref, rows, lanes)
                self.line(f"{ref.buffer}_first = {first}")
                self.firsts[ref.buffer] = f"{ref.buffer}_first"

    def runs(self, statement: Assign, rows: Axis, lanes: Axis) -> list[str]:
        """Tests that the tables along a tile's vectors hold neighbours, where they may."""
        tests = []
        for ref in (statement.target, *statement.factors):
            if not self.in_memory(ref):
                continue
            _, row_step, lane_step = self.steps(ref, rows, lanes)
            along = {
                axis.index: term
                for axis in (rows, lanes)
                for term in ref.terms
                if axis.index in term.position.names
            }
            for axis, step, other in ((lanes, lane_step, row_step), (rows, row_step, lane_step)):
                term = along.get(axis.index or "")
                if term is not None and term.runs and axis.size > 1 and other != "1":
                    tests.append(f"is_run({step}, {axis.size})")
                    break
        return list(dict.fromkeys(tests))

    def axis(self, loop: Loop | None, word: str) -> tuple[Axis, str | None]:
        """A side of the tile that a loop makes, and the expression that counts what is inside."""
        if loop is None:
            return Axis(None, Affine(()), 1, None), None
        fixed, *others = loop.stop
        if loop.kind is Kind.RUN:
            return Axis(loop.index, loop.start, 0, word), f"{self.stop(loop.stop)} - {loop.start}"
        size = fixed.constant - loop.start.constant
        if not others:
            return Axis(loop.index, loop.start, size, None), None
        guard = f"{self.stop(loop.stop)} - {loop.start}"
        return Axis(loop.index, loop.start, size, word), guard

    def is_guarded(self, statement: Assign) -> bool:
        """Whether it matters that part of a tile may lie outside: scratch has room for all of it,
        but lanes outside must not be summed.
        """
        refs = (ref for ref in statement.factors if ref.buffer not in self.rows_at)
        if any(self.in_memory(ref) for ref in (statement.target, *refs)):
            return True
        summed = self.sums_lanes(statement)
        into = self.in_register(statement.target) and statement.add is True
        if statement.formula is not None:
            return into and (summed or self.sums_rows(statement))
        return summed and into and not any(map(self.in_register, statement.factors))

    def sums_lanes(self, statement: Assign) -> bool:
        """Whether the lanes of a tile that a statement adds to are added up in the end."""
        lanes = self.nest.group(self.schedule.lanes)
        twice = any(buffer.name == "total" for buffer in self.nest.buffers)
        return lanes.reduced and (not twice or lanes.over == (statement.formula is not None))

    def sums_rows(self, statement: Assign) -> bool:
        """Whether a register tile's rows are added up to one."""
        rows = self.schedule.rows
        return (
            rows is not None
            and any(rows in term.position.names for f in statement.factors for term in f.terms)
            and not any(rows in term.position.names for term in statement.target.terms)
        )

    def in_memory(self, ref: Ref) -> bool:
        """Whether it is an operand or the output."""
        return not self.in_register(ref) and self.nest.buffer(ref.buffer).scope is Scope.MEMORY

    def is_scratch(self, ref: Ref) -> bool:
        """Whether it lies in the thread's own memory."""
        return not self.in_register(ref) and self.nest.buffer(ref.buffer).scope is Scope.SCRATCH

    def is_panel(self, ref: Ref) -> bool:
        """Whether it lies in scratch that has room for whole tiles."""
        job = self.schedule.stage
        return job is None and self.nest.buffer(ref.buffer).scope is Scope.SCRATCH

    def is_packed(self, ref: Ref) -> bool:
        """Whether it lies in a panel that an operand of a product is packed into."""
        return any(ref.buffer == f"{pack.operand}_panel" for pack in self.schedule.packs)

    def in_register(self, ref: Ref) -> bool:
        """Whether a variable holds it: a register tile, or the sums of one's rows."""
        tile = ref.buffer.removesuffix("_sum")
        return self.nest.buffer(tile).scope is Scope.REGISTERS

    def assign(self, statement: Assign, rows: Axis, lanes: Axis, *, inside: bool) -> None:
        """One assignment as tile operations; with ``inside``, only on what lies in the tensor."""
        counts = f", {self.inside(rows)}, {self.inside(lanes)}" if inside else ""
        if not inside:
            self.ask_ahead(statement, rows, lanes)
            if rows.size > 1:
                self.ask_for_strip(statement, rows, lanes)
        element = self.element_of(statement)
        target = statement.target
        in_register = self.in_register(target)
        if in_register and not statement.factors:
            shape = f"{rows.size}, {lanes.size}, {self.lanes(lanes.size)}"
            self.line(f"{target.buffer} = zeros({element}, {shape})")
            return
        if statement.formula is not None:
            self.finish(statement, rows, lanes, counts)
            return
        panel = not in_register and self.is_panel(target)
        if panel and inside and self.copied_part(statement, rows, lanes):
            return
        packed = self.is_packed(target)
        values = [
            self.load(factor, rows, lanes, counts, element, wide=packed and not inside, near=packed)
            for factor in statement.factors
        ]
        if in_register and statement.add is True:
            # What lies outside is never stored, but summed lanes must not hold any of it.
            totalled = target.buffer.endswith("_sum")
            matters = self.sums_lanes(statement) and not totalled
            if not matters or self.is_zero_outside(statement, rows, lanes):
                counts = ""
            *first, last = values
            product = self.product(first)
            operation = (
                f"multiply_add({target.buffer}, {product}, {last}{counts})"
                if first
                else f"accumulate({target.buffer}, {last}{counts})"
            )
            self.line(f"{target.buffer} = {operation}")
            return
        value = self.product(values)
        if not in_register and not self.fills(statement, rows, lanes):
            shape = f"{rows.size}, {lanes.size}, {self.lanes(lanes.size)}"
            value = f"stretch({value}, {shape})"
        stored = self.nest.buffer(target.buffer).element
        if stored != element:
            value = f"convert({value}, {stored})"
        self.store(target, rows, lanes, counts, value)

    def inside(self, axis: Axis) -> str | int:
        """How many of a tile's rows or columns are inside: a number where that is known."""
        if axis.inside is None or self.whole.get(axis.inside):
            return axis.size
        return axis.inside

    def is_zero_outside(self, statement: Assign, rows: Axis, lanes: Axis) -> bool:
        """Whether all that is multiplied is zero in lanes outside, and so is the product.

        Rows of neighbours are loaded so; what is loaded otherwise may repeat its last lane.
        """
        return all(
            self.in_memory(ref) and self.steps(ref, rows, lanes)[2] == "1"
            for ref in statement.factors
        )

    def element_of(self, statement: Assign) -> str:
        """The type in which a statement computes, if it has no formula."""
        tiles = (ref for ref in (statement.target, *statement.factors) if self.in_register(ref))
        tile = next((ref.buffer.removesuffix("_sum") for ref in tiles), None)
        return self.schedule.accumulator if tile is None else self.nest.buffer(tile).element

    def finish(self, statement: Assign, rows: Axis, lanes: Axis, counts: str) -> None:
        """Compute a formula, and store its value or add it to a register tile."""
        target, formula = statement.target, statement.formula
        assert formula is not None
        used = inputs_of(formula)
        elements = tuple(map(self.input_element, statement.factors))
        inputs = [
            self.load(factor, rows, lanes, counts, element) if place in used else ""
            for place, (factor, element) in enumerate(zip(statement.factors, elements, strict=True))
        ]
        expression = Expression(inputs, elements, self.named_value, self.named_number)
        shape = f"{rows.size}, {lanes.size}, {self.lanes(lanes.size)}"
        refs = tuple(ref for place, ref in enumerate(statement.factors) if place in used)
        filled = self.fills(replace(statement, factors=refs), rows, lanes)
        if self.in_register(target) and statement.add is True:
            tile = target.buffer
            element = self.nest.buffer(tile).element
            collects = self.sums_rows(statement)
            summed = self.sums_lanes(statement) or collects
            counts = counts if summed and lanes.size * rows.size > 1 else ""
            is_product = isinstance(formula, Apply) and formula.function == "multiply"
            is_product &= statement.half is None
            if isinstance(formula, Apply) and is_product and filled and element[0] in "fc":
                x, y = (expression.text(part, element) for part in formula.arguments)
                word = "collect_products" if collects else "multiply_add"
                self.line(f"{tile} = {word}({tile}, {x}, {y}{counts})")
                return
            value = expression.text(formula, element)
            if not filled:
                value = f"stretch({value}, {shape})"
            if statement.half is not None:
                sign = -1 if self.schedule.below else 1
                value = f"halved({value}, {_at_first(statement.half, rows, lanes)}, {sign})"
            word = "collect" if collects else "accumulate"
            self.line(f"{tile} = {word}({tile}, {value}{counts})")
            return
        value = expression.text(formula, self.nest.buffer(target.buffer).element)
        if not filled:
            value = f"stretch({value}, {shape})"
        self.store(target, rows, lanes, counts, value)

    def ask_whether(self, statements: Sequence[Statement]) -> None:
        """Find out whether a tile's sums matter anywhere, where the formula of them says so."""
        self.asked = False
        formula = self.schedule.formula
        if formula is None or wanted_where(formula) is None:
            return
        for each in statements:
            if isinstance(each, Loop) and each.kind is Kind.SERIAL:
                continue
            if isinstance(each, Tabulate | Fill | Write):
                continue
            statement, *sides = tile_of(each)
            if statement.formula is None:
                continue
            condition = wanted_where(statement.formula)
            assert condition is not None
            axes = []
            for side, word in zip(sides, ("rows", "columns"), strict=True):
                axis, guard = self.axis(side, word)
                if guard and axis.inside not in self.whole:
                    self.line(f"{axis.inside} = {guard}")
                axes.append(axis)
            rows, lanes = axes
            counts = f", {rows.inside or rows.size}, {lanes.inside or lanes.size}"
            used = inputs_of(condition)
            elements = tuple(map(self.input_element, statement.factors))
            inputs = [
                self.load(factor, rows, lanes, counts, element) if place in used else ""
                for place, (factor, element) in enumerate(
                    zip(statement.factors, elements, strict=True)
                )
            ]
            expression = Expression(inputs, elements, self.named_value, self.named_number)
            self.line(f"wanted = holds_somewhere({expression.text(condition, 'b1')})")
            self.asked = True

    def input_element(self, ref: Ref) -> str:
        """The type in which a formula reads something: factors are of the accumulator's."""
        if self.in_register(ref):
            return self.nest.buffer(ref.buffer.removesuffix("_sum")).element
        read = ref.buffer in self.schedule.names[self.schedule.factors :]
        element = self.nest.buffer(ref.buffer).element
        return wide(element) if read else self.schedule.accumulator

    def named_value(self, text: str) -> str:
        """A name for what an operation makes."""
        if text.isidentifier():
            return text
        self.values += 1
        self.line(f"value_{self.values} = {text}")
        return f"value_{self.values}"

    def named_number(self, position: int, kind: str, element: str) -> str:
        """A name for a number of a formula as an element type, which begins the kernel."""
        return self.numbers.setdefault((position, kind, element), f"c{position}_{element}")

    def ask_ahead(self, statement: Assign, rows: Axis, lanes: Axis) -> None:
        """Ask for what the next tile along the lanes, or the next position of a run, will read."""
        if self.schedule.stage is None or lanes.index is None:
            return
        firsts = dict(self.firsts)
        self.firsts.clear()
        if "u" in self.schedule.stage.run:
            (factor,) = statement.factors
            following = moved_to(factor, {"u": Affine((("ahead", 1),))})
            first, row_step, _ = self.steps(following, rows, lanes)
            self.line("ahead = min(u + 1, u_block_end - 1)")
            self.line(f"prefetch({factor.buffer}, {first}, {row_step}, {rows.size})")
            self.firsts.update(firsts)
            return
        tile = lanes.start
        for factor in statement.factors:
            _, row_step, lane_step = self.steps(factor, rows, lanes)
            if row_step == "1" and lane_step not in ("0", "1"):
                ahead = replace(lanes, start=Affine((("ahead", 1),)))
                first, _, step = self.steps(factor, rows, ahead)
                self.line(f"ahead = min({tile} + {lanes.size}, {tile}_last)")
                self.line(f"prefetch({factor.buffer}, {first}, {step}, {lanes.size})")
        self.firsts.update(firsts)

    def ask_for_strip(self, statement: Assign, rows: Axis, lanes: Axis) -> None:
        """Where a panel is filled in strips, ask for what the next strip reads at this place."""
        job = next(
            (p for p in self.schedule.packs if statement.target.buffer == f"{p.operand}_panel"),
            None,
        )
        if job is None or not job.strips:
            return
        (factor,) = statement.factors
        ahead = replace(rows, index="k", start=Affine((("ahead", 1),)))
        known = self.in_runs, self.firsts
        self.in_runs, self.firsts = True, {}
        first, step, lane_step = self.steps(factor, ahead, lanes)
        self.in_runs, self.firsts = known
        if lane_step == "1":
            here = rows.start if rows.size > 1 else "k"
            self.line(f"ahead = min({here} + {STRIP}, k_block_end - {rows.size})")
            place = f"{factor.buffer}, {first}, {step}, {rows.size}, {lanes.size}"
            self.line(f"fetch_rows({place})")

    def ask_for_panel(self, ref: Ref, rows: Axis, lanes: Axis, end: str) -> None:
        """Where a panel is transposed, ask for what the next one before ``end`` reads here.

        Its lines are at the beginnings of other runs, which hardware does not know of before.
        """
        runs, self.in_runs = self.in_runs, True
        first, _, step = self.steps(ref, rows, replace(lanes, start=Affine((("ahead", 1),))))
        self.in_runs = runs
        width = lanes.size
        self.line(f"if {lanes.start} + {width} < {end}:")
        self.line(f"    ahead = min({lanes.start} + {width}, {end} - {width})")
        self.line(f"    prefetch({ref.buffer}, {first}, {step}, {width})")

    def bricks(self, loop: Loop) -> list[tuple[str, int]]:
        """Where the lanes of one panel are far apart in memory, how several are filled at once.

        What the panels hold at one place may be neighbours: then vectors are loaded along these,
        and transposed in registers (see :meth:`brick`). Returns for whole cache lines, and then for
        single vectors, the test that there are such, and the positions that they stand for; nothing
        where ``loop`` fills no such panels.
        """
        inner, *others = loop.body
        job = next((p for p in self.schedule.packs if loop.index == f"{p.group}_tile"), None)
        if others or job is None or not job.strips or not isinstance(inner, Loop):
            return []
        if inner.index != "k" or inner.kind is not Kind.SERIAL:
            return []
        statement, *sides = tile_of(inner.body[0])
        if statement.target.buffer != f"{job.operand}_panel":
            return []
        (factor,) = statement.factors
        rows, lanes = (self.axis(side, "")[0] for side in sides)
        along = [term for term in factor.terms if lanes.index in term.position.names]
        element = self.nest.buffer(factor.buffer).element
        vector = vector_lanes(self.schedule.accumulator, self.schedule.vector_bytes)
        if element != self.schedule.accumulator or lanes.size % vector or vector == 1:
            return []
        if int(element[1:]) < 4:
            return []  # tiles of so many elements take long to compile
        if not all(term.table and not term.runs for term in along):
            return []
        _, _, step = self.steps(factor, rows, lanes)
        left = f"{self.stop(loop.stop)} - {loop.index}"
        return [
            (f"{left} >= {n * lanes.size} and is_brick({step}, {lanes.size}, {n})", n * lanes.size)
            for n in dict.fromkeys((max(CACHE_LINE // int(element[1:]), vector), vector))
        ]

    def brick(self, loop: Loop) -> None:
        """Fill as many panels at one position of ``k`` as there are lanes in a vector.

        ``brick`` is the first of their positions, and there are ``bricks`` from here on.
        """
        inner, *_ = loop.body
        assert isinstance(inner, Loop)
        statement, *sides = tile_of(inner.body[0])
        (factor,) = statement.factors
        rows, lanes = (self.axis(side, "")[0] for side in sides)
        width = lanes.size
        vector = vector_lanes(self.schedule.accumulator, self.schedule.vector_bytes)
        here, ahead = (Affine(((name, 1),)) for name in ("brick", "ahead"))
        first, _, following = self.steps(factor, rows, replace(lanes, start=ahead))
        last = f"{self.stop(loop.stop)} - {width}"
        self.line(f"ahead = min({loop.index} + bricks, {last})")
        self.line(f"prefetch({factor.buffer}, {first}, {following}, {width})")
        self.line(f"for brick in range({loop.index}, {loop.index} + bricks, {vector * width}):")
        first, _, step = self.steps(factor, rows, replace(lanes, start=here))
        target = moved_to(statement.target, {loop.index: here})
        place, _, _ = self.steps(target, rows, replace(lanes, start=here))
        call = f"load_columns({factor.buffer}, {first}, {step}, {vector}, {width}, {vector})"
        self.line(f"    store_rows({target.buffer}, {place}, {width} * K_BLOCK, {call})")

    def copied_part(self, statement: Assign, rows: Axis, lanes: Axis) -> bool:
        """Fill the edge of a panel by itself, unless its rows are runs of neighbours."""
        (factor,) = statement.factors
        source, row_step, lane_step = self.steps(factor, rows, lanes)
        vectors = self.is_packed(statement.target) and self.lanes(lanes.size) > 1
        if lane_step == "1" and (rows.size == 1 or vectors):
            return False
        panel = statement.target.buffer
        place, pitch, _ = self.steps(statement.target, rows, lanes)
        counts = f"{rows.inside or rows.size}, {lanes.inside or lanes.size}"
        copy = (
            f"copy_part({panel}, {place}, {pitch}, {factor.buffer}, {source}, {row_step},"
            f" {lane_step}, {counts}, {lanes.size})"
        )
        if not any(panel == f"{p.operand}_panel" for p in self.schedule.panels):
            self.line(copy)
            return True
        self.in_runs = True
        source, along, lane_step = self.steps(factor, rows, lanes)
        self.in_runs = False
        hold = (
            f"hold_part({panel}, {place}, {pitch}, {factor.buffer}, {source}, {lane_step},"
            f" {counts}, {rows.size}, {lanes.size})"
        )
        if row_step == "1" or along != "1":
            self.line(hold if row_step == "1" else copy)
            return True
        self.line(f"if is_run({row_step}, {rows.inside or rows.size}):")
        self.line(f"    {hold}")
        self.line("else:")
        self.line(f"    {copy}")
        return True

    def fills(self, statement: Assign, rows: Axis, lanes: Axis) -> bool:
        """Whether the product has all rows and columns of the tile without being stretched."""
        sides = [
            (row_step != "0" or rows.size == 1, lane_step != "0" or lanes.size == 1)
            for _, row_step, lane_step in (
                ("", "1", "1") if self.in_register(factor) else self.steps(factor, rows, lanes)
                for factor in statement.factors
            )
        ]
        return any(row for row, _ in sides) and any(lane for _, lane in sides)

    def product(self, values: list[str]) -> str:
        """The product of some values; nothing for no values."""
        product = values[0] if values else ""
        for value in values[1:]:
            product = f"multiply({product}, {value})"
        return product

    def load(
        self,
        ref: Ref,
        rows: Axis,
        lanes: Axis,
        counts: str,
        element: str,
        *,
        wide: bool = False,
        near: bool = False,
    ) -> str:
        """Bring a tile into registers; returns the name of the variable that holds it.

        ``wide``: more columns than the tile has may be loaded, up to a whole number of vectors. A
        panel is written so: what is too much is overwritten by the next position's values, or lies
        in the slack behind the last one. ``near``: rows outside may repeat the last one inside.
        """
        if self.in_register(ref):
            return ref.buffer
        buffer = self.nest.buffer(ref.buffer)
        if buffer.scope is Scope.SCRATCH:
            counts = ""
        base, row_step, lane_step = self.steps(ref, rows, lanes)
        r, c = rows.size, lanes.size
        width = self.lanes(c)
        p = ref.buffer
        shared = any(job.also and p == f"{job.operand}_panel" for job in self.schedule.packs)
        name = f"{p}_{'splat' if shared and lane_step == '0' else 'tile'}"
        if row_step == "0":
            r, counts = 1, counts and f", 1, {self.inside(lanes)}"
        if p in self.rows_at:
            _, moving = self.offset_parts(ref, rows, lanes)
            at = f"{p}_rows, {' + '.join(moving) or 0}"
            columns = f", {self.inside(lanes)}" if counts else ""
            one = lane_step == "0"
            call = f"load_each({at})" if one else f"load_along({at}, {c}, {width}{columns})"
        elif wide and row_step == "1" and r > 1 and lane_step not in ("0", "1"):
            call = f"load_panel({p}, {base}, {lane_step}, {c}, {r}, {lanes.inside or c})"
            name = f"{p}_wide"
        elif lane_step == "0":
            call = f"load_splat({p}, {base}, {row_step}, {r}{counts})"
        elif self.looks_up(lane_step):
            call = f"load_found({p}, {base}, {lane_step}, {c}, {width}{counts})"
        elif lane_step == "1":
            self.fetch_ahead(ref, (rows, lanes), row_step)
            near = r > 1 and (self.near or (near and bool(counts)))
            if near:
                counts = f", {rows.inside or r}{counts and f', {self.inside(lanes)}'}"
            word = "load_near" if near else "load_rows"
            call = f"{word}({p}, {base}, {row_step}, {r}, {c}, {width}{counts})"
        elif row_step == "1" and self.is_woven(r, width):
            call = f"load_woven({p}, {base}, {lane_step}, {r}, {c}, {width}{counts})"
        elif row_step == "1" and self.is_turned(r, c, width):
            call = f"load_columns({p}, {base}, {lane_step}, {r}, {c}, {width}{counts})"
        else:
            call = f"load_any({p}, {base}, {row_step}, {lane_step}, {r}, {c}, {width}{counts})"
        if buffer.element != element:
            call = f"convert({call}, {element})"
        self.line(f"{name} = {call}")
        return name

    def looks_up(self, lane_step: str) -> bool:
        """Whether a row's layout is not known before its table is looked at."""
        return self.schedule.recipe == "general" and lane_step not in ("0", "1")

    def is_woven(self, rows: int, lanes: int) -> bool:
        """Whether rows that are neighbours in memory are moved by operations of :mod:`.weave`."""
        return self.schedule.recipe == "streamed" and lanes > 1 and rows % lanes != 0

    def is_turned(self, rows: int, columns: int, lanes: int) -> bool:
        """Whether rows that are neighbours in memory are transposed square by square."""
        return rows % lanes == 0 and columns % lanes == 0

    def fetch_ahead(self, ref: Ref, axes: tuple[Axis, Axis], row_step: str) -> None:
        """Where late sums are walked in blocks, ask for what the next block will read."""
        terms = tuple(_shifted(term, "q", "Q_BLOCK") for term in ref.terms)
        again = row_step == "0" and axes[0].size > 1
        if self.schedule.inner == ("q",) and terms != ref.terms and not again:
            firsts, self.firsts = self.firsts, {}
            ahead, _, _ = self.steps(replace(ref, terms=terms), *axes)
            self.firsts = firsts
            rows, columns = (axis.size for axis in axes)
            self.line(f"fetch_rows({ref.buffer}, {ahead}, {row_step}, {rows}, {columns})")

    def store(self, ref: Ref, rows: Axis, lanes: Axis, counts: str, value: str) -> None:
        """Write a tile from registers to memory."""
        base, row_step, lane_step = self.steps(ref, rows, lanes)
        if self.is_panel(ref):
            counts = ""
        width = self.lanes(lanes.size)
        p = ref.buffer
        square = rows.size % width == 0 and lanes.size % width == 0
        if self.looks_up(lane_step):
            self.line(f"store_found({p}, {base}, {lane_step}, {value}{counts})")
        elif lane_step in ("0", "1"):
            self.line(f"store_rows({p}, {base}, {row_step}, {value}{counts})")
        elif row_step == "1" and square and width > 1:
            self.line(f"store_columns({p}, {base}, {lane_step}, {value}{counts})")
        elif row_step == "1" and self.is_woven(rows.size, width):
            self.line(f"store_woven({p}, {base}, {lane_step}, {value}{counts})")
        else:
            self.line(f"store_any({p}, {base}, {row_step}, {lane_step}, {value}{counts})")

    def lanes(self, columns: int) -> int:
        """Lanes of the vectors that make up a row of this many columns."""
        return gcd(columns, vector_lanes(self.schedule.accumulator, self.schedule.vector_bytes))

    def steps(self, ref: Ref, rows: Axis, lanes: Axis) -> tuple[str, str, str]:
        """The offset of the tile's first element; the steps from row to row and lane to lane."""
        steps = {rows.index: "0", lanes.index: "0"}
        for term in ref.terms:
            for index in {rows.index, lanes.index}.intersection(term.position.names):
                first = str(_first(term, rows, lanes))
                if term.table is None:
                    steps[index] = str(term.stride)
                elif term.runs and self.in_runs:
                    steps[index] = "1"
                else:
                    steps[index] = term.table if first == "0" else f"advance({term.table}, {first})"
        fixed, moving = self.offset_parts(ref, rows, lanes)
        if fixed and self.fixed.get(ref.buffer) == " + ".join(fixed):
            fixed = [f"{ref.buffer}_at"]
        offset = " + ".join(fixed + moving) or "0"
        offset = self.firsts.get(ref.buffer, offset)
        return offset, steps[rows.index], steps[lanes.index]

    def offset_parts(self, ref: Ref, rows: Axis, lanes: Axis) -> tuple[list[str], list[str]]:
        """The terms of a tile's first offset: those that are the same in all rounds of the loop
        around it, and those that are not.
        """
        fixed: list[str] = []
        moving: list[str] = []
        for term in ref.terms:
            along = {rows.index, lanes.index}.intersection(term.position.names)
            if term.table is not None and along and not (term.runs and self.in_runs):
                continue  # its steps are looked up from the first element on
            first = _first(term, rows, lanes)
            part = _offset(term, first)
            if part != "0":
                (moving if self.loop in first.names else fixed).append(part)
        return fixed, moving


def tile_of(statement: Statement) -> tuple[Assign, Loop | None, Loop | None]:
    """The assignment inside the loops of a register tile, and these: rows and lanes."""
    rows = lanes = None
    while isinstance(statement, Loop):
        if statement.kind is Kind.UNROLLED:
            rows = statement
        else:
            lanes = statement
        (statement,) = statement.body
    assert isinstance(statement, Assign)
    return statement, rows, lanes


def _first(term: Term, rows: Axis, lanes: Axis) -> Affine:
    """The position of a tile's first element along a term."""
    return _at_first(term.position, rows, lanes)


def _at_first(position: Affine, rows: Axis, lanes: Axis) -> Affine:
    """A position that depends on rows and lanes, at a tile's first element."""
    starts = {axis.index: axis.start for axis in (rows, lanes) if axis.index is not None}
    return position.replaced(starts)


def moved_to(ref: Ref, starts: dict[str, Affine]) -> Ref:
    """The access where some loops begin."""
    terms = (replace(t, position=t.position.replaced(starts)) for t in ref.terms)
    return replace(ref, terms=tuple(terms))


def _offset(term: Term, position: Affine) -> str:
    if term.table is not None:
        return f"peek({term.table}, {position})"
    text = str(position)
    if text == "0" or term.stride == 1:
        return text
    return f"{text} * {term.stride}" if position.is_index else f"({text}) * {term.stride}"


def _shifted(term: Term, index: str, by: str) -> Term:
    """The same term at a position further on, where it depends on an index."""
    if index not in term.position.names:
        return term
    position = replace(term.position, terms=(*term.position.terms, (by, 1)))
    return replace(term, position=position)
