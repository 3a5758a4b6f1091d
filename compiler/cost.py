"""What a statement costs: operations, memory traffic, and the seconds they take on a machine.

The seconds are for comparing plans and for deciding about threads. Two recipes, two formulas:

    packed:    call + packing + microkernel + moving the output
    streamed:  call + max(loops over register tiles, moving each tensor once)

**Packed.** The microkernel runs at the machine's peak for tiles that are whole and sums that are
long: a tile at an edge takes as long as a whole one, and every tile costs some cycles besides its
sum. Each operand is read once, at the rate of the level where it lies, and its panels are written.

**Streamed.** Cycles are counted: the loads of each register tile, by how the lanes lie in every
operand, and what a tile costs besides. The clock follows from the peak in f4.

**Memory.** A statement's tensors lie in the cache that holds all of them: an intermediate was just
written, and calls are repeated. Which is read and written at the rates of that level; threads
share what all cores have together.

What it knows of layouts are the axes as a statement lists them: tensors count as C-ordered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from math import ceil
from typing import TYPE_CHECKING

from .choose.in_place import NARROW, THIN
from .choose.packed import lanes_along_m, register_tile, tile_for
from .choose.symmetric import is_better_below, tiles_above, tiles_below
from .machine import Levels, Machine
from .overlap import copied_often, read_in_place
from .program import Access, Program, Statement, elements, volume
from .records import dataclass
from .schedule import MASKED, vector_lanes
from .symmetry import gram_swap

if TYPE_CHECKING:
    from .formula import Apply, Value

__all__ = ["Cost", "program_cost", "rate", "statement_cost", "worthwhile_threads"]

TILE_STEPS = 4
"""Of a sum that a tile of the microkernel could have added in the time that it takes besides."""

CHAINS = 8
"""Vectors of a tile of the microkernel that multiply-adds keep busy: fewer wait for each other."""

TILE_CYCLES = 12
"""Besides its loads and operations, for a register tile of the streamed recipe."""

TOTAL_CYCLES = 12
"""To sum the lanes of a register."""

GATHER_CYCLES = 1.0
"""To load an element where neighbours in a register are none in memory."""

SECOND_CYCLES = 2.0
"""To load a vector of every second element, for a sum along them."""

SHORT_CYCLES = 6.0
"""For a register tile's step where the lanes do not fill a vector, which takes masks."""

WALK_CYCLES = 20.0
"""For every walk along a summed index of windows, whose end is under masks: rows of an image are no
run in memory."""

PACKED_GATHER_CYCLES = 6.0
"""The same where the operand is packed: it is large, and each element is on a line of its own."""

WINDOW_CYCLES = 1.5
"""To copy an element of a window into a panel, where windows cannot be held in frames."""

_MANY = 256
"""Tiles across an output up to which those above its diagonal are counted one column by one."""

_MOST = 10**300  # what a float can hold; the unfactored form of a network has more products


@dataclass(frozen=True, slots=True)
class Cost:
    """Work and its predicted time.

    Attributes:
        flops: operations on elements; a multiply-add is two.
        bytes: read and written, each tensor of a statement once.
        seconds: on one core, unless said otherwise.
        least: seconds that the machine needs at least, at its peak and at the bandwidth of the
            level where the tensors lie: the roofline.

    >>> Cost(10, 8, 2e-6, 1e-6) + Cost(2, 4, 1e-6)
    Cost(flops=12, bytes=12, seconds=3e-06, least=1e-06)
    """

    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0
    least: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
            self.least + other.least,
        )


def program_cost(program: Program, element: str, machine: Machine) -> Cost:
    """The cost of all statements, one after the other."""
    sizes = program.sizes
    costs = (statement_cost(step, sizes, element, machine) for step in program.statements)
    return sum(costs, Cost())


