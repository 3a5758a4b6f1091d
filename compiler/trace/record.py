"""Recording: operations become nodes of a graph as the traced function asks for them.

Here is NumPy's arithmetic on dtypes: Python's numbers are weak, so they take the dtype of the
arrays that they meet, and everything else is promoted as `np.result_type` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import EinsumError
from ..formula import FUNCTIONS
from ..subscripts import Subscripts
from ..windows import Given
from .graph import (
    Broadcast,
    Cast,
    Contract,
    Elementwise,
    Fill,
    Literal,
    Node,
    Operation,
    Reshape,
    Size,
    Sum,
    Transpose,
    extend,
)
from .location import TraceError, here
from .number import Argument, Guards, Number

__all__ = ["Recorder", "Value"]

Value = Node | Number | int | float | complex
"""What an operation takes: an array, or a Python number, which is weak."""

_KINDS = "biufc"
"""Dtypes that there is arithmetic for: booleans, integers, floats and complex numbers."""


class Recorder:
    """Makes the nodes of one trace.

    Attributes:
        nodes: all of them, each after its arguments.
        guards: what the trace relies on.
    """

    def __init__(self, operands: Sequence[tuple[int, ...]], values: Sequence[float] = ()) -> None:
        self.nodes: list[Node] = []
        self.guards = Guards()
        self._operands = operands
        self._shapes: dict[object, tuple[Any, ...]] = {
            Argument(position): (value,) for position, value in enumerate(values)
        }
        self._literals: dict[int, Node] = {}

    def add(
        self, operation: Operation, arguments: Sequence[Value], dtype: np.dtype[Any], rank: int
    ) -> Node:
        """A new node; raises TraceError where the shapes of this call do not fit."""
        if dtype.kind not in _KINDS:
            raise TraceError(f"there is no arithmetic for dtype {dtype} in a compiled body", here())
        node = Node(operation, tuple(arguments), dtype.newbyteorder("="), rank, here())
        extend(self._shapes, node, self._operands)
        self.nodes.append(node)
        return node

    def shape(self, node: Node) -> tuple[Number, ...]:
        """The sizes of a node's axes, as numbers that are known later."""
        now = self._shapes[node]
        return tuple(
            Number(None, (node, axis), now[axis], self.guards) for axis in range(node.rank)
        )

    def argument(self, position: int) -> Number:
        """One of the numbers among the arguments."""
        given = Argument(position)
        return Number(None, (given, 0), self._shapes[given][0], self.guards)

    def now(self, node: Node) -> tuple[int, ...]:
        """The shape in the call that is traced; what depends on it needs a guard."""
        return self._shapes[node]

    # --- arguments ---

    def value(self, given: Any) -> Value:
        """An argument of a function: arrays that are not traced become hidden operands."""
        node = given if isinstance(given, Node) else getattr(given, "_traced_node", None)
        if node is not None:
            return node
        if isinstance(given, Number):
            if isinstance(given.now, np.generic | bool):  # NumPy's scalars are not weak
                return self.add(Fill(), (given,), np.asarray(given.now).dtype, 0)
            return given
        if type(given) in (int, float, complex):
            return given  # type: ignore[no-any-return]
        if isinstance(given, list | tuple) and any(map(_is_traced, given)):
            message = "a list of traced arrays is no array: np.stack and the like are not traced"
            raise TraceError(message, here())
        array = np.asarray(given)
        if array.dtype.kind not in _KINDS:
            raise TraceError(f"{type(given).__name__} is no array of numbers", here())
        if array.ndim == 0:
            return self.add(Fill(), (array.item(),), array.dtype, 0)
        known = self._literals.get(id(given))
        if known is None:
            known = self.add(Literal(array), (), array.dtype, array.ndim)
            self._literals[id(given)] = known
        return known

    def node(self, given: Any) -> Node:
        """The same as an array."""
        value = self.value(given)
        if isinstance(value, Node):
            return value
        now = value.now if isinstance(value, Number) else value
        return self.add(Fill(), (value,), np.asarray(now).dtype, 0)

    # --- operations ---

    def apply(self, name: str, *given: Any) -> Node:
        """One of `FUNCTIONS` for each element."""
        values = [self.value(each) for each in given]
        if name == "where":
            types = tuple(_weak(value) for value in values[1:])
            result = np.result_type(*types)
            loop: tuple[np.dtype[Any], ...] = (np.dtype(bool), result, result)
        else:
            *loop_list, result = self._loop(FUNCTIONS[name], [_kind(value) for value in values])
            loop = tuple(loop_list)
        for value, dtype in zip(values, loop, strict=True):
            _check_number(value, dtype, compares=result.kind == "b")
        ranks = [value.rank for value in values if isinstance(value, Node)]
        return self.add(Elementwise(name, loop), values, result, max(ranks, default=0))

    def _loop(self, ufunc: Any, kinds: Sequence[Any]) -> list[np.dtype[Any]]:
        try:
            return [np.dtype(each) for each in ufunc.resolve_dtypes((*kinds, None))]
        except TypeError as error:
            raise TraceError(str(error), here()) from None

    def cast(self, node: Node, dtype: np.dtype[Any]) -> Node:
        """The same in another dtype."""
        if node.dtype == dtype:
            return node
        return self.add(Cast(), (node,), dtype, node.rank)

    def contract(
        self,
        subscripts: Subscripts,
        given: Sequence[Any],
        dtype: Any = None,
        exact: bool = False,
        sizes: Given = (),
    ) -> Node:
        """An einsum, in the dtype that its operands are promoted to."""
        nodes = [self.node(each) for each in given]
        if dtype is None:
            dtype = np.result_type(*(node.dtype for node in nodes))
        nodes = [self.cast(node, np.dtype(dtype)) for node in nodes]
        now = [self._shapes[node] for node in nodes]
        operation = Contract(subscripts, exact, sizes)
        rank = self._rank(operation, now)
        return self.add(operation, nodes, np.dtype(dtype), rank)

    def _rank(self, operation: Contract, now: Sequence[tuple[int, ...]]) -> int:
        from ..resolve import resolve

        try:
            expression = resolve(operation.subscripts, now, operation.given)
        except EinsumError as error:
            raise TraceError(str(error), here()) from None
        return len(expression.output)

    def sum(self, node: Node, axes: Sequence[int], dtype: np.dtype[Any] | None = None) -> Node:
        """The sum over some axes; small integers and booleans add up as NumPy's do."""
        if dtype is None:
            kind, small = node.dtype.kind, node.dtype.itemsize < np.dtype(int).itemsize
            dtype = node.dtype
            if kind in "bi" and (small or kind == "b"):
                dtype = np.dtype(int)
            elif kind == "u" and small:
                dtype = np.dtype(np.uint)
        node = self.cast(node, dtype)
        return self.add(Sum(tuple(axes)), (node,), dtype, node.rank - len(axes)) if axes else node

    def transpose(self, node: Node, axes: Sequence[int]) -> Node:
        """The axes in another order."""
        if list(axes) == list(range(node.rank)):
            return node
        return self.add(Transpose(tuple(axes)), (node,), node.dtype, node.rank)

    def reshape(self, node: Node, shape: Sequence[Size]) -> Node:
        """Other axes for the same elements."""
        return self.add(Reshape(tuple(shape)), (node,), node.dtype, len(shape))

    def with_new_axes(self, node: Node, after: int) -> Node:
        """The same with so many axes of extent 1 at the end."""
        return self.reshape(node, (*self.shape(node), *(1,) * after)) if after else node

    def broadcast(self, node: Node, shape: Sequence[Size]) -> Node:
        """The same elements along more axes."""
        return self.add(Broadcast(tuple(shape)), (node,), node.dtype, len(shape))


def _is_traced(given: Any) -> bool:
    return hasattr(given, "_traced_node")


def _kind(value: Value) -> Any:
    """What `ufunc.resolve_dtypes` wants to know: a dtype, or a Python type for a weak number."""
    if isinstance(value, Node):
        return value.dtype
    now = value.now if isinstance(value, Number) else value
    return type(now)


def _weak(value: Value) -> Any:
    """What `np.result_type` wants to know."""
    if isinstance(value, Node):
        return value.dtype
    return value.now if isinstance(value, Number) else value


def _check_number(value: Value, dtype: np.dtype[Any], compares: bool) -> None:
    """Raise TraceError for an integer that a dtype does not have, as NumPy does."""
    if isinstance(value, int) and dtype.kind in "iu" and not compares:
        span = np.iinfo(dtype)
        if not span.min <= value <= span.max:
            raise TraceError(f"Python integer {value} out of bounds for {dtype}", here())
