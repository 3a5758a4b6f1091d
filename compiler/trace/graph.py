"""What a traced function computes: operations on arrays whose sizes and values are not known.

A graph knows the dtype and the rank of everything, which it was traced for. Sizes are known once
the operands' are: `shapes` goes through the graph with them. It is where operands that do not fit
are found, and the message has the line of the user's code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EinsumError
from ..records import dataclass
from ..resolve import resolve
from ..subscripts import Subscripts, Term
from ..windows import Given
from .location import Location, TraceError
from .number import Argument, Number, Shapes

__all__ = [
    "Broadcast",
    "Cast",
    "Contract",
    "Diagonal",
    "Elementwise",
    "Fill",
    "Index",
    "Literal",
    "Node",
    "Operand",
    "Operation",
    "Reshape",
    "Size",
    "Slice",
    "Sum",
    "Transpose",
    "positions",
    "shapes",
    "sizes",
]

Size = int | Number
"""An extent or a position, known or not."""


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand of the function, by its position."""

    position: int


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """An array that the function has from elsewhere: a hidden operand."""

    array: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Fill:
    """A number as an array without axes; the argument is the number."""


@dataclass(frozen=True, slots=True)
class Elementwise:
    """A function of `formula.FUNCTIONS` for each element, of arguments that broadcast.

    `loop` are the dtypes in which the arguments are taken.
    """

    function: str
    loop: tuple[np.dtype[Any], ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """An einsum. The arguments have the dtype of the result.

    If it is `exact`, an axis of extent 1 does not broadcast, but for those of an ellipsis. `given`
    are extents that were asked for.
    """

    subscripts: Subscripts
    exact: bool = False
    given: Given = ()


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum over some axes, in the dtype of the result."""

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """The same in another dtype."""


@dataclass(frozen=True, slots=True)
class Transpose:
    """The axes in another order: axis n of the result is axis `axes[n]` of the argument."""

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Diagonal:
    """The elements where two axes are at positions `offset` apart: a last axis in place of both."""

    offset: int
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Positions of an axis as Python has them: `start:stop:step`."""

    start: Size | None
    stop: Size | None
    step: Size | None


@dataclass(frozen=True, slots=True)
class Index:
    """For each axis a position, which removes it, or a slice; None makes a new axis."""

    items: tuple[Size | Slice | None, ...]


@dataclass(frozen=True, slots=True)
class Reshape:
    """Other axes for the same elements in C order; one extent may be -1."""

    shape: tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """The same elements again and again along new axes, and along those of extent 1."""

    shape: tuple[Size, ...]


Operation = (
    Operand
    | Literal
    | Fill
    | Elementwise
    | Contract
    | Sum
    | Cast
    | Transpose
    | Diagonal
    | Index
    | Reshape
    | Broadcast
)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An operation and what it is applied to. A node is equal to itself alone."""

    operation: Operation
    arguments: tuple[Node | Number | complex, ...]
    dtype: np.dtype[Any]
    rank: int
    where: Location | None

    @property
    def arrays(self) -> tuple[Node, ...]:
        """The arguments that are arrays."""
        return tuple(argument for argument in self.arguments if isinstance(argument, Node))


# --- shapes ---------------------------------------------------------------------------------------


def shapes(
    nodes: Sequence[Node], operands: Sequence[tuple[int, ...]], values: Sequence[float] = ()
) -> Shapes:
    """The shape of every node.

    Args:
        nodes: each after its arguments.
        operands: the operands' shapes, of the ranks that the graph was made for.
        values: of the numbers among the arguments.

    Raises:
        TraceError: (a ValueError) they do not fit; the message has the line of the user's code.
    """
    found: dict[object, tuple[Any, ...]] = {
        Argument(position): (value,) for position, value in enumerate(values)
    }
    for node in nodes:
        extend(found, node, operands)
    return found


def extend(
    found: dict[object, tuple[Any, ...]], node: Node, operands: Sequence[tuple[int, ...]]
) -> None:
    """Add the shape of a node whose arguments' shapes are known."""
    try:
        found[node] = _shape(node, found, operands)
    except TraceError:
        raise
    except EinsumError as error:
        raise TraceError(str(error), node.where) from None


def _shape(node: Node, known: Shapes, operands: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    given = [known[each] for each in node.arrays]
    match node.operation:
        case Operand(position):
            return operands[position]
        case Literal(array):
            return array.shape
        case Fill():
            return ()
        case Cast():
            return given[0]
        case Elementwise():
            return _broadcast(given)
        case Contract(subscripts, exact, asked):
            expression = resolve(subscripts, given, asked)
            if exact and any(
                None in axes[: term.ellipsis] or None in axes[len(axes) - _after(term) :]
                for axes, term in zip(expression.inputs, subscripts.inputs, strict=True)
            ):
                listed = " and ".join(map(str, given))
                raise EinsumError(f"shapes {listed} do not go together: {subscripts.text}")
            return expression.output_shape
        case Sum(axes):
            return tuple(n for axis, n in enumerate(given[0]) if axis not in axes)
        case Transpose(axes):
            return tuple(given[0][axis] for axis in axes)
        case Diagonal(offset, first, second):
            rest = (n for axis, n in enumerate(given[0]) if axis not in (first, second))
            rows, columns = given[0][first], given[0][second]
            length = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
            return (*rest, max(length, 0))
        case Index(items):
            return _indexed(items, given[0], known)
        case Reshape(shape):
            return _reshaped(sizes(shape, known), given[0])
        case Broadcast(shape):
            wanted = sizes(shape, known)
            if _broadcast([given[0], wanted]) != wanted:
                raise EinsumError(f"shape {given[0]} does not broadcast to {wanted}")
            return wanted


def _after(term: Term) -> int:
    """How many axes a term has after its ellipsis."""
    return 0 if term.ellipsis is None else len(term.axes) - term.ellipsis


def _broadcast(several: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*several)
    except ValueError:
        listed = " and ".join(map(str, several))
        raise EinsumError(f"shapes {listed} do not go together") from None


def _indexed(
    items: Sequence[Size | Slice | None], shape: tuple[int, ...], known: Shapes
) -> tuple[int, ...]:
    left, result = list(shape), []
    for axis, item in enumerate(items):
        if item is None:
            result.append(1)
        elif isinstance(item, Slice):
            result.append(len(positions(item, left.pop(0), known)))
        else:
            (place,), extent = sizes((item,), known), left.pop(0)
            if not -extent <= place < extent:
                raise EinsumError(f"index {place} is out of an axis of {extent} (axis {axis})")
    return tuple(result)


def positions(part: Slice, extent: int, known: Shapes) -> range:
    """The positions that a slice takes of an axis."""
    values = [
        None if each is None else sizes((each,), known)[0]
        for each in (part.start, part.stop, part.step)
    ]
    if values[2] == 0:
        raise EinsumError("the step of a slice cannot be zero")
    return range(*slice(*values).indices(extent))


def _reshaped(wanted: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    open_axes = [axis for axis, extent in enumerate(wanted) if extent == -1]
    total = prod(shape)
    if len(open_axes) == 1:
        rest = prod(extent for extent in wanted if extent != -1)
        if rest and total % rest == 0:
            place = open_axes[0]
            wanted = (*wanted[:place], total // rest, *wanted[place + 1 :])
    if any(extent < 0 for extent in wanted) or prod(wanted) != total:
        raise EinsumError(f"shape {shape} cannot become {wanted}: it has {total} elements")
    return wanted


def sizes(values: Sequence[Size], known: Mapping[object, tuple[int, ...]]) -> tuple[int, ...]:
    """Sizes as numbers.

    Raises:
        EinsumError: (a ValueError) one is no integer.
    """
    found = []
    for value in values:
        number = value.value(known) if isinstance(value, Number) else value
        if not isinstance(number, int | np.integer):
            raise EinsumError(f"a size must be an integer, not {number!r}")
        found.append(int(number))
    return tuple(found)
