"""Loop nests, schedules and plans as text, for people and for golden files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from .affine import Affine
from .cost import Cost
from .loopnest import (
    Assign,
    Fill,
    Kind,
    Loop,
    Nest,
    Ref,
    Statement,
    Tabulate,
    Term,
    Tiles,
    Write,
)
from .program import Program
from .program import Statement as Step
from .schedule import Group, Schedule

# --- loop nests -----------------------------------------------------------------------------------


def show(nest: Nest) -> str:
    """A loop nest as readable text: its tensors and buffers, then its loops."""
    lines = [f"{b.name}: {b.element} {b.scope}" for b in nest.tensors]
    for b in nest.buffers:
        size = f"[{' * '.join(str(s) for s in b.size)}]" if b.size else ""
        lines.append(f"{b.name}: {b.element}{size} {b.scope}")
    for statement in nest.body:
        lines += _lines(statement, 0)
    return "\n".join(lines) + "\n"


def _lines(statement: Statement, depth: int) -> list[str]:
    pad = "    " * depth
    match statement:
        case Loop():
            word = "for" if statement.kind is Kind.SERIAL else statement.kind
            head = f"{word} {statement.index} in {statement.start}..{least(statement.stop)}"
            by = "" if statement.step == 1 else f" by {statement.step}"
            lead = "" if statement.lead is None else f" from {statement.lead} earlier"
            lines = [f"{pad}{head}{by}{lead}:"]
        case Tiles():
            axes = ", ".join(f"{i} in 0..{extent} by {step}" for i, extent, step in statement.axes)
            lines = [f"{pad}tiles {axes}:"]
        case Tabulate():
            span = f"{statement.start}..{least(statement.stop)}"
            tensor = statement.table.split("_")[0]
            return [f"{pad}tabulate {statement.table} = offsets of {tensor} at {span}"]
        case Fill():
            spans = f"{_span(statement.start, statement.stop)}, "
            spans += _span(statement.first, statement.last)
            return [f"{pad}frame {statement.buffer} = {ref(statement.source)} at {spans}"]
        case Write():
            spans = f"{_span(statement.first, statement.last)}, "
            spans += _span(statement.start, statement.stop)
            return [f"{pad}rows {ref(statement.target)} = {statement.buffer} at {spans}"]
        case Assign():
            return [f"{pad}{assignment(statement)}"]
    for inner in statement.body:
        lines += _lines(inner, depth + 1)
    return lines


def _span(start: Affine, stop: tuple[Affine, ...]) -> str:
    return f"{start}..{least(stop)}"


def assignment(statement: Assign) -> str:
    """One assignment: ``acc[m, n] += x0[m, k] * x1[k, n]``."""
    factors = [ref(factor) for factor in statement.factors]
    if statement.total:
        factors[0] = f"total {factors[0]}"
    value = " * ".join(factors) or "0"
    if statement.formula is not None:
        value = re.sub(r"\$(\d+)", lambda found: factors[int(found[1])], statement.formula.text(""))
    if statement.half is not None:
        value = f"half({statement.half}) * ({value})"
    sign = "+=" if statement.add is True else "="
    when = f"    (+= once {statement.add} > 0)" if isinstance(statement.add, str) else ""
    return f"{ref(statement.target)} {sign} {value}{when}"


def ref(access: Ref) -> str:
    """One access: the buffer and the terms of the element's offset."""
    return f"{access.buffer}[{' + '.join(_term(t) for t in access.terms) or '0'}]"


def _term(term: Term) -> str:
    if term.table is not None:
        return f"{term.table}[{term.position}{', in runs' if term.runs else ''}]"
    if term.stride == 1:
        return str(term.position)
    position = str(term.position)
    if not term.position.is_index:
        position = f"({position})"
    return f"{position}*{term.stride}"


def least(stops: tuple[Affine, ...]) -> str:
    """The least of several bounds."""
    return str(stops[0]) if len(stops) == 1 else f"min({', '.join(str(s) for s in stops)})"


# --- steps and schedules --------------------------------------------------------------------------