def statement_cost(
    statement: Statement,
    extents: Mapping[str, int],
    element: str,
    machine: Machine,
    threads: int = 1,
    pieces: float | None = None,
) -> Cost:
    """The cost of a statement whose tensors have one element type, such as ``f4`` or ``c16``.

    Args:
        statement: what is computed.
        extents: of its indices.
        element: the type of all elements.
        machine: what the cost is for.
        threads: how many work on it.
        pieces: cycles that a packed step takes besides, for the order in which its tensors' axes
            lie (:mod:`.runs`); by default they are estimated from the last axes alone.

    >>> from .machine import TARGETS
    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("ij,jk->ik"), [(1000, 1000)] * 2))
    >>> matmul, machine = program.statements[0], Machine(TARGETS["x86-64-v3"])
    >>> cost = statement_cost(matmul, program.sizes, "f4", machine)
    >>> cost.flops, cost.bytes, f"{cost.seconds:.4f}"
    (2000000000, 12000000, '0.0220')
    """
    key = _key(statement, extents)
    if key is None:
        return _cost(statement, extents, element, machine, threads, pieces)
    known = _KNOWN.get((key, element, machine, threads, pieces))
    if known is None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        known = _cost(statement, extents, element, machine, threads, pieces)
        _KNOWN[key, element, machine, threads, pieces] = known
    return known


_KNOWN: dict[object, Cost] = {}
"""Costs that were asked for: networks have many steps that differ in names alone."""

_MOST_KNOWN = 1 << 14


def _key(statement: Statement, extents: Mapping[str, int]) -> object:
    """What a cost depends on, but for names; None where that is not so simple."""
    if statement.epilogue is not None:
        return None
    numbers = {index: n for n, index in enumerate(statement.indices)}
    tensors: dict[str, int] = {}
    layouts = []
    for access in (statement.target, *statement.factors):
        if len(access.names) != len(access.subscripts) or not all(
            axis.is_index for axis in access.subscripts
        ):
            return None
        tensor = tensors.setdefault(access.tensor, len(tensors))
        layouts.append((tensor, tuple([numbers[name] for name in access.names])))
    return tuple(layouts), tuple([extents[index] for index in numbers])


