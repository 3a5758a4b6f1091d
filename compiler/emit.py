"""Emit a scheduled loop nest as Numba source that people can read.

The source is a function ``kernel(args, begin, end, scratch)``: ``args`` points to the 64-bit values
that :func:`.loopnest.parameters` lists, ``begin`` and ``end`` are the range of tiles to run, and
``scratch`` is the address of the thread's own memory. Loops become loops; the rows and lanes of a
register tile become one operation of :mod:`.simd` on the whole tile. At an edge, where fewer rows
or columns are inside, the same operation takes their counts and masks the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import gcd

from .affine import Affine
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
    in_runs: bool = False  # what `runs` tests has been found true
    known: dict[str, bool] = field(default_factory=dict)  # are all "rows" or "columns" inside

    def text(self) -> str:
        self.line("def kernel(args, begin, end, scratch):")
        self.depth += 1
        self.prologue()
        for statement in self.nest.body:
            self.statement(statement)
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
            elif name in used:
                self.line(f"{name} = args[{slot}]")

    def used_names(self) -> set[str]:
        """The parameters that the body mentions."""
        names: set[str] = set()
        for statement in walk(self.nest.body):
            match statement:
                case Loop():
                    for bound in (statement.start, *statement.stop):
                        names.update(bound.names)
                    names.add(str(statement.step))
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
                            names.update(str(term.stride).split("*"))
        for buffer in self.nest.buffers:
            names.update(str(s) for s in buffer.size)
        return names

    # Loops.

    def statement(self, statement: Statement) -> None:
        match statement:
            case Tiles():
                self.tiles(statement)
            case Loop(kind=Kind.SERIAL):
                step = "" if statement.step == 1 else f", {statement.step}"
                start, stop = statement.start, self.stop(statement.stop)
                if self.is_summed_tile(statement):
                    self.summed_tiles(statement, str(start), stop)
                    return
                self.line(f"for {statement.index} in range({start}, {stop}{step}):")
                self.body(statement.body, {statement.index})
            case Tabulate():
                start, stop = statement.start, self.stop(statement.stop)
                self.line(
                    f"tabulate(args, {statement.group}_group, {statement.slot}, {start}, {stop},"
                    f" {statement.table})"
                )
            case _:
                self.register_tile(statement)

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
        self.tile_body(statements)
        self.ends = known
        self.depth -= 1

    def is_summed_tile(self, loop: Loop) -> bool:
        """Whether a loop walks lanes that are summed, tile by tile, with the sums in registers."""
        lanes = self.nest.group(self.schedule.lanes)
        updates = [s for s in walk(loop.body) if isinstance(s, Assign)]
        return (
            self.schedule.recipe == "streamed"
            and lanes.reduced
            and loop.index == f"{lanes.name}_tile"
            and all(self.in_register(s.target) and s.add is True for s in updates)
        )

    def summed_tiles(self, loop: Loop, start: str, stop: str) -> None:
        """The whole tiles, then what is left: no test is in the way of the sums."""
        whole = f"{loop.index}_whole"
        self.line(f"{whole} = {stop} - ({stop} - {start}) % {loop.step}")
        for begin, end, inside in ((start, whole, True), (whole, stop, False)):
            self.line(f"for {loop.index} in range({begin}, {end}, {loop.step}):")
            self.known["columns"] = inside
            if not inside:
                self.line(f"    columns = {stop} - {loop.index}")
            self.body(loop.body, {loop.index})
        del self.known["columns"]

    def tile_body(self, statements: tuple[Statement, ...]) -> None:
        """Statements in order; those on one register tile twice, for a whole tile and for a part.

        Tests within a sum would keep the tile from staying in registers.
        """
        guards = self.tile_guards(statements)
        if not guards:
            for statement in statements:
                self.statement(statement)
            return
        for word, (guard, _) in guards.items():
            self.line(f"{word} = {guard}")
        tests = " and ".join(f"{word} == {size}" for word, (_, size) in guards.items())
        for header, inside in ((f"if {tests}:", True), ("else:", False)):
            self.line(header)
            self.depth += 1
            self.known.update(dict.fromkeys(guards, inside))
            for statement in statements:
                self.statement(statement)
            self.depth -= 1
        for word in guards:
            del self.known[word]

    def tile_guards(self, statements: tuple[Statement, ...]) -> dict[str, tuple[str, int]]:
        """How many rows and columns of the tile that these statements sum into are inside."""
        cleared = any(
            isinstance(s, Assign) and not s.factors
            for statement in statements
            for s in walk((statement,))
        )
        direct = any(
            isinstance(s, Loop) and s.kind is not Kind.SERIAL and len(s.stop) == 1
            for s in statements
        )
        if self.schedule.recipe != "streamed" or not cleared or not direct or self.known:
            return {}
        within = {s.index for s in walk(statements) if isinstance(s, Loop)}
        guards = {}
        for s in walk(statements):
            if isinstance(s, Loop) and s.kind is not Kind.SERIAL and len(s.stop) > 1:
                word = "rows" if s.kind is Kind.UNROLLED else "columns"
                if not within.intersection(s.start.names):
                    _, guard = self.axis(s, word)
                    guards[word] = (str(guard), s.stop[0].constant - s.start.constant)
        return guards

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

    # Register tiles.

    def register_tile(self, statement: Statement) -> None:
        """Rows and lanes around one assignment: an operation on a whole tile."""
        rows = lanes = None
        while isinstance(statement, Loop):
            if statement.kind is Kind.UNROLLED:
                rows = statement
            else:
                lanes = statement
            (statement,) = statement.body
        assert isinstance(statement, Assign)
        if statement.total:
            (tile,) = statement.factors
            self.line(f"{tile.buffer}_sum = total_rows({tile.buffer})")
            statement = replace(statement, factors=(Ref(f"{tile.buffer}_sum"),), total=False)
        row_axis, row_guard = self.axis(rows, "rows")
        lane_axis, lane_guard = self.axis(lanes, "columns")
        in_memory = any(self.in_memory(ref) for ref in (statement.target, *statement.factors))
        in_memory |= self.sums_lanes(statement)  # panels hold anything in lanes outside
        runs = self.runs(statement, row_axis, lane_axis)
        tests: list[str] = []
        partly = False
        for axis, guard in ((row_axis, row_guard), (lane_axis, lane_guard)):
            if guard and in_memory:
                partly |= axis.inside in self.known
                if axis.inside not in self.known:
                    self.line(f"{axis.inside} = {guard}")
                if axis.inside not in self.known:
                    tests.append(f"{axis.inside} == {axis.size}")
        tests += runs
        if isinstance(statement.add, str):
            # From the second round on, begin with what the output holds already.
            self.line(f"if {statement.add} > 0:")
            self.depth += 1
            again = replace(statement, target=statement.factors[0], factors=(statement.target,))
            self.assign(replace(again, add=True), row_axis, lane_axis, inside=bool(tests) or partly)
            self.depth -= 1
            statement = replace(statement, add=False)
        if not tests or partly:
            self.assign(statement, row_axis, lane_axis, inside=partly)
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
        size = fixed.constant - loop.start.constant
        if not others or self.known.get(word):
            return _Axis(loop.index, loop.start, size, None), None
        guard = f"{self.stop(loop.stop)} - {loop.start}"
        return _Axis(loop.index, loop.start, size, word), guard

    def sums_lanes(self, statement: Assign) -> bool:
        """Whether lanes outside must not be added, since the lanes of the target are summed."""
        register = self.in_register(statement.target) and statement.add is True
        reduced = self.nest.group(self.schedule.lanes).reduced
        return register and reduced and not any(map(self.in_register, statement.factors))

    def in_memory(self, ref: Ref) -> bool:
        return not self.in_register(ref) and self.nest.buffer(ref.buffer).scope is Scope.MEMORY

    def in_register(self, ref: Ref) -> bool:
        """Whether a variable holds it: a register tile, or the sums of one's rows."""
        tile = ref.buffer.removesuffix("_sum")
        return self.nest.buffer(tile).scope is Scope.REGISTERS

    def assign(self, statement: Assign, rows: _Axis, lanes: _Axis, *, inside: bool) -> None:
        """One assignment as tile operations; with ``inside``, only on what lies in the tensor."""
        counts = f", {rows.inside or rows.size}, {lanes.inside or lanes.size}" if inside else ""
        element = self.schedule.accumulator
        target = statement.target
        in_register = self.in_register(target)
        if in_register and not statement.factors:
            shape = f"{rows.size}, {lanes.size}, {self.lanes(lanes.size)}"
            self.line(f"{target.buffer} = zeros({element}, {shape})")
            return
        panel = not in_register and self.nest.buffer(target.buffer).scope is Scope.SCRATCH
        if panel and inside and self.copied_part(statement, rows, lanes):
            return
        values = [
            self.load(factor, rows, lanes, counts, element, wide=panel and not inside)
            for factor in statement.factors
        ]
        if in_register and statement.add is True:
            # What lies outside is never stored, but summed lanes must not hold any of it.
            summed = self.nest.group(self.schedule.lanes).reduced and target.buffer != "acc_sum"
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

    def copied_part(self, statement: Assign, rows: _Axis, lanes: _Axis) -> bool:
        """Fill the edge of a panel element by element, unless it is a single run of neighbours."""
        (factor,) = statement.factors
        source, row_step, lane_step = self.steps(factor, rows, lanes)
        if rows.size == 1 and lane_step == "1":
            return False
        panel = statement.target.buffer
        staged = panel in {f"{each.operand}_panel" for each in self.schedule.panels}
        if staged and row_step == "1":
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
            self.fetch_ahead(ref, (rows, lanes), row_step, r, c)
            call = f"load_rows({p}, {base}, {row_step}, {r}, {c}, {width}{counts})"
        elif row_step == "1" and r % width == 0 and c % width == 0:
            call = f"load_columns({p}, {base}, {lane_step}, {r}, {c}, {width}{counts})"
        elif row_step == "1" and width > 1:
            call = f"load_woven({p}, {base}, {lane_step}, {r}, {c}, {width}{counts})"
        else:
            call = f"load_any({p}, {base}, {row_step}, {lane_step}, {r}, {c}, {width}{counts})"
        if buffer.element != element:
            call = f"convert({call}, {element})"
        self.line(f"{name} = {call}")
        return name

    def fetch_ahead(
        self, ref: Ref, axes: tuple[_Axis, _Axis], row_step: str, rows: int, columns: int
    ) -> None:
        """Where late sums are walked in blocks, ask for what the next block will read."""
        if "q_block" not in self.schedule.outer:
            return
        terms = [_shifted(term, "q", "Q_BLOCK") for term in ref.terms]
        if terms != list(ref.terms):
            firsts, self.firsts = self.firsts, {}
            ahead, _, _ = self.steps(replace(ref, terms=tuple(terms)), axes[0], axes[1])
            self.firsts = firsts
            self.line(f"fetch_rows({ref.buffer}, {ahead}, {row_step}, {rows}, {columns})")

    def store(self, ref: Ref, rows: _Axis, lanes: _Axis, counts: str, value: str) -> None:
        base, row_step, lane_step = self.steps(ref, rows, lanes)
        if self.nest.buffer(ref.buffer).scope is Scope.SCRATCH:
            counts = ""
        width = self.lanes(lanes.size)
        p = ref.buffer
        square = rows.size % width == 0 and lanes.size % width == 0
        if lane_step in ("0", "1"):
            self.line(f"store_rows({p}, {base}, {row_step}, {value}{counts})")
        elif row_step == "1" and square and width > 1:
            self.line(f"store_columns({p}, {base}, {lane_step}, {value}{counts})")
        elif row_step == "1" and width > 1:
            self.line(f"store_woven({p}, {base}, {lane_step}, {value}{counts})")
        else:
            self.line(f"store_any({p}, {base}, {row_step}, {lane_step}, {value}{counts})")

    def lanes(self, columns: int) -> int:
        """Lanes of the vectors that make up a row of this many columns."""
        return gcd(columns, vector_lanes(self.schedule.accumulator, self.schedule.vector_bytes))

    def steps(self, ref: Ref, rows: _Axis, lanes: _Axis) -> tuple[str, str, str]:
        """The offset of the tile's first element; the steps from row to row and lane to lane."""
        starts = {axis.index: axis.start for axis in (rows, lanes) if axis.index is not None}
        base: list[str] = []
        steps = {rows.index: "0", lanes.index: "0"}
        for term in ref.terms:
            along = [i for i in starts if i in term.position.names]
            first = _substitute(term.position, starts)
            if not along:
                base.append(_offset(term, first))
            elif term.table is not None and term.runs and self.in_runs:
                steps[along[0]] = "1"
                base.append(_offset(term, first))
            elif term.table is not None:
                place = str(first)
                steps[along[0]] = term.table if place == "0" else f"advance({term.table}, {place})"
            else:
                steps[along[0]] = str(term.stride)
                base.append(_offset(term, first))
        offset = " + ".join(part for part in base if part != "0") or "0"
        offset = self.firsts.get(ref.buffer, offset)
        return offset, steps[rows.index], steps[lanes.index]


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