def subscripts(step: Step) -> str:
    """A step as an equation in the indices of the user's: what np.einsum would be told.

    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> def first(text, *shapes):
    ...     return from_expression(resolve(parse(text), shapes)).statements[0]
    >>> subscripts(first("ij,jk", (2, 3), (3, 4)))
    'ij,jk->ik'
    >>> subscripts(first("row col, col -> row", (2, 3), (3,)))
    'row col, col -> row'
    """
    accesses = (*step.accesses, step.target)
    axes = [axis for access in accesses for axis in access.subscripts]
    plain = all(axis.is_index and len(axis.names[0]) == 1 for axis in axes)
    gap, comma, arrow = ("", ",", "->") if plain else (" ", ", ", " -> ")
    *inputs, output = (gap.join(map(str, access.subscripts)) for access in accesses)
    return f"{comma.join(inputs)}{arrow}{output}"


def product(step: Step) -> str:
    """What a step multiplies, and what it makes of it.

    Such as ``t0 = a * b``, ``t0 = sum a``, or ``out = (a * b) * c`` where there is an epilogue.
    """
    total = "sum " if len(step.factors) == 1 and step.contracted else ""
    text = f"{total}{' * '.join(factor.tensor for factor in step.factors)}"
    if step.epilogue is not None:
        formula = _bare_names(step.epilogue.value.text(text))
        text = f"sum {formula}" if step.epilogue.over else formula
    return f"{step.target.tensor} = {text}"


def _bare_names(formula: str) -> str:
    """A formula's text without the subscripts of its tensors."""
    return re.sub(r"\[[^\]]*\]", "", formula)


def intermediates(before: Program, after: Program, element: str) -> list[tuple[str, str]]:
    """Where each intermediate of a program is: its name, then `registers` or `memory 75.0 MiB`.

    Args:
        before: the program as it was written.
        after: the same where statements have been merged.
        element: the element type of what has no other.

    >>> from .formula import CONTRACTED, Apply
    >>> from .program import Access, Affine, Epilogue, Tensor
    >>> a, t0, out = (Access(name, (Affine.index("i"),)) for name in ("a", "t0", "out"))
    >>> made = Epilogue(Apply("exp", (CONTRACTED,)))
    >>> steps = Step(t0, (a,), made), Step(out, (t0,), made)
    >>> before = Program((Tensor("a", (1 << 20,)),), ("a",), (), ("out",), (("i", 1 << 20),))
    >>> before = before.with_statements(steps)
    >>> intermediates(before, before, "f4"), intermediates(before, before.with_statements(()), "f4")
    ([('t0', 'memory 4.00 MiB')], [('t0', 'registers')])
    """
    left = {step.target.tensor for step in after.statements}
    steps = (*before.statements, *after.statements)
    made = dict.fromkeys(step.target.tensor for step in steps)
    tensors = {tensor.name: tensor for tensor in (*before.tensors, *after.tensors)}

    def place(name: str) -> str:
        tensor = tensors[name]
        bytes_ = prod(tensor.axes) * int((tensor.element or element)[1:])
        return f"memory {size(bytes_)}" if name in left else "registers"

    return [(name, place(name)) for name in made if name not in after.results]


def wrapped(text: str) -> str:
    """A long line as several, those after the first indented."""
    return textwrap.fill(text, 100, subsequent_indent="  ", break_long_words=False)


def tree(steps: Iterable[Step]) -> str:
    """Steps as one expression with brackets, the last one outermost: ``(a * b) * c``.

    >>> from .program import Access
    >>> a, b, c, t0, out = (Access(name, ()) for name in ("a", "b", "c", "t0", "out"))
    >>> tree([Step(t0, (b, c)), Step(out, (a, t0))])
    'a * (b * c)'
    """
    made: dict[str, str] = {}
    text = ""
    for step in steps:
        factors = (made.pop(factor.tensor, factor.tensor) for factor in step.factors)
        text = " * ".join(factors)
        if len(step.factors) == 1 and step.reduced:
            text = f"sum({text})"
        if step.epilogue is not None:
            formula = _bare_names(step.epilogue.value.text(text))
            formula = re.sub(r"\w+", lambda name: made.pop(name[0], name[0]), formula)
            text = f"sum({formula})" if step.epilogue.over else formula
        made[step.target.tensor] = f"({text})" if len(step.accesses) > 1 else text
    return text


