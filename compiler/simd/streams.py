"""Writing past the caches: whole cache lines that are not read from memory before.

An ordinary store to a line that is in no cache reads it first. A *non-temporal* one does not, as
long as all of the line is written soon after; so it is for lines that are complete, and that are
not wanted again before the caches have been filled with other things.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import for_range

from .emitter import Emitter
from .registry import literals, operation
from .runs import step_to
from .tiles import I32, I64, Pointer, planes, scalar_type

LINE = 64  # bytes
_PIECE = 32  # bytes that one store writes; LLVM makes two of it where vectors are shorter


@operation
def write_runs(
    p: Any,
    offset: Any,
    step: Any,
    source: Any,
    begin: Any,
    pitch: Any,
    rows: Any,
    columns: Any,
    before: Any,
    after: Any,
) -> Any:
    """Write ``rows`` runs of ``columns`` elements, ``step`` apart, from scratch.

    In scratch the rows are ``pitch`` apart. Where elements lie ``before`` a run in the output, the
    cache line that they share with it is written whole: scratch holds a line's worth of them in
    front of every row. Where elements lie ``after`` it, the line that it ends in is left to them.
    """
    if not (isinstance(p, Pointer) and isinstance(source, Pointer)):
        return None

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        b = e.builder
        out, offset_, step_, scratch, begin_, pitch_, rows_, columns_, before_, after_ = values
        if not isinstance(step, Pointer):
            # Rows that follow each other in the output as they do in scratch are one run.
            one = b.and_(b.icmp_signed("==", step_, columns_), b.icmp_signed("==", pitch_, step_))
            columns_ = b.select(one, b.mul(rows_, columns_), columns_)
            rows_ = b.select(one, e.integer(1), rows_)
        size = e.integer(int(p.element[1:]))
        with for_range(b, rows_, intp=I64) as row:
            to = b.add(offset_, step_to(e, (step, step_), row.index))
            place = b.add(begin_, b.mul(pitch_, row.index))
            addresses = [
                b.ptrtoint(e.address(kind.element, pointer, at), I64)
                for kind, pointer, at in ((p, out, to), (source, scratch, place))
            ]
            arguments = [*addresses, b.mul(columns_, size), before_, after_]
            b.call(_run_writer(b.module, p.element), arguments)

    return types.void, lowering


@operation
def prefetch(p: Any, offset: Any, step: Any, rows: Any) -> Any:
    """Ask for the cache lines of ``rows`` elements, ``step`` apart, that are wanted soon."""
    sizes = literals(rows)
    if sizes is None or not isinstance(p, Pointer):
        return None
    (count,) = sizes

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        b = e.builder
        flags = [ir.Constant(I32, flag) for flag in (0, 3, 1)]  # to read, to keep, data
        for row in range(count):
            at = e.address(
                p.element, values[0], b.add(values[1], step_to(e, (step, values[2]), row))
            )
            byte = b.bitcast(at, ir.IntType(8).as_pointer())
            e.intrinsic("llvm.prefetch.p0", ir.VoidType(), [byte, *flags])

    return types.void, lowering


@operation
def fence() -> Any:
    """Wait until what was written past the caches can be seen by everybody."""
    return types.void, lambda e, v: e.builder.fence("seq_cst")


def _run_writer(module: ir.Module, element: str) -> ir.Function:
    """The function that writes one run: one in a kernel, never inlined. It counts bytes."""
    name = "einsumc_write_run"
    if name in module.globals:
        return module.globals[name]
    kind = ir.FunctionType(ir.VoidType(), [I64] * 5)
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    _write_run(Emitter(builder, fused=False), element, function.args)
    builder.ret_void()
    return function


def _write_run(e: Emitter, element: str, values: Sequence[Any]) -> None:
    to, source, count, before, after = values
    b = e.builder
    zero = e.integer(0)
    end = b.add(to, count)
    shift = b.sub(source, to)  # from a place in the output to that in scratch
    down = e.integer(-LINE)
    shared = b.icmp_signed(">", before, zero)
    up = b.and_(b.add(to, e.integer(LINE - 1)), down)
    first = b.select(shared, b.and_(to, down), up)
    last = b.and_(end, down)
    first = b.select(b.icmp_unsigned("<", first, end), first, end)
    with b.if_then(b.not_(shared)):
        _copy_elements(e, element, to, first, shift)
    lines = b.ashr(b.sub(last, first), e.integer(6))
    with for_range(b, lines, intp=I64) as line:
        _copy_line(e, b.add(first, b.shl(line.index, e.integer(6))), shift)
    rest = b.select(b.icmp_unsigned("<", first, last), last, first)
    with b.if_then(b.icmp_signed("==", after, zero)):
        _copy_elements(e, element, rest, end, shift)


def _copy_line(e: Emitter, to: Any, shift: Any) -> None:
    """One cache line, past the caches."""
    b = e.builder
    vector = ir.VectorType(I64, _PIECE // 8).as_pointer()
    pieces = []
    for piece in range(LINE // _PIECE):
        at = b.add(b.add(to, shift), e.integer(piece * _PIECE))
        value = b.load(b.inttoptr(at, vector))
        value.align = 1
        pieces.append(value)
    for piece, value in enumerate(pieces):
        store = b.store(value, b.inttoptr(b.add(to, e.integer(piece * _PIECE)), vector))
        store.align = _PIECE
        store.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(I32, 1)]))


def _copy_elements(e: Emitter, element: str, to: Any, end: Any, shift: Any) -> None:
    """Elements one by one: less than a line of them. A complex one is two."""
    b = e.builder
    scalar = scalar_type(element)
    size = e.integer(int(element[1:]) // planes(element))
    count = b.udiv(b.sub(end, to), size)
    with for_range(b, count, intp=I64) as number:
        at = b.add(to, b.mul(number.index, size))
        value = b.load(b.inttoptr(b.add(at, shift), scalar.as_pointer()))
        value.align = 1
        b.store(value, b.inttoptr(at, scalar.as_pointer())).align = 1
