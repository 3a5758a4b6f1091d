"""Margin: copy what many boxes would read, with a margin of zeros, where that is faster.

Before, where the positions of a gradient's taps make nine boxes:

    t0[n,o,c,k,l] = sum_{y,x} g[n,o,y,x] * a[n,c,y+k-1,x+l-1]

after, one product of matrices:

    t1[n,c,t1.2,t1.3] = a[n,c,t1.2-1,t1.3-1]
    t0[n,o,c,k,l] = sum_{y,x} g[n,o,y,x] * t1[n,c,y+k,x+l]

An image is read many times, so that the copy costs little; what it saves is that every box is a
call of a kernel, with less to do in it, and that a statement that stays inside of its tensors can
be merged with the one that reads its result. Where taps are summed, boxes are few and large, and
no copy is made. Which is faster the cost model says. All reads of a tensor share one copy, so that
products of it with itself stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from .access import Access
from .cost import statement_cost
from .limits import NotBoxes
from .machine import Machine
from .padded import Padded
from .program import Program, Statement, Tensor, bounds
from .records import dataclass, field, replace
from .regions import boxes, leaves

__all__ = ["with_margins"]


@dataclass(slots=True)
class _Margin:
    """A copy that is to be made, and the places of the statements that read it."""

    copy: Padded
    statements: set[int] = field(default_factory=set)


def with_margins(program: Program, element: str, machine: Machine) -> Program:
    """The program with copies of tensors that statements leave, where that takes less time.

    Args:
        program: steps.
        element: type of the elements, such as ``f4``.
        machine: what the costs are for.

    >>> from .machine import TARGETS
    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> shapes = [(8, 64, 32, 32), (8, 64, 32, 32)]
    >>> text = "n o y x, n c y+k-1 x+l-1 -> n o c k l"
    >>> program = from_expression(resolve(parse(text), shapes))
    >>> print(with_margins(program, "f4", Machine(TARGETS["x86-64-v3"])))
    t0[n,c,t0.2,t0.3] = b[n,c,t0.2-1,t0.3-1]
    out[n,o,c,k,l] = sum_{y,x} a[n,o,y,x] * t0[n,c,k+y,l+x]
    """
    names, shapes = program.fresh_names(), program.shapes
    margins: dict[str, _Margin] = {}
    for place, statement in enumerate(program.statements):
        if not statement.target.is_plain or statement.epilogue is not None:
            continue
        if _sums_taps(statement, program.sizes):
            continue
        left = _left(statement, shapes, program.sizes)
        if not left or not _is_faster(statement, left, program, element, machine):
            continue
        for tensor, reach in left.items():
            margin = margins.get(tensor)
            if margin is None:
                margin = margins[tensor] = _Margin(Padded(next(names), tuple(reach)))
            both = zip(margin.copy.reach, reach, strict=True)
            widest = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in both)
            margin.copy = replace(margin.copy, reach=widest)
            margin.statements.add(place)
    return _with(program, margins) if margins else program


def _sums_taps(statement: Statement, sizes: Mapping[str, int]) -> bool:
    """Whether a statement is a product of windows with something else, summed over the taps.

    Such boxes are large: the interior has nearly all of the positions.
    """
    longest = {
        max(axis.names, key=lambda name: sizes[name])
        for factor in statement.factors
        for axis in factor.subscripts
        if len(axis.names) > 1
    }
    return len({f.tensor for f in statement.factors}) > 1 and longest <= {*statement.kept}


def _left(
    statement: Statement, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> dict[str, list[tuple[int, int]]]:
    """The tensors that a statement leaves, and how far it reaches along each of their axes."""
    found: dict[str, list[tuple[int, int]]] = {}
    for factor in statement.factors:
        if not leaves(replace(statement, factors=(factor,)), shapes, sizes):
            continue
        reach = found.setdefault(factor.tensor, [(0, n - 1) for n in shapes[factor.tensor]])
        for number, axis in enumerate(factor.subscripts):
            low, high = bounds(axis, sizes)
            begin, end = reach[number]
            reach[number] = min(begin, low), max(end, high)
    return found


def _is_faster(
    statement: Statement,
    left: Mapping[str, list[tuple[int, int]]],
    program: Program,
    element: str,
    machine: Machine,
) -> bool:
    """Whether copies and one step take less time than the boxes."""
    shapes, sizes = program.shapes, program.sizes
    try:
        parts = boxes(statement, shapes, sizes)
    except NotBoxes:
        return True
    with_boxes = sum(
        statement_cost(box.statement, box.extents, element, machine).seconds for box in parts
    )
    seconds = statement_cost(statement, sizes, element, machine).seconds
    for tensor, reach in left.items():
        copy = Padded(f"0{tensor}", tuple(reach))
        factor = next(factor for factor in statement.factors if factor.tensor == tensor)
        made = copy.statement(factor, sizes)
        seconds += statement_cost(made, copy.extents(made), element, machine).seconds
    return seconds < with_boxes


def _with(program: Program, margins: Mapping[str, _Margin]) -> Program:
    """The program with these margins, each made before it is read for the first time."""
    statements: list[Statement] = []
    sizes = program.sizes
    tensors = list(program.tensors)
    elements = {tensor.name: tensor.element for tensor in program.tensors}
    made: set[str] = set()
    for place, statement in enumerate(program.statements):
        factors: list[Access] = []
        for factor in statement.factors:
            margin = margins.get(factor.tensor)
            if margin is None or place not in margin.statements:
                factors.append(factor)
                continue
            copy = margin.copy
            if factor.tensor not in made:
                made.add(factor.tensor)
                statements.append(copy.statement(factor, sizes))
                sizes |= copy.extents(statements[-1])
                tensors.append(Tensor(copy.name, copy.shape, elements[factor.tensor]))
            factors.append(copy.read(factor))
        statements.append(replace(statement, factors=tuple(factors)))
    return replace(
        program,
        tensors=tuple(tensors),
        statements=tuple(statements),
        extents=tuple(sizes.items()),
    )
