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

from .access import Access
from .affine import Affine
from .errors import EinsumError
from .gather import cut
from .program import Program, Statement, Tensor
from .records import dataclass, replace
from .regions import NotBoxes, boxes

__all__ = ["pad"]


@dataclass(slots=True)
class _Frame:
    """A copy that is to be made: its name, and the positions that it has, both ends included."""

    name: str
    axes: list[tuple[int, int]]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(high - low + 1 for low, high in self.axes)


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
        frames: dict[int, _Frame] = {}
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
                frames[place] = _Frame(next(names), [(0, extent - 1) for extent in shape])
            (low, high), axes = trouble.reach, frames[place].axes
            begin, end = axes[trouble.axis]
            axes[trouble.axis] = min(begin, begin + low), max(end, begin + high)
        for place, frame in frames.items():
            copy = _copy(statement.factors[place], frame)
            shapes[frame.name] = frame.shape
            for name, extent in zip(copy.kept, frame.shape, strict=True):
                sizes.setdefault(name, extent)
            statements.append(copy)
        statements.append(_framed(statement, frames))
    known = {tensor.name for tensor in program.tensors}
    copies = (Tensor(name, axes) for name, axes in shapes.items() if name not in known)
    tensors = (*program.tensors, *copies)
    extents = tuple(sizes.items())
    return replace(program, tensors=tensors, statements=tuple(statements), extents=extents)


def _trouble(
    statement: Statement,
    frames: Mapping[int, _Frame],
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
) -> NotBoxes | None:
    """Why a statement is no boxes, with copies made so far; None if it is."""
    if all(access.is_plain for access in (statement.target, *statement.factors)):
        return None
    made = {frame.name: frame.shape for frame in frames.values()}
    try:
        boxes(_framed(statement, frames), {**shapes, **made}, sizes)
    except NotBoxes as trouble:
        return trouble
    return None


def _framed(statement: Statement, frames: Mapping[int, _Frame]) -> Statement:
    """The statement with copies in place of some factors."""
    if not frames:
        return statement
    factors = list(statement.factors)
    for place, frame in frames.items():
        axes = zip(factors[place].subscripts, frame.axes, strict=True)
        factors[place] = Access(frame.name, tuple(axis.plus(-low) for axis, (low, _) in axes))
    return replace(statement, factors=tuple(factors))


def _copy(factor: Access, frame: _Frame) -> Statement:
    """The copy of a factor's tensor; plain indices keep their names, so that slices cut it too."""
    target, source = [], []
    for number, (axis, (low, _)) in enumerate(zip(factor.subscripts, frame.axes, strict=True)):
        uses = sum(axis.names[0] in other.names for other in factor.subscripts) if axis.names else 0
        plain = axis.is_index and uses == 1
        index = axis if plain else Affine.index(f"{frame.name}.{number}")
        target.append(index)
        source.append(index.plus(low))
    return Statement(Access(frame.name, tuple(target)), (Access(factor.tensor, tuple(source)),))
