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
from .tiles import I32, I64, Pointer, scalar_type


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


_Plane = Callable[[Sequence[Any]], tuple[Any, Any]]
"""Whether the rows with these first digits are of interest, and what they begin at."""


@contextmanager
def _rows(
    e: Emitter, d: _Description, start: Any, end: Any, plane: _Plane
) -> Iterator[tuple[Any, ...]]:
    """The rows of flat positions ``start .. end``, those with the same first digits together.

    Yields what ``plane`` says of the first digits, the last digit but one, the flat position where
    the row begins, and from where to where the last digit runs.
    """
    b = e.builder
    middle, length = d.counts[-2:]
    number = b.udiv(start, length)
    rest = b.udiv(number, middle)
    firsts = [b.udiv(rest, d.counts[0]), b.urem(rest, d.counts[0])]
    values = [start, b.urem(number, middle), b.sub(start, b.mul(number, length)), *firsts]
    here_, y_, x_, *firsts_ = (_variable(e, value) for value in values)
    with _while(e, lambda: b.icmp_signed("<", b.load(here_), end)):
        digits = [b.load(place) for place in firsts_]
        told = plane(digits)

        def is_next() -> Any:
            inside = b.icmp_signed("<", b.load(y_), middle)
            return b.and_(inside, b.icmp_signed("<", b.load(here_), end))

        with _while(e, is_next):
            here, y, x = b.load(here_), b.load(y_), b.load(x_)
            stop = _least(b, length, b.add(x, b.sub(end, here)))
            yield *told, y, b.sub(here, x), x, stop
            b.store(b.add(here, b.sub(stop, x)), here_)
            b.store(b.add(y, e.integer(1)), y_)
            b.store(e.integer(0), x_)
        b.store(e.integer(0), y_)
        following = b.add(digits[1], e.integer(1))
        full = b.icmp_signed("==", following, d.counts[0])
        b.store(b.select(full, e.integer(0), following), firsts_[1])
        b.store(b.add(digits[0], b.zext(full, I64)), firsts_[0])


def _fill(e: Emitter, image: Pointer, width: int, values: Sequence[Any]) -> None:
    args_, frame_, image_, buffer_, start_, stop_, first_, last_ = values
    b, d = e.builder, _Description(e, args_, frame_)
    begin = b.udiv(first_, d.taps)
    channels = b.sub(b.udiv(last_, d.taps), begin)
    size = b.mul(d.phases, d.plane)
    end = b.add(stop_, d.halo)
    with for_range(b, d.phases, intp=I64) as number:
        base, *bounds = d.phase(number.index)
        limits = list(zip(bounds[::2], bounds[1::2], strict=True))
        source = b.add(base, b.mul(begin, d.channel))
        target = b.sub(b.mul(number.index, d.plane), start_)

        def plane(
            digits: Sequence[Any], limits: Sequence[Any] = limits, source: Any = source
        ) -> tuple[Any, Any]:
            inside = ir.Constant(ir.IntType(1), 1)
            for digit, limit, step in zip(digits, limits, d.steps, strict=False):
                inside = b.and_(inside, _is_within(b, digit, *limit))
                source = b.add(source, b.mul(digit, step))
            return inside, source

        last = _Ends(e, *limits[-1], width)
        with _rows(e, d, start_, end, plane) as (inside, row, y, origin, x, stop):
            inside = b.and_(inside, _is_within(b, y, *limits[-2]))
            at = b.gep(image_, [b.add(row, b.mul(y, d.steps[-2]))])
            to = b.gep(buffer_, [b.add(target, origin)])
            with for_range(b, channels, intp=I64) as channel:
                from_ = b.gep(at, [b.mul(channel.index, d.channel)])
                into = b.gep(to, [b.mul(channel.index, size)])
                with b.if_else(inside) as (within, outside):
                    with within:
                        _gather(e, image.element, from_, d, into, last, (x, stop), width)
                    with outside:
                        _clear(e, image.element, into, x, stop, width)


def _write(e: Emitter, out: Pointer, width: int, values: Sequence[Any]) -> None:
    args_, frame_, stage_, pitch_, out_, step_, rows_, start_, stop_ = values
    b, d = e.builder, _Description(e, args_, frame_)

    def plane(digits: Sequence[Any]) -> tuple[Any, Any]:
        inside, begin = ir.Constant(ir.IntType(1), 1), e.integer(0)
        for digit, extent, step in zip(digits, d.extents, d.outs, strict=False):
            inside = b.and_(inside, b.icmp_signed("<", digit, extent))
            begin = b.add(begin, b.mul(digit, step))
        return inside, begin

    @contextmanager
    def pieces() -> Iterator[tuple[Any, ...]]:
        """Where each row begins in scratch and in the output, and its first and last digits."""
        with _rows(e, d, start_, stop_, plane) as (inside, row, y, origin, x, stop):
            end = _most(b, _least(b, d.extents[-1], stop), x)
            inside = b.and_(inside, b.icmp_signed("<", y, d.extents[-2]))
            into = b.add(row, b.mul(y, d.outs[-2]))
            yield b.sub(origin, start_), into, x, b.select(inside, end, x)

    apart = b.icmp_signed("!=", d.outs[-1], e.integer(1))
    beside = b.and_(apart, b.icmp_signed("==", step_, e.integer(1)))
    with b.if_else(beside) as (turned, straight):
        with turned, pieces() as (origin, into, x, end), _steps(e, x, end, 1) as at:
            # The output has its neighbours along what are rows in scratch.
            from_ = b.gep(stage_, [b.add(origin, at)])
            to = b.gep(out_, [b.add(into, b.mul(at, d.outs[-1]))])
            with _steps(e, e.integer(0), rows_, 1) as number:
                found = e.load(out.element, b.gep(from_, [b.mul(number, pitch_)]), 1, None)
                e.store(out.element, b.gep(to, [number]), found, 1, None)
        with straight, for_range(b, rows_, intp=I64) as number:
            held = b.gep(stage_, [b.mul(number.index, pitch_)])
            rows = b.gep(out_, [b.mul(number.index, step_)])
            with pieces() as (origin, into, x, end):
                from_, to = b.gep(held, [origin]), b.gep(rows, [into])
                _scatter(e, out.element, from_, to, d.outs[-1], x, end, width)


