"""Pad: copy an operand into a frame of zeros, where boxes cannot keep a step inside of it.

Before, with positions of `k` and `m` that are valid together but are no box:

    out[y] = sum_{k,m} a[y+k+m-1] * b[k,m]

after:

    t0[t0.0] = a[t0.0-1]
    out[y] = sum_{k,m} t0[y+k+m] * b[k,m]

It is for what :mod:`.regions` gives up: two summed indices in one expression that leaves its
tensor, or so many boxes that their calls would take longer than the copy. The copy itself is boxes:
the tensor, and zeros around it. Sums into affine axes are cut in two first (:mod:`.gather`).
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import EinsumError
from .gather import cut
from .limits import NotBoxes
from .padded import Padded
from .program import Program, Statement, Tensor
from .records import replace
from .regions import boxes

__all__ = ["pad"]


def pad(program: Program) -> Program:
    """The program with padded copies of what its statements leave, where boxes will not do.

    Raises:
        EinsumError: (a ValueError) an affine output is cut into more pieces than there may be.

    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> expression = resolve(parse("y+k+m-1, k m -> y"), [(9,), (3, 2)])
    >>> print(pad(from_expression(expression)))
    t0[t0.0] = a[t0.0-1]
    out[y] = sum_{k,m} t0[k+m+y] * b[k,m]
    """
    names = program.fresh_names()
    shapes, sizes = program.shapes, program.sizes
    statements: list[Statement] = []
    waiting = list(reversed(program.statements))
    while waiting:
        statement = waiting.pop()
        frames: dict[int, Padded] = {}
        while (trouble := _trouble(statement, frames, shapes, sizes)) is not None:
            place = trouble.factor
            if not statement.target.is_plain:
                name = next(names)
                found = cut(statement, name, shapes[statement.target.tensor], sizes)
                if found is None:
                    raise EinsumError(f"the output {statement.target} is cut into too many pieces")
                shapes[name] = found.shape
                sizes |= found.extents
                waiting.append(found.second)
                statement = found.first
                continue
            assert place is not None, trouble
            if place not in frames:
                shape = shapes[statement.factors[place].tensor]
                frames[place] = Padded(next(names), tuple((0, extent - 1) for extent in shape))
            (low, high), reach = trouble.reach, list(frames[place].reach)
            begin, end = reach[trouble.axis]
            reach[trouble.axis] = min(begin, begin + low), max(end, begin + high)
            frames[place] = replace(frames[place], reach=tuple(reach))
        for place, frame in frames.items():
            copy = frame.statement(statement.factors[place], sizes)
            shapes[frame.name] = frame.shape
            sizes |= frame.extents(copy)
            statements.append(copy)
        statements.append(_framed(statement, frames))
    known = {tensor.name for tensor in program.tensors}
    copies = (Tensor(name, axes) for name, axes in shapes.items() if name not in known)
    tensors = (*program.tensors, *copies)
    extents = tuple(sizes.items())
    return replace(program, tensors=tensors, statements=tuple(statements), extents=extents)


def _trouble(
    statement: Statement,
    frames: Mapping[int, Padded],
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
) -> NotBoxes | None:
    """Why a statement is no boxes, with copies made so far; None if it is."""
    made = {frame.name: frame.shape for frame in frames.values()}
    try:
        boxes(_framed(statement, frames), {**shapes, **made}, sizes)
    except NotBoxes as trouble:
        return trouble
    return None


def _framed(statement: Statement, frames: Mapping[int, Padded]) -> Statement:
    """The statement with copies in place of some factors."""
    if not frames:
        return statement
    factors = list(statement.factors)
    for place, frame in frames.items():
        factors[place] = frame.read(factors[place])
    return replace(statement, factors=tuple(factors))