def schedule(choice: Schedule) -> str:
    """The decisions of a schedule, one a line; block sizes by their names."""
    tile = f"{choice.lane_tile} lanes along {choice.lanes}"
    if choice.rows is not None:
        tile = f"{choice.row_tile} rows along {choice.rows}, {tile}"
    tasks, around = choice.outer[: choice.parallel], choice.outer[choice.parallel :]
    lines = [
        f"{choice.recipe}: {', '.join(choice.elements[:-1])} -> {choice.elements[-1]}, "
        f"accumulated in {choice.accumulator}",
        f"register tile: {tile}; vectors of {choice.vector_bytes} bytes",
        f"loops: {', '.join(around) or 'none'}; in the register tile: "
        f"{', '.join(choice.inner) or 'none'}",
        f"in parallel: {', '.join(tasks) or 'nothing'}",
    ]
    lines += [
        f"packed: {pack.operand}{f' for {pack.also} too' if pack.also else ''} in panels of "
        f"{pack.width} along {pack.group}, in {pack.inside}"
        for pack in choice.packs
    ]
    if choice.ahead is not None:
        lines.append(
            f"asked for ahead: {choice.ahead.operand}, in lines along {choice.ahead.along}"
        )
    if choice.framed is not None:
        lines.append(f"in frames: {choice.framed}, in k_block; rows of out are written in n_task")
    if choice.stage is not None:
        run = indices(choice.stage.run)
        lines.append(f"collected: out in runs along {run}, in {choice.stage.inside}")
    return "\n".join(lines)


def role(choice: Schedule, group: Group) -> str:
    """What a group of indices is to a schedule."""
    part = {choice.lanes: "lanes", choice.rows: "rows"}.get(group.name, "")
    return ", ".join(filter(None, ("summed" if group.reduced else "kept", part)))


def indices(names: Iterable[str]) -> str:
    """Indices that are walked as one: ``(i, j)``."""
    return f"({', '.join(names)})"


def comment(text: str) -> str:
    """A text as comments of Python."""
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


# --- tables and quantities ------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> str:
    """Columns of text, two spaces apart; those whose head is in ``right`` are flush right.

    >>> print(table(["step", "flops"], [["t0 = a * b", "12"], ["out = t0", "3"]], right="flops"))
    step        flops
    t0 = a * b     12
    out = t0        3
    """
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    flush = [name in right.split() for name in head]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if end else cell.ljust(width)
            for cell, width, end in zip(line, widths, flush, strict=True)
        ).rstrip()
        for line in lines
    )


def candidates(costs: Iterable[tuple[str, Cost]], chosen: str) -> str:
    """What was considered, and which of it was taken, as a table."""
    rows = [[("* " if name == chosen else "  ") + name, *cost_cells(cost)] for name, cost in costs]
    return table(["  candidate", "flops", "bytes", "predicted"], rows, "flops bytes predicted")


def cost_cells(cost: Cost) -> tuple[str, str, str]:
    """Operations, traffic and time, for a table."""
    return count(cost.flops), size(cost.bytes), seconds(cost.seconds)


def count(number: int) -> str:
    """A number of things, to three digits.

    >>> count(999), count(71_680), count(2 * 10**12)
    ('999', '71.7 k', '2.00 T')
    """
    return _scaled(float(min(number, 10**300)), 1000, ("", " k", " M", " G", " T", " P"))


def size(number: int) -> str:
    """A number of bytes, to three digits.

    >>> size(512), size(84 << 10)
    ('512 B', '84.0 KiB')
    """
    units = (" B", " KiB", " MiB", " GiB", " TiB", " PiB")
    return _scaled(float(min(number, 10**300)), 1024, units)


def seconds(time: float) -> str:
    """A time, to three digits.

    >>> seconds(4.84e-6), seconds(0.25), seconds(90)
    ('4.84 µs', '250 ms', '90.0 s')
    """
    if time >= 1:
        return f"{_digits(time)} s"
    return _scaled(time * 1e9, 1000, (" ns", " µs", " ms", " s"))


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    power = 0
    while value >= 0.9995 * base and power + 1 < len(units):
        value, power = value / base, power + 1
    if not power and value == int(value):
        return f"{value:.0f}{units[0]}"
    return f"{_digits(value)}{units[power]}"


def _digits(value: float) -> str:
    if value >= 9.995e5:
        return f"{value:.2e}"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def sizes(extents: Mapping[str, int]) -> str:
    """The extent of each index: ``i=64 j=32``."""
    return " ".join(f"{name}={extent}" for name, extent in extents.items())
