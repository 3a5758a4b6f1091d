"""Tables of offsets: how composite groups of indices reach memory.

A table holds the offset of every position of a block. It is filled run by run: a *run* is what the
innermost index walks through, along which offsets differ by one stride.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import for_range

from .emitter import Emitter
from .registry import literals, operation
from .tiles import I64, Pointer


@operation
def peek(table: Any, position: Any) -> Any:
    """One entry of a table of offsets."""
    if not isinstance(table, Pointer) or table.element != "i8":
        return None
    return types.int64, lambda e, v: e.builder.load(e.builder.gep(v[0], [v[1]]))


@operation
def is_run(table: Any, count: Any) -> Any:
    """Whether ``count`` entries of a table are neighbours: each is one more than that before."""
    if not isinstance(table, Pointer) or table.element != "i8":
        return None
    sizes = literals(count)
    if sizes is not None:
        return types.boolean, lambda e, v: steps_by(e, v[0], sizes[0], 1)

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        b = e.builder
        first, wrong = b.load(values[0]), _variable(e, e.integer(0))
        with for_range(b, values[1], intp=I64) as loop:
            entry = b.load(b.gep(values[0], [loop.index]))
            b.store(b.or_(b.load(wrong), b.xor(entry, b.add(first, loop.index))), wrong)
        return b.icmp_signed("==", b.load(wrong), e.integer(0))

    return types.boolean, lowering


@operation
def is_brick(table: Any, width: Any, count: Any) -> Any:
    """Whether a table has ``width`` entries ``count`` times, each time one more than before.

    So what lies at one place of so many tiles is neighbours in memory.
    """
    sizes = literals(width, count)
    if sizes is None or not isinstance(table, Pointer) or table.element != "i8":
        return None
    size, times = sizes

    def lowering(e: Emitter, values: Sequence[Any]) -> Any:
        b = e.builder
        kind = ir.VectorType(I64, size)

        def entries(number: Any) -> Any:
            at = b.gep(values[0], [b.mul(number, e.integer(size))])
            found = b.load(b.bitcast(at, kind.as_pointer()))
            found.align = 8
            return found

        first = entries(e.integer(0))
        wrong = _variable(e, ir.Constant(kind, [0] * size))
        with for_range(b, e.integer(times), intp=I64) as loop:
            wanted = b.add(first, e.splat(loop.index, size))
            b.store(b.or_(b.load(wrong), b.xor(entries(loop.index), wanted)), wrong)
        mask = ir.IntType(size)
        same = b.icmp_signed("==", b.load(wrong), ir.Constant(kind, [0] * size))
        return b.icmp_unsigned("==", b.bitcast(same, mask), ir.Constant(mask, -1))

    return types.boolean, lowering


def steps_by(e: Emitter, table: Any, count: int, step: int) -> Any:
    """Whether ``count`` entries of a table are each ``step`` more than that before."""
    b = e.builder
    kind = ir.VectorType(I64, count)
    entries = b.load(b.bitcast(table, kind.as_pointer()))
    entries.align = 8
    first = e.splat(b.extract_element(entries, ir.Constant(ir.IntType(32), 0)), count)
    wanted = ir.Constant(kind, [step * n for n in range(count)])
    same = b.icmp_signed("==", b.sub(entries, first), wanted)
    mask = ir.IntType(count)
    return b.icmp_unsigned("==", b.bitcast(same, mask), ir.Constant(mask, -1))


@operation
def tabulate(args: Any, group: Any, slot: Any, start: Any, stop: Any, table: Any) -> Any:
    """Fill a table with the offsets of a composite group's positions ``start .. stop``.

    ``args[group]`` holds the place in ``args`` of the group's description: its rank, its extents,
    and for every tensor (``slot``) its strides. The last index runs fastest.
    """
    if not isinstance(table, Pointer):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        e.builder.call(_tabulation(e.builder.module), values)

    return types.void, lowering


def _tabulation(module: ir.Module) -> ir.Function:
    """The function behind :func:`tabulate`: one for all of a kernel's tables, never inlined."""
    name = "einsumc_tabulate"
    if name in module.globals:
        return module.globals[name]
    numbers, place = I64, I64.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [place, *[numbers] * 4, place])
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    _fill(Emitter(builder, fused=False), function.args)
    builder.ret_void()
    return function


def _fill(e: Emitter, values: Sequence[Any]) -> None:
    args_, group_, slot_, start_, stop_, table_ = values
    b = e.builder
    one = e.integer(1)
    rank = b.load(b.gep(args_, [group_]))
    extents = b.add(group_, one)
    strides = b.add(extents, b.mul(rank, b.add(slot_, one)))
    last = b.sub(rank, one)
    empty = b.icmp_signed("==", rank, e.integer(0))  # one position, at the tensor's beginning
    inner = b.select(empty, one, b.load(b.gep(args_, [b.add(extents, last)])))
    step = b.select(empty, e.integer(0), b.load(b.gep(args_, [b.add(strides, last)])))
    position = _variable(e, start_)
    rest, offset = _variable(e, one), _variable(e, one)
    with _while(b, lambda: b.icmp_signed("<", b.load(position), stop_)):
        here = b.load(position)
        digit = b.urem(here, inner)
        b.store(b.udiv(here, inner), rest)
        b.store(b.mul(digit, step), offset)
        others = b.select(empty, e.integer(0), last)
        with for_range(b, others, intp=I64) as digits:
            member = b.sub(b.sub(last, one), digits.index)
            extent = b.load(b.gep(args_, [b.add(extents, member)]))
            stride = b.load(b.gep(args_, [b.add(strides, member)]))
            value = b.load(rest)
            b.store(b.udiv(value, extent), rest)
            along = b.mul(b.urem(value, extent), stride)
            b.store(b.add(b.load(offset), along), offset)
        left, room = b.sub(stop_, here), b.sub(inner, digit)
        count = b.select(b.icmp_signed("<", left, room), left, room)
        begin = b.load(offset)
        place = b.gep(table_, [b.sub(here, start_)])
        with for_range(b, count, intp=I64) as run:
            b.store(b.add(begin, b.mul(run.index, step)), b.gep(place, [run.index]))
        b.store(b.add(here, count), position)


@contextmanager
def _while(builder: ir.IRBuilder, test: Callable[[], Any]) -> Iterator[None]:
    """A loop that goes on as long as ``test`` says so."""
    head, body, end = (builder.append_basic_block(f"while.{n}") for n in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    builder.cbranch(test(), body, end)
    builder.position_at_end(body)
    yield
    builder.branch(head)
    builder.position_at_end(end)


def _variable(e: Emitter, value: Any) -> Any:
    """A variable on the stack with a first value."""
    with e.builder.goto_entry_block():
        place = e.builder.alloca(value.type)
    e.builder.store(value, place)
    return place
