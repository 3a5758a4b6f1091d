"""Emit a scheduled loop nest as Numba source that people can read.

The source is a function ``kernel(args, begin, end, scratch)``: ``args`` points to the 64-bit values
that :func:`.loopnest.parameters` lists, ``begin`` and ``end`` are the range of tiles to run, and
``scratch`` is the address of the thread's own memory. Loops become loops; what is inside a register
tile is the business of :mod:`.tile_source`.
"""

from __future__ import annotations

from collections.abc import Iterator

from .affine import Affine
from .loopnest import (
    Assign,
    Fill,
    Kind,
    Loop,
    Nest,
    Ref,
    Statement,
    Tabulate,
    Tiles,
    Write,
    parameters,
    place_of,
    scratch_buffers,
    walk,
)
from .pack_source import PackSource
from .records import dataclass
from .schedule import Schedule, vector_lanes
from .tile_source import Axis, moved_to, tile_of


def emit(nest: Nest, schedule: Schedule) -> str:
    """The source of a nest that has gone through all passes."""
    return _Source(nest, schedule).text()


@dataclass
class _Source(PackSource):
    """The source of a whole kernel."""

    def text(self) -> str:
        self.line("def kernel(args, begin, end, scratch):")
        self.depth += 1
        self.prologue()
        for statement in walk(self.nest.body):
            if isinstance(statement, Tabulate) and self.is_again(statement):
                self.line(f"{statement.table}_of = -1")
        head = len(self.lines)
        for statement in self.nest.body:
            self.statement(statement)
        self.lines[head:head] = [
            f"    {name} = {_number(*number)}" for number, name in self.numbers.items()
        ]
        return "\n".join(self.lines) + "\n"

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
            elif name == "taps":
                self.line(f"taps = table(args, args[{slot}])")
            elif (
                name == "frame"
                or name in {f"c{number}" for number in range(self.nest.numbers)}
                or name in used
            ):
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
                case Fill() | Write():
                    ends = (*statement.stop, *statement.last)
                    for bound in (statement.start, statement.first, *ends):
                        names.update(bound.names)
                    if isinstance(statement, Fill):
                        names |= _named(statement.source)
                    else:
                        names |= {*_named(statement.target), str(statement.rows), "N_TASK"}
                case Assign():
                    for ref in (statement.target, *statement.factors):
                        names |= _named(ref)
        for buffer in self.nest.buffers:
            names.update(str(s) for s in buffer.size)
        return names | {"AHEAD", "ASKED"}

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
                again = self.is_again(statement)
                if again:
                    self.line(f"if {table}_of != {start}:")
                    self.line(f"    {table}_of = {start}")
                self.line(
                    f"{'    ' * again}tabulate(args, {statement.group}_group, {statement.slot},"
                    f" {start}, {stop}, {table})"
                )
            case Fill():
                self.fill(statement)
            case Write():
                self.write(statement)
            case _:
                self.register_tile(statement)

    def is_again(self, statement: Tabulate) -> bool:
        """Whether a table may be asked for when it is there already, of a sum that is short."""
        around = self.schedule.outer
        return self.schedule.recipe == "streamed" and statement.start.names[0] not in around

    def serial(self, loop: Loop) -> None:
        """A loop; an innermost one twice where its tiles may lie across an edge all the time."""
        step = "" if loop.step == 1 else f", {loop.step}"
        start, stop = self.start(loop), self.stop(loop.stop)
        if self.asked and loop.index == self.schedule.inner[-1]:
            stop = f"{start} + ({stop} - {start}) * wanted"
        guards: dict[str, str] = {}
        if _is_innermost(loop):
            self.name_fixed_parts(loop)
            if self.schedule.in_place is not None:
                self.name_rows(loop)
            self.name_tests(loop)
        known = self.whole
        if not known and (_is_innermost(loop) or loop.index == "q"):
            guards = self.lasting_guards(loop)
            if "rows" in guards and self.reads_near_rows(loop):
                self.near = True
                del guards["rows"]
                self.name_near_rows(loop)
        near = {"rows": True} if self.near else {}
        if guards:
            self.line(f"if {' and '.join(guards.values())}:")
            self.depth += 1
        for whole in (True, False) if guards else (None,):
            if whole is False:
                self.depth -= 1
                self.line("else:")
                self.depth += 1
            self.whole = {**known, **near, **dict.fromkeys(guards, whole)}
            if self.whole.get("columns") is not False and self.sums_lanes_of(loop):
                self.summed_tiles(loop, start, stop)
                continue
            if bricks := self.bricks(loop):
                self.in_bricks(loop, start, stop, bricks)
                continue
            inner = self.depth
            if self.asks_ahead(loop):
                self.ask_for_block(loop, start, stop)
            else:
                self.line(f"for {loop.index} in range({start}, {stop}{step}):")
            self.last_tile(loop, start, stop)
            self.body(loop.body, {loop.index})
            self.depth = inner
        if guards:
            self.depth -= 1
        self.whole = known
        self.near = False
        self.fixed.clear()
        self.tests.clear()
        self.rows_at.clear()

    def in_bricks(self, loop: Loop, start: str, stop: str, bricks: list[tuple[str, int]]) -> None:
        """A loop that fills several panels in a round where it may, and one elsewhere."""
        (inner,) = loop.body
        assert isinstance(inner, Loop)
        self.line(f"{loop.index} = {start}")
        self.line(f"while {loop.index} < {stop}:")
        self.depth += 1
        self.line("bricks = 0")
        for word, (test, count) in zip(("if", "elif"), bricks, strict=False):
            self.line(f"{word} {test}:")
            self.line(f"    bricks = {count}")
        self.line("if bricks > 0:")
        self.depth += 1
        self.line(f"for {inner.index} in range({inner.start}, {self.stop(inner.stop)}):")
        self.depth += 1
        self.brick(loop)
        self.depth -= 1
        self.line(f"{loop.index} = {loop.index} + bricks")
        self.depth -= 1
        self.line("else:")
        self.body(loop.body, {loop.index})
        self.line(f"    {loop.index} = {loop.index} + {loop.step}")
        self.depth -= 1

    def sums_lanes_of(self, loop: Loop) -> bool:
        """Whether a loop walks lanes that are summed, tile by tile, with the sums in registers."""
        lanes = self.nest.group(self.schedule.lanes)
        if not (lanes.reduced and loop.index == f"{lanes.name}_tile" and _is_innermost(loop)):
            return False
        tiles = [tile_of(s)[0] for s in loop.body if not isinstance(s, Tabulate | Fill | Write)]
        return all(self.in_register(tile.target) and tile.add is True for tile in tiles)

    def reads_near_rows(self, loop: Loop) -> bool:
        """Whether rows outside may be read as the last one inside, as sums of their own.

        Nothing is stored of them, and no test for them is in the way of the others.
        """
        if self.schedule.recipe != "streamed" or not self.sums_lanes_of(loop):
            return False
        for tile in loop.body:
            statement, *sides = tile_of(tile)
            rows, lanes = (self.axis(side, "rows")[0] for side in sides)
            if statement.formula is not None or not all(map(self.in_memory, statement.factors)):
                return False
            for ref in statement.factors:
                _, row_step, lane_step = self.steps(ref, rows, lanes)
                narrow = int(self.nest.buffer(ref.buffer).element[1:]) < 4  # cannot be masked
                if row_step != "0" and (lane_step != "1" or narrow):
                    return False
        return True

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
            statement, *sides = tile_of(tile)
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

        Where nothing is summed, elements may be computed twice; that costs less than an edge. So
        may those that a panel is filled with.
        """
        tiles = {s.index for s in self.schedule.splits if s.suffix == "tile"}
        again = loop.index in tiles and not any(group.reduced for group in self.nest.groups)
        if again:
            room = f"{stop} - ({start})" if start != "0" else stop
            self.line(f"    {loop.index}_last = {stop} - min({room}, {loop.step})")
            self.line(f"    {loop.index} = min({loop.index}, {loop.index}_last)")
        elif self.is_copied(loop):
            room = f"min({stop} - {start}, {loop.step})"
            self.line(f"    {loop.index} = min({loop.index}, {stop} - {room})")

    def is_copied(self, loop: Loop) -> bool:
        """Whether panels are filled in a loop, with several positions of ``k`` at once."""
        inner = [each for each in walk(loop.body) if isinstance(each, Assign)]
        deep = (job for job in self.schedule.packs if job.depth > 1)
        panels = {f"{job.operand}_panel" for job in deep}
        return loop.index == "k_tile" and {each.target.buffer for each in inner} <= panels

    def body(self, statements: tuple[Statement, ...], indices: set[str]) -> None:
        """The body of the loops over ``indices``, with names for the ends of their blocks."""
        self.depth += 1
        known = dict(self.ends)
        later = {inner.index for inner in walk(statements) if isinstance(inner, Loop)}
        for inner in walk(statements):
            if isinstance(inner, Loop | Tabulate) and len(inner.stop) > 1 and inner.start.names:
                (index,) = inner.start.names
                bounds = {name for bound in inner.stop for name in bound.names}
                is_known = index in indices and not bounds & later
                if is_known and inner.stop not in self.ends:
                    words = (f"{index}_{word}" for word in ("end", "known", "following"))
                    name = next(word for word in words if word not in self.ends.values())
                    self.line(f"{name} = {self.stop(inner.stop)}")
                    self.ends[inner.stop] = name
        for statement in statements:
            self.ask_for_update(statement)
        self.ask_whether(statements)
        for statement in statements:
            self.statement(statement)
        self.ends = known
        self.depth -= 1

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

    # Frames.

    def fill(self, statement: Fill) -> None:
        """Fill a frame."""
        source, _, _ = self.steps(statement.source, _ONE, _ONE)
        self.line(
            f"fill_frame(args, frame, {statement.source.buffer}, {source}, {statement.buffer},"
            f" {statement.start}, {self.stop(statement.stop)}, {statement.first},"
            f" {self.stop(statement.last)}, {self.vector})"
        )

    def write(self, statement: Write) -> None:
        """Write what was summed in scratch."""
        target, _, _ = self.steps(statement.target, _ONE, _ONE)
        self.line(
            f"write_frame(args, frame, {statement.buffer}, N_TASK, {statement.target.buffer},"
            f" {target}, {statement.rows}, {self.stop(statement.last)} - {statement.first},"
            f" {statement.start}, {self.stop(statement.stop)}, {self.vector})"
        )

    @property
    def vector(self) -> int:
        """Lanes of a vector of sums."""
        return vector_lanes(self.schedule.accumulator, self.schedule.vector_bytes)

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
        run = Axis(None, Affine(()), 1, None)
        out, row_step, _ = self.steps(moved_to(statement.target, starts), row_axis, run)
        stage, pitch, _ = self.steps(moved_to(source, starts), row_axis, run)
        each = "".join(f" * {self.stop(loop.stop)}" for loop in inner)
        stop, extent = self.stop(first.stop), first.stop[-1]
        self.line(
            f"write_runs({statement.target.buffer}, {out}, {row_step}, {source.buffer}, {stage},"
            f" {pitch}, {row_count or 1}, ({stop} - {first.start}){each}, {first.start},"
            f" {extent} - {stop})"
        )


_ONE = Axis(None, Affine(()), 1, None)


def _named(ref: Ref) -> set[str]:
    """The parameters and loops that an access mentions."""
    return {name for t in ref.terms for name in (*str(t.stride).split("*"), *t.position.names)}


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
        elif not isinstance(statement, Tabulate | Fill | Write):
            yield statement, frozenset((loop.index,))
