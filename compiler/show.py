"""Loop nests as text, for people and for golden files."""

from __future__ import annotations

from .affine import Affine
from .loopnest import Assign, Kind, Loop, Nest, Ref, Statement, Tabulate, Term, Tiles


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
            lines = [f"{pad}{head}{by}:"]
        case Tiles():
            axes = ", ".join(f"{i} in 0..{extent} by {step}" for i, extent, step in statement.axes)
            lines = [f"{pad}tiles {axes}:"]
        case Tabulate():
            span = f"{statement.start}..{least(statement.stop)}"
            tensor = statement.table.split("_")[0]
            return [f"{pad}tabulate {statement.table} = offsets of {tensor} at {span}"]
        case Assign():
            return [f"{pad}{assignment(statement)}"]
    for inner in statement.body:
        lines += _lines(inner, depth + 1)
    return lines


def assignment(statement: Assign) -> str:
    """One assignment: ``acc[m, n] += x0[m, k] * x1[k, n]``."""
    value = " * ".join(ref(factor) for factor in statement.factors) or "0"
    if statement.total:
        value = f"total {value}"
    sign = "+=" if statement.add is True else "="
    when = f"    (+= once {statement.add} > 0)" if isinstance(statement.add, str) else ""
    return f"{ref(statement.target)} {sign} {value}{when}"


def ref(access: Ref) -> str:
    """One access: the buffer and the terms of the element's offset."""
    return f"{access.buffer}[{' + '.join(_term(t) for t in access.terms) or '0'}]"


def _term(term: Term) -> str:
    if term.table is not None:
        return f"{term.table}[{term.position}]"
    if term.stride == 1:
        return str(term.position)
    position = str(term.position)
    if not term.position.is_index:
        position = f"({position})"
    return f"{position}*{term.stride}"


def least(stops: tuple[Affine, ...]) -> str:
    """The least of several bounds."""
    return str(stops[0]) if len(stops) == 1 else f"min({', '.join(str(s) for s in stops)})"