def _cost(
    statement: Statement,
    extents: Mapping[str, int],
    element: str,
    machine: Machine,
    threads: int,
    pieces: float | None,
) -> Cost:
    """The cost of a statement; see `statement_cost`."""
    form = _form(statement, extents)
    flops = form.volume * (len(statement.factors) - 1 + bool(form.reduced))
    flops += form.outputs * _operations(form.value)
    size = int(element[1:])
    accesses = dict.fromkeys(statement.accesses)
    read = [min(elements(access, extents) * size, _MOST) for access in accesses]
    written = min(elements(statement.target, extents) * size, _MOST)
    total = sum(read) + written
    speeds = machine.speeds
    reading = sum(read) / rate(speeds.read, speeds.read_all, total, machine, threads)
    writing = written / rate(speeds.write, speeds.write_all, total, machine, threads)

    least = max(min(flops, _MOST) / (speeds.flops.of(element) * threads), reading + writing)
    groups = _groups(form, element)
    if groups is not None and _is_packed(groups, element, machine):
        busy = _packed(groups, element, machine, _is_mirrored(statement, groups, form, element))
        if statement.epilogue is not None:
            busy += _long_panels(groups, element, machine)
        if statement.epilogue is not None or element not in MASKED:
            windows = (f for f in form.factors if f is not groups.in_place)
            busy += copied_often(windows, extents) * WINDOW_CYCLES * _cycle(machine)
        if pieces is None:
            ways = zip(form.factors, read, strict=False)
            copied = ((f, n) for f, n in ways if f is not groups.in_place)
            gathered = sum(n for f, n in copied if _is_gathered(f, form))
            pieces = gathered // size * PACKED_GATHER_CYCLES
        busy += pieces * _cycle(machine)
        panels = sum(read) / rate(speeds.write, speeds.write_all, total // 2, machine, threads)
        seconds = busy / threads + reading + panels + writing
    else:
        busy = _streamed(form, element, machine)
        seconds = max(busy / threads, reading + writing)
    seconds += _finishing(form, element, machine) / threads
    seconds += speeds.call + speeds.wake * (threads - 1) / threads
    return Cost(flops, total, seconds, least)


def worthwhile_threads(seconds: float, machine: Machine, most: int) -> int:
    """How many threads work of so many seconds on one core should have.

    Each should have work for as long as it takes to wake it.

    >>> from .machine import TARGETS
    >>> machine = Machine(TARGETS["x86-64-v3"])
    >>> [worthwhile_threads(seconds, machine, most=8) for seconds in (1e-6, 1e-4, 1e-2)]
    [1, 2, 8]
    """
    return max(1, min(most, int(min(seconds / machine.speeds.wake, most))))


# --- recipes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Form:
    """What of a statement is asked for again and again.

    ``factors`` are the distinct ones: the square of an array reads it once. ``names`` are theirs,
    ``last`` the names of their last axes, ``second`` those along which every second element of
    these is read, and ``windows`` all that share an axis with others. ``kept`` are the indices of
    the sums that an epilogue is applied to, ``over`` those of them that are summed after it.
    """

    extents: Mapping[str, int]
    kept: tuple[str, ...]
    reduced: tuple[str, ...]
    factors: tuple[Access, ...]
    names: tuple[tuple[str, ...], ...]
    last: tuple[tuple[str, ...], ...]
    second: tuple[tuple[str, ...], ...]
    windows: frozenset[str]
    target_last: tuple[str, ...]
    volume: int
    outputs: int
    count: int  # of factors, equal ones too
    value: Value | None
    over: tuple[str, ...]


def _form(statement: Statement, extents: Mapping[str, int]) -> _Form:
    factors = tuple(dict.fromkeys(statement.factors))
    kept, indices = statement.kept, statement.indices
    epilogue = statement.epilogue
    if epilogue is not None:
        kept += epilogue.over
    return _Form(
        extents=extents,
        kept=kept,
        reduced=tuple(index for index in indices if index not in kept),
        factors=factors,
        names=tuple(factor.names for factor in factors),
        last=tuple(_last(factor) for factor in factors),
        second=tuple(_last(factor, 2) for factor in factors),
        windows=frozenset(
            name
            for factor in factors
            for axis in factor.subscripts
            if len(axis.names) > 1
            for name in axis.names
        ),
        target_last=_last(statement.target) if epilogue is None or not epilogue.over else (),
        volume=volume(indices, extents),
        outputs=volume(kept, extents),
        count=len(statement.factors),
        value=epilogue.value if epilogue is not None else None,
        over=epilogue.over if epilogue is not None else (),
    )


def _last(access: Access, step: int = 1) -> tuple[str, ...]:
    """The indices along which the elements are neighbours, or so many apart."""
    if not access.subscripts:
        return ()
    return tuple(name for name, factor in access.subscripts[-1].terms if abs(factor) == step)


@dataclass(frozen=True, slots=True)
class _Groups:
    """The products of the extents of a contraction's groups; n has the lanes.

    Of a factor that is read ``in_place`` no panels are made; it has the rows, and few lanes are
    enough.
    """

    b: int
    m: int
    n: int
    k: int
    in_place: Access | None


def _groups(form: _Form, element: str) -> _Groups | None:
    """The groups of a contraction of two factors; None for any other statement."""
    if form.count != 2:
        return None
    left, right = form.names[0], form.names[-1]
    if any(name in left and name not in right for name in form.target_last):
        left, right = right, left
    in_place = None
    if element == _accumulator(element):
        sides = (form.kept, form.reduced, form.over)
        in_place = read_in_place(form.factors, *sides, form.extents)
    if in_place is not None:
        left, right = form.names[0], form.names[-1]  # it has the rows
        if in_place is form.factors[1]:
            left, right = right, left
    volumes = {"b": 1, "m": 1, "n": 1}
    for name in form.kept:
        group = "b" if (name in left) == (name in right) else "m" if name in left else "n"
        volumes[group] *= form.extents[name]
    k = volume(form.reduced, form.extents)
    if in_place is None and lanes_along_m(volumes["m"], volumes["n"], k):
        volumes["m"], volumes["n"] = volumes["n"], volumes["m"]
    return _Groups(**volumes, k=k, in_place=in_place)


def _is_packed(groups: _Groups, element: str, machine: Machine) -> bool:
    """Whether the packed recipe takes a contraction; see :mod:`.choose.packed`."""
    m, n, k = groups.m, groups.n, groups.k
    long = min(m, k) >= 4 and n >= (NARROW if groups.in_place is not None else THIN + 1)
    return long and m * n * k >= machine.worth_packing


def _is_mirrored(statement: Statement, groups: _Groups, form: _Form, element: str) -> bool:
    """Whether only half of the tiles are computed: see :mod:`.passes.mirror`."""
    swap = gram_swap(statement)
    if swap is None or element[0] == "c" or volume(swap, form.extents) != groups.m:
        return False
    alike = all(form.extents[one] == form.extents[other] for one, other in swap.items())
    return alike and (statement.epilogue is None or statement.epilogue.symmetric)


def _packed(groups: _Groups, element: str, machine: Machine, mirrored: bool = False) -> float:
    """Seconds of the microkernel's tiles on one core."""
    accumulator = _accumulator(element)
    read = groups.in_place is not None
    rows, width = tile_for(groups.n, accumulator, machine, in_place=read)
    across = ceil(groups.n / width)
    tiles = groups.b * ceil(groups.m / rows) * across
    if mirrored:
        half = tiles_above(groups.m, rows, width) if across <= _MANY else tiles // groups.b // 2
        if is_better_below(groups.m, rows, width):
            half = tiles_below(groups.m, rows, width)
        tiles = groups.b * half
    depth = max(8, machine.l1_bytes // 2 // (width * int(accumulator[1:])))
    steps = groups.k + TILE_STEPS * ceil(groups.k / depth)
    area = rows * width
    if element[0] == "f":
        area = max(area, CHAINS * vector_lanes(accumulator, machine.target.vector_bytes))
    return 2 * min(tiles * area * steps, _MOST) / machine.speeds.flops.of(element)


def _long_panels(groups: _Groups, element: str, machine: Machine) -> float:
    """Seconds that tiles wait for panels that hold a whole sum, where these leave the second cache.

    What an epilogue is applied to is summed in one block, however long it is.
    """
    accumulator = _accumulator(element)
    rows, vectors = register_tile(accumulator, machine.target.registers)
    width = vectors * vector_lanes(accumulator, machine.target.vector_bytes)
    panel = groups.k * (rows + width) * int(element[1:])
    if panel <= machine.l2_bytes // 2:
        return 0.0
    tiles = groups.b * ceil(groups.m / rows) * ceil(groups.n / width)
    return min(tiles * panel, _MOST) / machine.speeds.read.l3


def _is_gathered(factor: Access, form: _Form) -> bool:
    """Whether panels of a factor are copied element by element.

    They are copied as vectors along its neighbours where these are neighbours in the panel's order
    too: the innermost of its kept indices, or of the summed ones.
    """
    steps = dict.fromkeys(form.reduced, 0)
    for each in form.factors:
        step = 1
        for axis in reversed(each.subscripts):
            for name in axis.names:
                if name in steps:
                    steps[name] = max(steps[name], step)
                step *= form.extents[name]
    kept = [
        name
        for name in form.kept
        if name in factor.names and not all(name in names for names in form.names)
    ]
    innermost = {*kept[-1:], *([min(steps, key=steps.__getitem__)] if steps else [])}
    return innermost.isdisjoint(_last(factor))


def _streamed(form: _Form, element: str, machine: Machine) -> float:
    """Seconds of the streamed recipe's register tiles on one core, for the best lanes."""
    lanes = vector_lanes(_accumulator(element), machine.target.vector_bytes)
    volume, outputs = float(min(form.volume, _MOST)), float(min(form.outputs, _MOST))
    operations = (form.count - 1 + bool(form.reduced)) / 2
    operations *= 4 if element[0] == "c" else 1  # a product of complex numbers is four
    best = math.inf
    for v in (*form.kept, *form.reduced):
        extent = max(form.extents[v], 1)
        vectors = ceil(extent / lanes) / extent
        loads = 0.0
        for names, last, second in zip(form.names, form.last, form.second, strict=True):
            if v not in names or v in last:
                loads += 0.5
            elif v in second and v in form.reduced:
                loads += SECOND_CYCLES
            else:
                loads += GATHER_CYCLES * lanes
        if form.reduced and v in form.kept and extent < lanes:
            loads = max(loads, SHORT_CYCLES)
        cycles = volume * vectors * max(loads, operations)
        if v in form.kept:
            stores = 0 if form.over else 1 if form.target_last == (v,) else lanes
            tiles = outputs / extent * ceil(extent / (4 * lanes))
            cycles += outputs * vectors * stores + tiles * TILE_CYCLES
        else:
            cycles += outputs * (TOTAL_CYCLES + TILE_CYCLES)
            if v in form.windows:
                twice = any(v in names for names in form.second)  # two loads for each vector
                cycles += _walks(form, v) * WALK_CYCLES * (1 + twice)
        best = min(best, cycles)
    return _cycle(machine) * (best if best < math.inf else TILE_CYCLES)


def _walks(form: _Form, v: str) -> float:
    """How often register tiles walk along a summed index, with a few rows of them side by side."""
    rows = (form.extents[i] for i in form.kept if not all(i in names for names in form.names))
    most = max(rows, default=1)
    return min(form.volume, _MOST) / max(form.extents[v], 1) * ceil(most / 4) / most


def _cycle(machine: Machine) -> float:
    """Seconds of a cycle: two vector multiply-adds of f4, as the peak says."""
    a_cycle = (4 if machine.target.fma else 2) * machine.target.vector_bytes // 4
    return a_cycle / machine.speeds.flops.f4


_CYCLES = {"divide": 4, "sqrt": 5, "power": 40, "exp": 14, "log": 20, "tanh": 22}
"""For a function of a register; half a cycle for others."""


def _operations(value: Value | None) -> int:
    """How many functions a formula applies, equal ones once."""
    return len({*_functions(value)}) if value is not None else 0


def _functions(value: Value) -> Iterable[Apply]:
    from .formula import Apply

    if isinstance(value, Apply):
        yield value
        for argument in value.arguments:
            yield from _functions(argument)


def _finishing(form: _Form, element: str, machine: Machine) -> float:
    """Seconds that an epilogue's formula takes on one core."""
    if form.value is None:
        return 0.0
    lanes = vector_lanes(_accumulator(element), machine.target.vector_bytes)
    cycles = sum(_CYCLES.get(part.function, 0.5) for part in {*_functions(form.value)})
    cycles += 0.5 * bool(form.over)
    return min(form.outputs, _MOST) / lanes * cycles * _cycle(machine)


def _accumulator(element: str) -> str:
    return "f4" if element == "f2" else element


# --- memory ---------------------------------------------------------------------------------------


def rate(one: Levels, every: Levels, size: int, machine: Machine, threads: int) -> float:
    """Bytes a second at the level that holds so many bytes, for so many threads."""
    if size <= machine.l1_bytes * threads:
        level = "l1"
    elif size <= machine.l2_bytes * threads:
        level = "l2"
    else:
        level = "l3" if size <= machine.l3_bytes // 2 else "memory"  # others have a share of it
    single, together = (float(getattr(levels, level)) for levels in (one, every))
    return min(single * threads, max(together, single))
