"""Frames: an image with zeros around it, and rows of sums back to where an output has them.

What a flat position is, and how a description begins, is told in :mod:`..frames`. Both operations
are functions of their own, one a kernel, since nothing in them depends on a tile's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import for_range

from ..frames import AXES, HEAD, PHASE
from .emitter import Emitter, picks
from .registry import literals, operation
from .tiles import I64, Pointer, scalar_type


@operation
def table(args: Any, place: Any) -> Any:
    """A table of offsets that lies among the arguments."""
    return Pointer("i8"), lambda e, v: e.builder.gep(v[0], [v[1]])


@operation
def fill_frame(
    args: Any,
    frame: Any,
    image: Any,
    offset: Any,
    buffer: Any,
    start: Any,
    stop: Any,
    first: Any,
    last: Any,
    lanes: Any,
) -> Any:
    """Copy flat positions ``start .. stop``, and what their windows reach, for a block of a sum.

    ``offset`` is where the image begins, ``first .. last`` are positions of the sum.
    """
    sizes = literals(lanes)
    if sizes is None or not (isinstance(image, Pointer) and isinstance(buffer, Pointer)):
        return None
    (width,) = sizes

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        places = [e.address(image.element, *values[2:4]), values[4]]
        arguments = [*values[:2], *places, *values[5:9]]
        _call(e, f"einsumc_fill_{image.element}", arguments, lambda x, v: _fill(x, image, width, v))

    return types.void, lowering


@operation
def write_frame(
    args: Any,
    frame: Any,
    stage: Any,
    pitch: Any,
    out: Any,
    offset: Any,
    step: Any,
    rows: Any,
    start: Any,
    stop: Any,
    lanes: Any,
) -> Any:
    """Write ``rows`` sums of flat positions ``start .. stop`` to the output, ``step`` apart there.

    In scratch they are ``pitch`` apart. Positions that belong to no element are left out.
    """
    sizes = literals(lanes)
    if sizes is None or not (isinstance(stage, Pointer) and isinstance(out, Pointer)):
        return None
    (width,) = sizes

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        place = e.address(out.element, *values[4:6])
        arguments = [*values[:4], place, *values[6:10]]
        _call(e, f"einsumc_write_{out.element}", arguments, lambda x, v: _write(x, out, width, v))

    return types.void, lowering


def _call(
    e: Emitter, name: str, arguments: Sequence[Any], body: Callable[[Emitter, Any], None]
) -> None:
    """Call a function of the module, which is written the first time."""
    module = e.builder.module
    function = module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in arguments])
        function = ir.Function(module, kind, name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        body(Emitter(builder, fused=e.fused), function.args)
        builder.ret_void()
    e.builder.call(function, arguments)


class _Description:
    """The numbers that describe frames."""

    def __init__(self, e: Emitter, args: Any, place: Any) -> None:
        self.e, self.base = e, e.builder.gep(args, [place])
        self.taps, self.phases, self.plane, self.halo, self.channel = map(self.number, range(5))
        self.counts = [self.number(5 + n) for n in range(AXES - 1)]
        self.steps = [self.number(4 + AXES + n) for n in range(AXES)]
        self.outs = [self.number(4 + 2 * AXES + n) for n in range(AXES)]
        self.extents = [self.number(4 + 3 * AXES + n) for n in range(AXES)]
        self.ahead = self.number(HEAD - 1)

    def number(self, place: int) -> Any:
        return self.e.builder.load(self.e.builder.gep(self.base, [self.e.integer(place)]))

    def phase(self, number: Any) -> list[Any]:
        """What describes one of the phases."""
        b = self.e.builder
        begin = b.add(self.e.integer(HEAD), b.mul(number, self.e.integer(PHASE)))
        place = b.gep(self.base, [begin])
        return [b.load(b.gep(place, [self.e.integer(n)])) for n in range(PHASE)]


@contextmanager
def _rows(e: Emitter, d: _Description, start: Any, end: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of flat positions ``start .. end``: digits but the last, position, last digits.

    Yields the digits, the flat position at which the row begins, and from where to where the last
    digit runs.
    """
    b = e.builder
    row = d.counts[-1]
    number = b.udiv(start, row)
    digits: list[Any] = []
    rest = number
    for count in (d.counts[1], d.counts[0]):
        digits.insert(0, b.urem(rest, count))
        rest = b.udiv(rest, count)
    values = [start, rest, *digits, b.sub(start, b.mul(number, row))]
    places = [_variable(e, value) for value in values]
    head, body, done = (b.append_basic_block(f"rows.{n}") for n in ("head", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch(b.icmp_signed("<", b.load(places[0]), end), body, done)
    b.position_at_end(body)
    here, *now, x = (b.load(place) for place in places)
    stop = _least(b, row, b.add(x, b.sub(end, here)))
    yield now, b.sub(here, x), x, stop
    b.store(b.add(here, b.sub(stop, x)), places[0])
    b.store(e.integer(0), places[-1])
    carry: Any = e.integer(1)
    for n in (2, 1, 0):
        moved = b.add(now[n], carry)
        if n:
            full = b.icmp_signed("==", moved, d.counts[n - 1])
            moved, carry = b.select(full, e.integer(0), moved), b.zext(full, I64)
        b.store(moved, places[1 + n])
    b.branch(head)
    b.position_at_end(done)


def _fill(e: Emitter, image: Pointer, width: int, values: Sequence[Any]) -> None:
    args_, frame_, image_, buffer_, start_, stop_, first_, last_ = values
    b, d = e.builder, _Description(e, args_, frame_)
    begin = b.udiv(first_, d.taps)
    channels = b.sub(b.udiv(last_, d.taps), begin)
    size = b.mul(d.phases, d.plane)
    end = b.add(stop_, d.halo)
    with for_range(b, d.phases, intp=I64) as number:
        base, *bounds = d.phase(number.index)
        source = b.add(base, b.mul(begin, d.channel))
        target = b.sub(b.mul(number.index, d.plane), start_)
        with _rows(e, d, start_, end) as (digits, origin, x, stop):
            inside = ir.Constant(ir.IntType(1), 1)
            row = source
            for n, (digit, step) in enumerate(zip(digits, d.steps, strict=False)):
                inside = b.and_(inside, b.icmp_signed(">=", digit, bounds[2 * n]))
                inside = b.and_(inside, b.icmp_signed("<", digit, bounds[2 * n + 1]))
                row = b.add(row, b.mul(digit, step))
            low = _least(b, _most(b, bounds[-2], x), stop)
            high = _most(b, _least(b, bounds[-1], stop), low)
            high = b.select(inside, high, low)
            to = b.add(target, origin)
            with for_range(b, channels, intp=I64) as channel:
                from_ = b.gep(image_, [b.add(row, b.mul(channel.index, d.channel))])
                into = b.gep(buffer_, [b.add(to, b.mul(channel.index, size))])
                _gather(e, image.element, from_, d, into, (x, low, high, stop), width)


def _write(e: Emitter, out: Pointer, width: int, values: Sequence[Any]) -> None:
    args_, frame_, stage_, pitch_, out_, step_, rows_, start_, stop_ = values
    b, d = e.builder, _Description(e, args_, frame_)
    with for_range(b, rows_, intp=I64) as number:
        begin = b.mul(number.index, step_)
        held = b.gep(stage_, [b.mul(number.index, pitch_)])
        with _rows(e, d, start_, stop_) as (digits, origin, x, stop):
            inside = ir.Constant(ir.IntType(1), 1)
            to = begin
            for digit, step, extent in zip(digits, d.outs, d.extents, strict=False):
                inside = b.and_(inside, b.icmp_signed("<", digit, extent))
                to = b.add(to, b.mul(digit, step))
            end = _most(b, _least(b, d.extents[-1], stop), x)
            end = b.select(inside, end, x)
            from_ = b.gep(held, [b.sub(origin, start_)])
            _scatter(e, out.element, from_, b.gep(out_, [to]), d.outs[-1], x, end, width)


# --- pieces of rows -------------------------------------------------------------------------------


def _gather(
    e: Emitter,
    element: str,
    from_: Any,
    d: _Description,
    into: Any,
    row: tuple[Any, ...],
    width: int,
) -> None:
    """A row of a frame: zeros, elements that are as far apart as the image's last axis says, zeros.

    ``row`` is where these begin and end. Up to a vector more is written.
    """
    b = e.builder
    begin, low, high, stop = row
    step = d.steps[-1]
    zero = [e.zero(ir.VectorType(scalar_type(element), width))]
    with b.if_else(b.icmp_signed("==", step, e.integer(1))) as (neighbours, apart):
        with neighbours, _steps(e, begin, stop, width) as x:
            after = b.icmp_signed("<=", b.add(x, e.integer(width)), high)
            whole = b.and_(b.icmp_signed(">=", x, low), after)
            at = b.gep(from_, [x])
            e.prefetch(b.gep(at, [d.ahead]))
            with b.if_else(whole) as (all_, some):
                with all_:
                    found = e.load(element, at, width, None)
                    e.store(element, b.gep(into, [x]), found, width, None)
                with some:
                    above = b.not_(e.lanes_below(b.sub(low, x), 0, width))
                    mask = b.and_(above, e.lanes_below(b.sub(high, x), 0, width))
                    found = e.load(element, at, width, mask)
                    e.store(element, b.gep(into, [x]), found, width, None)
        with apart:
            with _steps(e, begin, low, width) as x:
                e.store(element, b.gep(into, [x]), zero, width, None)
            # The last element of a pair of vectors lies behind what is asked for.
            room = _most(b, b.sub(b.sub(high, low), e.integer(1)), e.integer(0))
            two = b.icmp_signed("==", step, e.integer(2))
            pairs = b.select(two, b.and_(room, e.integer(-width)), e.integer(0))
            middle = b.add(low, pairs)
            with _steps(e, low, middle, width) as x:
                at = b.gep(from_, [b.shl(x, e.integer(1))])
                e.prefetch(b.gep(at, [d.ahead]))
                first = e.load(element, at, width, None)
                second = e.load(element, b.gep(at, [e.integer(width)]), width, None)
                even = b.shuffle_vector(first[0], second[0], picks(range(0, 2 * width, 2)))
                e.store(element, b.gep(into, [x]), [even], width, None)
            with _steps(e, middle, high, 1) as x:
                found = e.load(element, b.gep(from_, [b.mul(x, step)]), 1, None)
                e.store(element, b.gep(into, [x]), found, 1, None)
            with _steps(e, high, stop, width) as x:
                e.store(element, b.gep(into, [x]), zero, width, None)


def _scatter(
    e: Emitter, element: str, from_: Any, into: Any, step: Any, start: Any, stop: Any, width: int
) -> None:
    """Copy elements to where they lie ``step`` apart.

    What is left behind whole vectors is copied with some of these again, in vectors of half the
    width where there is no whole one.
    """
    b = e.builder
    count = b.sub(stop, start)
    near = b.icmp_signed("==", step, e.integer(1))

    def move(x: Any, lanes: int) -> None:
        found = e.load(element, b.gep(from_, [x]), lanes, None)
        e.store(element, b.gep(into, [x]), found, lanes, None)

    half = max(width // 2, 1)
    wide = b.and_(near, b.icmp_signed(">=", count, e.integer(width)))
    with b.if_else(wide) as (vectors, others):
        with vectors:
            last = b.sub(stop, e.integer(width))
            with _steps(e, start, last, width) as x:
                move(x, width)
            move(last, width)
        with others:
            some = b.and_(near, b.icmp_signed(">=", count, e.integer(half)))
            with b.if_else(some) as (halves, apart):
                with halves:
                    move(start, half)
                    move(b.sub(stop, e.integer(half)), half)
                with apart, _steps(e, start, stop, 1) as x:
                    found = e.load(element, b.gep(from_, [x]), 1, None)
                    e.store(element, b.gep(into, [b.mul(x, step)]), found, 1, None)


@contextmanager
def _steps(e: Emitter, start: Any, stop: Any, step: int) -> Iterator[Any]:
    """``start, start + step, ...`` below ``stop``."""
    b = e.builder
    before = b.block
    head, body, done = (b.append_basic_block(f"steps.{n}") for n in ("head", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    x = b.phi(I64)
    x.add_incoming(start, before)
    b.cbranch(b.icmp_signed("<", x, stop), body, done)
    b.position_at_end(body)
    yield x
    x.add_incoming(b.add(x, e.integer(step)), b.block)
    b.branch(head)
    b.position_at_end(done)


def _least(b: ir.IRBuilder, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed("<", x, y), x, y)


def _most(b: ir.IRBuilder, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed(">", x, y), x, y)


def _variable(e: Emitter, value: Any) -> Any:
    """A variable on the stack with a first value."""
    with e.builder.goto_entry_block():
        place = e.builder.alloca(value.type)
    e.builder.store(value, place)
    return place
