"""Emit a scheduled loop nest as Numba source that people can read.

The source is a function ``kernel(args, begin, end, scratch)``: ``args`` points to the 64-bit values
that :func:`.loopnest.parameters` lists, ``begin`` and ``end`` are the range of tiles to run, and
``scratch`` is the address of the thread's own memory. Loops become loops; the rows and lanes of a
register tile become one operation of :mod:`.simd` on the whole tile. At an edge, where fewer rows
or columns are inside, the same operation takes their counts and masks the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import gcd

from .affine import Affine
from .express import Expression
from .finish import inputs_of, wide
from .formula import Apply
from .loopnest import (
    Assign,
    Kind,
    Loop,
    Nest,
    Ref,
    Scope,
    Statement,
    Tabulate,
    Term,
    Tiles,
    parameters,
    place_of,
    scratch_buffers,
    walk,
)
from .schedule import Schedule, vector_lanes


def emit(nest: Nest, schedule: Schedule) -> str:
    """The source of a nest that has gone through all passes."""
    return _Source(nest, schedule).text()


@dataclass(frozen=True, slots=True)
class _Axis:
    """One side of a register tile: its loop variable, first position, size and count inside."""

    index: str | None
    start: Affine
    size: int
    inside: str | None  # the variable that holds how many are inside; None when all are


@dataclass
class _Source:
    nest: Nest
    schedule: Schedule
    lines: list[str] = field(default_factory=list)
    depth: int = 0
    ends: dict[tuple[Affine, ...], str] = field(default_factory=dict)  # bounds that have a name
    firsts: dict[str, str] = field(default_factory=dict)  # offsets that have a name
    loop: str = ""  # the innermost loop's index
    whole: dict[str, bool | None] = field(default_factory=dict)  # sides known to be whole or not
    fixed: dict[str, str] = field(default_factory=dict)  # parts of offsets named before that loop
    in_runs: bool = False  # what `runs` tests has been found true
    numbers: dict[tuple[int, str, str], str] = field(default_factory=dict)  # a formula's, typed
    values: int = 0  # parts of formulas that have a name

    def text(self) -> str:
        self.line("def kernel(args, begin, end, scratch):")
        self.depth += 1
        self.prologue()
        head = len(self.lines)
        for statement in self.nest.body:
            self.statement(statement)
        self.lines[head:head] = [
            f"    {name} = {_number(*number)}" for number, name in self.numbers.items()
        ]
        return "\n".join(self.lines) + "\n"

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def prologue(self) -> None:
        """Name every argument and every part of the scratch memory."""
        used = self.used_names()
        tensors = {tensor.name: tensor.element for tensor in self.nest.tensors}
        scratch = {place_of(buffer): buffer for buffer in scratch_buffers(self.nest)}
        for slot, name in enumerate(parameters(self.nest)):
            if name in tensors:
                self.line(f"{name} = operand(args, {slot}, {tensors[name]})")
            elif name in scratch:
                buffer = scratch[name]
                self.line(f"{buffer.name} = buffer(scratch, args[{slot}], {buffer.element})")
            elif name in {f"c{number}" for number in range(self.nest.numbers)} or name in used:
                self.line(f"{name} = args[{slot}]")

    def used_names(self) -> set[str]:
        """The parameters that the body mentions."""
        names: set[str] = set()
        for statement in walk(self.nest.body):
            match statement:
                case Loop():
                    for bound in (statement.start, *statement.stop):
                        names.update(bound.names)
                    names.update((str(statement.step), str(statement.lead)))
                case Tiles():
                    for _, extent, step in statement.axes:
                        names.update((extent, str(step)))
                case Tabulate():
                    names.add(f"{statement.group}_group")
                    for bound in (statement.start, *statement.stop):
                        names.update(bound.names)
                case Assign():
                    for ref in (statement.target, *statement.factors):
                        for term in ref.terms:
                            names.update((*str(term.stride).split("*"), *term.position.names))
        for buffer in self.nest.buffers:
            names.update(str(s) for s in buffer.size)
        return names

    # Loops.

    def statement(self, statement: Statement) -> None:
        match statement:
            case Tiles():
                self.tiles(statement)
            case Loop(kind=Kind.SERIAL):
                self.serial(statement)
            case Loop(kind=Kind.RUN):
                self.write_runs(statement)
            case Tabulate():
                start, stop = self.start(statement), self.stop(statement.stop)
                table = statement.table
                if statement.lead is not None:
                    table = f"advance({table}, {statement.lead} - ({statement.start} - ({start})))"
                self.line(
                    f"tabulate(args, {statement.group}_group, {statement.slot}, {start}, {stop},"
                    f" {table})"
                )
            case _:
                self.register_tile(statement)

    def serial(self, loop: Loop) -> None:
        """A loop; an innermost one twice where its tiles may lie across an edge all the time."""
        step = "" if loop.step == 1 else f", {loop.step}"
        start, stop = self.start(loop), self.stop(loop.stop)
        guards: dict[str, str] = {}
        if _is_innermost(loop):
            self.name_fixed_parts(loop)
        known = self.whole
        if not known and (_is_innermost(loop) or loop.index == "q"):
            guards = self.lasting_guards(loop)
        if guards:
            self.line(f"if {' and '.join(guards.values())}:")
            self.depth += 1
        for whole in (True, False) if guards else (None,):
            if whole is False:
                self.depth -= 1
                self.line("else:")
                self.depth += 1
            self.whole = {**known, **dict.fromkeys(guards, whole)}
            if False not in self.whole.values() and self.sums_lanes_of(loop):
                self.summed_tiles(loop, start, stop)
                continue
            self.line(f"for {loop.index} in range({start}, {stop}{step}):")
            self.last_tile(loop, start, stop)
            self.body(loop.body, {loop.index})
        if guards:
            self.depth -= 1
        self.whole = known
        self.fixed.clear()

    def sums_lanes_of(self, loop: Loop) -> bool:
        """Whether a loop walks lanes that are summed, tile by tile, with the sums in registers."""
        lanes = self.nest.group(self.schedule.lanes)
        if not (lanes.reduced and loop.index == f"{lanes.name}_tile" and _is_innermost(loop)):
            return False
        tiles = [_tile(s)[0] for s in loop.body if not isinstance(s, Tabulate)]
        return all(self.in_register(tile.target) and tile.add is True for tile in tiles)

    def summed_tiles(self, loop: Loop, start: str, stop: str) -> None:
        """The whole tiles, then what is left: no test is in the way of the sums."""
        end = f"{loop.index}_whole"
        self.line(f"{end} = {stop} - ({stop} - {start}) % {loop.step}")
        sides = dict(self.whole)
        for begin, limit, whole in ((start, end, True), (end, stop, False)):
            self.line(f"for {loop.index} in range({begin}, {limit}, {loop.step}):")
            self.line(f"    columns = {loop.step if whole else f'{stop} - {loop.index}'}")
            self.whole = {**sides, "columns": whole}
            self.body(loop.body, {loop.index})
        self.whole = sides

    def lasting_guards(self, loop: Loop) -> dict[str, str]:
        """Count what is inside along the sides of a loop's tiles that stay the same in all rounds;
        returns the test of each side being whole.
        """
        guards: dict[str, set[tuple[str, str]]] = {"rows": set(), "columns": set()}
        for tile, around in _tiles_in(loop):
            statement, *sides = _tile(tile)
            if not self.is_guarded(statement):
                continue
            if self.is_scratch(statement.target):
                return {}  # to fill a panel, a test a tile costs less than compiling it twice
            for side, word in zip(sides, guards, strict=True):
                axis, guard = self.axis(side, word)
                if side is not None and guard:
                    names = {name for bound in (side.start, *side.stop) for name in bound.names}
                    moves = not names.isdisjoint(around)
                    guards[word].add(("" if moves else guard, f"{word} == {axis.size}"))
        tests = {}
        for word, found in guards.items():
            if len(found) == 1 and all(guard for guard, _ in found):
                ((guard, tests[word]),) = found
                self.line(f"{word} = {guard}")
        return tests

    def start(self, statement: Loop | Tabulate) -> str:
        """Where a loop or table begins."""
        start = str(statement.start)
        lead = statement.lead
        return start if lead is None else f"{start} - min({start}, {lead})"

    def last_tile(self, loop: Loop, start: str, stop: str) -> None:
        """Move the last tile of a loop back so that all of it is inside, if the loop is as long.

        Where nothing is summed, elements may be computed twice; that costs less than an edge.
        """
        tiles = {s.index for s in self.schedule.splits if s.suffix == "tile"}
        if loop.index in tiles and not any(group.reduced for group in self.nest.groups):
            room = f"{stop} - ({start})" if start != "0" else stop
            self.line(f"    {loop.index}_last = {stop} - min({room}, {loop.step})")
            self.line(f"    {loop.index} = min({loop.index}, {loop.index}_last)")

    def body(self, statements: tuple[Statement, ...], indices: set[str]) -> None:
        """The body of the loops over ``indices``, with names for the ends of their blocks."""
        self.depth += 1
        known = dict(self.ends)
        for inner in walk(statements):
            if isinstance(inner, Loop | Tabulate) and len(inner.stop) > 1:
                (index,) = inner.start.names
                if index in indices and inner.stop not in self.ends:
                    word = "known" if f"{index}_end" in self.ends.values() else "end"
                    self.line(f"{index}_{word} = {self.stop(inner.stop)}")
                    self.ends[inner.stop] = f"{index}_{word}"
        for statement in statements:
            self.statement(statement)
        self.ends = known
        self.depth -= 1

    def stop(self, stops: tuple[Affine, ...]) -> str:
        """The least of several bounds, by the names that outer loops gave to them."""
        if stops in self.ends:
            return self.ends[stops]
        if len(stops) == 1:
            return str(stops[0])
        return f"min({stops[0]}, {self.stop(stops[1:])})"

    def tiles(self, tiles: Tiles) -> None:
        """One loop over tile numbers; the last axis runs fastest."""
        counts = []
        for index, extent, step in tiles.axes[1:]:
            if step != 1:
                self.line(f"{index}_count = ({extent} + {step} - 1) // {step}")
            counts.append(extent if step == 1 else f"{index}_count")
        self.line("for tile in range(begin, end):")
        self.depth += 1
        number = "tile"
        for i, (index, _, step) in reversed(list(enumerate(tiles.axes))):
            by = "" if step == 1 else f" * {step}"
            if i == 0:
                self.line(f"{index} = {number}{by}")
                break
            self.line(f"{index} = {number} % {counts[i - 1]}{by}")
            rest = f"tile_{i}"
            self.line(f"{rest} = {number} // {counts[i - 1]}")
            number = rest
        self.depth -= 1
        self.body(tiles.body, {index for index, _, _ in tiles.axes})
        if self.schedule.stage is not None:
            self.line("fence()")

    # Runs of the output.

    def write_runs(self, statement: Statement) -> None:
        """Write a block that was collected in scratch."""
        loops: list[Loop] = []
        while isinstance(statement, Loop):
            loops.append(statement)
            (statement,) = statement.body
        assert isinstance(statement, Assign)
        assert self.schedule.stage is not None
        job = self.schedule.stage
        rows = loops.pop(0) if job.rows is not None else None
        row_axis, row_count = self.axis(rows, "rows")
        (source,) = statement.factors
        first, *inner = loops
        starts = {loop.index: loop.start for loop in loops}
        run = _Axis(None, Affine(()), 1, None)
        out, row_step, _ = self.steps(_from(statement.target, starts), row_axis, run)
        stage, pitch, _ = self.steps(_from(source, starts), row_axis, run)
        each = "".join(f" * {self.stop(loop.stop)}" for loop in inner)
        stop, extent = self.stop(first.stop), first.stop[-1]
        self.line(
            f"write_runs({statement.target.buffer}, {out}, {row_step}, {source.buffer}, {stage},"
            f" {pitch}, {row_count or 1}, ({stop} - {first.start}){each}, {first.start},"
            f" {extent} - {stop})"
        )

    # Register tiles.

    def register_tile(self, statement: Statement) -> None:
        """Rows and lanes around one assignment: an operation on a whole tile."""
        statement, rows, lanes = _tile(statement)
        if statement.total:
            tile, *others = statement.factors
            self.line(f"{tile.buffer}_sum = total_rows({tile.buffer})")
            sums = (Ref(f"{tile.buffer}_sum", tile.terms[:-1]), *others)
            statement = replace(statement, factors=sums, total=False)
        row_axis, row_guard = self.axis(rows, "rows")
        lane_axis, lane_guard = self.axis(lanes, "columns")
        in_memory = self.is_guarded(statement)
        runs = self.runs(statement, row_axis, lane_axis)
        part = in_memory and False in self.whole.values()
        tests = []
        for axis, guard in ((row_axis, row_guard), (lane_axis, lane_guard)):
            if guard and in_memory and axis.inside not in self.whole:
                self.line(f"{axis.inside} = {guard}")
                tests.append(f"{axis.inside} == {axis.size}")
        tests += runs
        if isinstance(statement.add, str):
            # From the second round on, begin with what the output holds already.
            self.line(f"if {statement.add} > 0:")
            self.depth += 1
            again = replace(statement, target=statement.factors[0], factors=(statement.target,))
            self.assign(replace(again, add=True), row_axis, lane_axis, inside=bool(tests) or part)
            self.depth -= 1
            statement = replace(statement, add=False)
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

    def name_fixed_parts(self, loop: Loop) -> None:
        """Compute once what an innermost loop's offsets have in common in all rounds."""
        self.loop = loop.index
        for tile in loop.body:
            if isinstance(tile, Tabulate):
                continue
            statement, *sides = _tile(tile)
            axes = [self.axis(side, "")[0] for side in sides]
            for ref in (statement.target, *statement.factors):
                if self.in_register(ref) or ref.buffer in self.fixed:
                    continue
                parts, _ = self.offset_parts(ref, *axes)
                text = " + ".join(parts)
                if len(parts) > 1 or (text and not text.isidentifier()):
                    self.line(f"{ref.buffer}_at = {text}")
                    self.fixed[ref.buffer] = text

    def name_firsts(self, statement: Assign, rows: _Axis, lanes: _Axis) -> None:
        """Compute the offsets of a tile's first elements once for the branches that follow."""
        for ref in (statement.target, *statement.factors):
            if not self.in_register(ref):
                first, _, _ = self.steps(ref, rows, lanes)
                self.line(f"{ref.buffer}_first = {first}")
                self.firsts[ref.buffer] = f"{ref.buffer}_first"

    def runs(self, statement: Assign, rows: _Axis, lanes: _Axis) -> list[str]:
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

    def axis(self, loop: Loop | None, word: str) -> tuple[_Axis, str | None]:
        """A side of the tile that a loop makes, and the expression that counts what is inside."""
        if loop is None:
            return _Axis(None, Affine(()), 1, None), None
        fixed, *others = loop.stop
        if loop.kind is Kind.RUN:
            return _Axis(loop.index, loop.start, 0, word), f"{self.stop(loop.stop)} - {loop.start}"
        size = fixed.constant - loop.start.constant
        if not others:
            return _Axis(loop.index, loop.start, size, None), None
        guard = f"{self.stop(loop.stop)} - {loop.start}"
        return _Axis(loop.index, loop.start, size, word), guard

    def is_guarded(self, statement: Assign) -> bool:
        """Whether it matters that part of a tile may lie outside: scratch has room for all of it,
        but lanes outside must not be summed.
        """
        if any(self.in_memory(ref) for ref in (statement.target, *statement.factors)):
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
        return not self.in_register(ref) and self.nest.buffer(ref.buffer).scope is Scope.MEMORY

    def is_scratch(self, ref: Ref) -> bool:
        return not self.in_register(ref) and self.nest.buffer(ref.buffer).scope is Scope.SCRATCH

    def is_panel(self, ref: Ref) -> bool:
        """Whether it lies in scratch that has room for whole tiles."""
        job = self.schedule.stage
        return job is None and self.nest.buffer(ref.buffer).scope is Scope.SCRATCH

    def in_register(self, ref: Ref) -> bool:
        """Whether a variable holds it: a register tile, or the sums of one's rows."""
        tile = ref.buffer.removesuffix("_sum")
        return self.nest.buffer(tile).scope is Scope.REGISTERS

    def assign(self, statement: Assign, rows: _Axis, lanes: _Axis, *, inside: bool) -> None:
        """One assignment as tile operations; with ``inside``, only on what lies in the tensor."""
        counts = f", {rows.inside or rows.size}, {lanes.inside or lanes.size}" if inside else ""
        if not inside:
            self.ask_ahead(statement, rows, lanes)
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
        values = [
            self.load(factor, rows, lanes, counts, element, wide=panel and not inside)
            for factor in statement.factors
        ]
        if in_register and statement.add is True:
            # What lies outside is never stored, but summed lanes must not hold any of it.
            summed = (
                self.sums_lanes(statement) and target.buffer.removesuffix("_sum") == target.buffer
            )
            counts = counts if summed else ""
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

    def element_of(self, statement: Assign) -> str:
        """The type in which a statement computes, if it has no formula."""
        tiles = (ref for ref in (statement.target, *statement.factors) if self.in_register(ref))
        tile = next((ref.buffer.removesuffix("_sum") for ref in tiles), None)
        return self.schedule.accumulator if tile is None else self.nest.buffer(tile).element

    def finish(self, statement: Assign, rows: _Axis, lanes: _Axis, counts: str) -> None:
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
            if isinstance(formula, Apply) and is_product and filled and element[0] in "fc":
                x, y = (expression.text(part, element) for part in formula.arguments)
                word = "collect_products" if collects else "multiply_add"
                self.line(f"{tile} = {word}({tile}, {x}, {y}{counts})")
                return
            value = expression.text(formula, element)
            if not filled:
                value = f"stretch({value}, {shape})"
            word = "collect" if collects else "accumulate"
            self.line(f"{tile} = {word}({tile}, {value}{counts})")
            return
        value = expression.text(formula, self.nest.buffer(target.buffer).element)
        if not filled:
            value = f"stretch({value}, {shape})"
        self.store(target, rows, lanes, counts, value)

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

    def ask_ahead(self, statement: Assign, rows: _Axis, lanes: _Axis) -> None:
        """Ask for what the next tile along the lanes, or the next position of a run, will read."""
        if self.schedule.stage is None or lanes.index is None:
            return
        firsts = dict(self.firsts)
        self.firsts.clear()
        if "u" in self.schedule.stage.run:
            (factor,) = statement.factors
            following = _from(factor, {"u": Affine((("ahead", 1),))})
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

    def copied_part(self, statement: Assign, rows: _Axis, lanes: _Axis) -> bool:
        """Fill the edge of a panel element by element, unless it is a single run of neighbours."""
        (factor,) = statement.factors
        source, row_step, lane_step = self.steps(factor, rows, lanes)
        if rows.size == 1 and lane_step == "1":
            return False
        panel = statement.target.buffer
        if row_step == "1" and any(panel == f"{p.operand}_panel" for p in self.schedule.panels):
            return False
        place, pitch, _ = self.steps(statement.target, rows, lanes)
        counts = f"{rows.inside or rows.size}, {lanes.inside or lanes.size}"
        self.line(
            f"copy_part({panel}, {place}, {pitch}, {factor.buffer}, {source}, {row_step},"
            f" {lane_step}, {counts}, {lanes.size})"
        )
        return True

    def fills(self, statement: Assign, rows: _Axis, lanes: _Axis) -> bool:
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
        product = values[0] if values else ""
        for value in values[1:]:
            product = f"multiply({product}, {value})"
        return product

    def load(
        self, ref: Ref, rows: _Axis, lanes: _Axis, counts: str, element: str, *, wide: bool = False
    ) -> str:
        """Bring a tile into registers; returns the name of the variable that holds it.

        ``wide``: more columns than the tile has may be loaded, up to a whole number of vectors. A
        panel is written so: what is too much is overwritten by the next position's values, or lies
        in the slack behind the last one.
        """
        if self.in_register(ref):
            return ref.buffer
        buffer = self.nest.buffer(ref.buffer)
        if buffer.scope is Scope.SCRATCH:
            counts = ""
        base, row_step, lane_step = self.steps(ref, rows, lanes)
        r, c = rows.size, lanes.size
        width = self.lanes(c)
        whole = vector_lanes(self.schedule.accumulator, self.schedule.vector_bytes)
        p = ref.buffer
        name = f"{p}_tile"
        if row_step == "0":
            r, counts = 1, counts and f", 1, {lanes.inside or lanes.size}"
        if wide and width < whole and lane_step == "1" and r == 1:
            columns = -(-c // whole) * whole
            call = f"load_rows({p}, {base}, 0, 1, {columns}, {whole}, 1, {c})"
            name = f"{p}_wide"
        elif wide and width < whole and row_step == "1" and r > 1:
            call = f"load_panel({p}, {base}, {lane_step}, {c}, {r})"
            name = f"{p}_wide"
        elif lane_step == "0":
            call = f"load_splat({p}, {base}, {row_step}, {r}{counts})"
        elif lane_step == "1":
            self.fetch_ahead(ref, (rows, lanes), row_step)
            call = f"load_rows({p}, {base}, {row_step}, {r}, {c}, {width}{counts})"
        elif row_step == "1" and self.is_woven(r, width):
            call = f"load_woven({p}, {base}, {lane_step}, {r}, {c}, {width}{counts})"
        elif row_step == "1" and r % (side := min(r, width)) == 0 and c % side == 0:
            call = f"load_columns({p}, {base}, {lane_step}, {r}, {c}, {side}{counts})"
        else:
            call = f"load_any({p}, {base}, {row_step}, {lane_step}, {r}, {c}, {width}{counts})"
        if buffer.element != element:
            call = f"convert({call}, {element})"
        self.line(f"{name} = {call}")
        return name

    def is_woven(self, rows: int, lanes: int) -> bool:
        """Whether rows that are neighbours in memory are moved by operations of :mod:`.weave`."""
        return self.schedule.recipe == "streamed" and lanes > 1 and rows % lanes != 0

    def fetch_ahead(self, ref: Ref, axes: tuple[_Axis, _Axis], row_step: str) -> None:
        """Where late sums are walked in blocks, ask for what the next block will read."""
        terms = tuple(_shifted(term, "q", "Q_BLOCK") for term in ref.terms)
        again = row_step == "0" and axes[0].size > 1
        if self.schedule.inner == ("q",) and terms != ref.terms and not again:
            firsts, self.firsts = self.firsts, {}
            ahead, _, _ = self.steps(replace(ref, terms=terms), *axes)
            self.firsts = firsts
            rows, columns = (axis.size for axis in axes)
            self.line(f"fetch_rows({ref.buffer}, {ahead}, {row_step}, {rows}, {columns})")

    def store(self, ref: Ref, rows: _Axis, lanes: _Axis, counts: str, value: str) -> None:
        base, row_step, lane_step = self.steps(ref, rows, lanes)
        if self.is_panel(ref):
            counts = ""
        width = self.lanes(lanes.size)
        p = ref.buffer
        square = rows.size % width == 0 and lanes.size % width == 0
        if lane_step in ("0", "1"):
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

    def steps(self, ref: Ref, rows: _Axis, lanes: _Axis) -> tuple[str, str, str]:
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

    def offset_parts(self, ref: Ref, rows: _Axis, lanes: _Axis) -> tuple[list[str], list[str]]:
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


def _number(position: int, kind: str, element: str) -> str:
    """A number of a formula as a tile of one element."""
    if kind == "c":
        return f"pair(c{position}, c{position + 1}, {element})"
    return f"{'real' if kind == 'f' else 'whole'}(c{position}, {element})"


def _is_innermost(loop: Loop) -> bool:
    """Whether there are only register tiles in a loop."""
    return not any(isinstance(s, Loop) and s.kind in (Kind.SERIAL, Kind.RUN) for s in loop.body)


def _tiles_in(loop: Loop) -> Iterator[tuple[Statement, frozenset[str]]]:
    """The register tiles in a loop, each with the indices of the loops from this one on inwards."""
    for statement in loop.body:
        if isinstance(statement, Loop) and statement.kind is Kind.SERIAL:
            for tile, around in _tiles_in(statement):
                yield tile, around | {loop.index}
        elif not isinstance(statement, Tabulate):
            yield statement, frozenset((loop.index,))


def _tile(statement: Statement) -> tuple[Assign, Loop | None, Loop | None]:
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


def _first(term: Term, rows: _Axis, lanes: _Axis) -> Affine:
    """The position of a tile's first element along a term."""
    starts = {axis.index: axis.start for axis in (rows, lanes) if axis.index is not None}
    return _substitute(term.position, starts)


def _from(ref: Ref, starts: dict[str, Affine]) -> Ref:
    """The access where some loops begin."""
    terms = (replace(t, position=_substitute(t.position, starts)) for t in ref.terms)
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


def _substitute(position: Affine, values: dict[str, Affine]) -> Affine:
    """An affine position with some of its names replaced by affine positions."""
    terms: list[tuple[str, int]] = []
    constant = position.constant
    for name, coefficient in position.terms:
        if name in values:
            terms += [(n, coefficient * c) for n, c in values[name].terms]
            constant += coefficient * values[name].constant
        else:
            terms.append((name, coefficient))
    return Affine(tuple(terms), constant)