# --- pieces of rows -------------------------------------------------------------------------------


class _Ends:
    """Where the last digit lies in the image, and vectors of it that tell which lanes do."""

    def __init__(self, e: Emitter, low: Any, high: Any, width: int) -> None:
        b, self.e, self.width = e.builder, e, width
        self.low, self.high = low, high
        self.lanes = ir.Constant(ir.VectorType(I32, width), list(range(width)))
        self.lows, self.highs = (e.splat(b.trunc(each, I32), width) for each in (low, high))

    def whole(self, x: Any) -> Any:
        """Whether all lanes from ``x`` on do."""
        b = self.e.builder
        after = b.icmp_signed("<=", b.add(x, self.e.integer(self.width)), self.high)
        return b.and_(b.icmp_signed(">=", x, self.low), after)

    def mask(self, x: Any) -> Any:
        """Which of them do."""
        b = self.e.builder
        digits = b.add(self.e.splat(b.trunc(x, I32), self.width), self.lanes)
        above = b.icmp_signed(">=", digits, self.lows)
        return b.and_(above, b.icmp_signed("<", digits, self.highs))


def _clear(e: Emitter, element: str, into: Any, start: Any, stop: Any, width: int) -> None:
    """Zeros, up to a vector more than asked for."""
    zero = e.zero(ir.VectorType(scalar_type(element), width))
    with _steps(e, start, stop, width) as x:
        e.store(element, e.builder.gep(into, [x]), [zero], width, None)


def _gather(
    e: Emitter,
    element: str,
    from_: Any,
    d: _Description,
    into: Any,
    ends: _Ends,
    row: tuple[Any, Any],
    width: int,
) -> None:
    """A row of a frame: zeros, elements that are as far apart as the last axis says, and zeros.

    Up to a vector more than asked for is written.
    """
    b = e.builder
    start, stop = row
    step = d.steps[-1]

    def loaded(at: Any, apart: int, mask: Any) -> list[Any]:
        """A vector of elements that are neighbours, or have one between them."""
        if apart == 1:
            return e.load(element, at, width, mask)
        # No element is read behind the last one of those that are asked for.
        parts = []
        for first in (0, width // 2):
            half = None
            if mask is not None:
                twice = [first + n // 2 for n in range(width)]
                half = b.shuffle_vector(mask, ir.Constant(mask.type, ir.Undefined), picks(twice))
                even = ir.Constant(mask.type, [n % 2 == 0 for n in range(width)])
                half = b.and_(half, even)
            place = b.gep(at, [e.integer(2 * first)])
            parts += e.load(element, place, width, half)
        return [b.shuffle_vector(*parts, picks(range(0, 2 * width, 2)))]

    def beside(apart: int) -> None:
        with _steps(e, start, stop, width) as x:
            at = b.gep(from_, [b.mul(x, e.integer(apart))])
            e.prefetch(b.gep(at, [d.ahead]))
            # The second of the last two vectors would reach one element too far.
            whole = ends.whole(b.add(x, e.integer(apart - 1)) if apart > 1 else x)
            if apart > 1:
                whole = b.and_(whole, b.icmp_signed(">=", x, ends.low))
            with b.if_else(whole) as (all_, some):
                with all_:
                    e.store(element, b.gep(into, [x]), loaded(at, apart, None), width, None)
                with some:
                    found = loaded(at, apart, ends.mask(x))
                    e.store(element, b.gep(into, [x]), found, width, None)

    with b.if_else(b.icmp_signed("==", step, e.integer(1))) as (neighbours, others):
        with neighbours:
            beside(1)
        with others, b.if_else(b.icmp_signed("==", step, e.integer(2))) as (every_other, apart):
            with every_other:
                beside(2)
            with apart:
                low = _least(b, _most(b, ends.low, start), stop)
                high = _most(b, _least(b, ends.high, stop), low)
                _clear(e, element, into, start, low, width)
                with _steps(e, low, high, 1) as x:
                    found = e.load(element, b.gep(from_, [b.mul(x, step)]), 1, None)
                    e.store(element, b.gep(into, [x]), found, 1, None)
                _clear(e, element, into, high, stop, width)


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


@contextmanager
def _while(e: Emitter, test: Callable[[], Any]) -> Iterator[None]:
    """A loop that goes on as long as ``test`` says so."""
    b = e.builder
    head, body, done = (b.append_basic_block(f"while.{n}") for n in ("head", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch(test(), body, done)
    b.position_at_end(body)
    yield
    b.branch(head)
    b.position_at_end(done)


def _is_within(b: ir.IRBuilder, digit: Any, low: Any, high: Any) -> Any:
    """Whether a digit lies in the image; none is negative."""
    return b.and_(b.icmp_signed(">=", digit, low), b.icmp_signed("<", digit, high))


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
