"""Trace a function: call it with symbols, and keep what it asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from ..records import dataclass
from .graph import Literal, Node, Operand, shapes
from .location import TraceError
from .number import Guards, Number, Shapes, number_of
from .record import Recorder
from .structure import Place, filled, flattened
from .symbol import Symbol

__all__ = ["Signature", "Trace", "trace"]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function is traced for: dtypes, ranks, and for each operand the first that is it."""

    dtypes: tuple[np.dtype[Any], ...]
    ranks: tuple[int, ...]
    same: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """What a function computes from operands of a signature, whatever their sizes.

    Attributes:
        name: the function's.
        signature: what it was traced for.
        nodes: all operations, each after its arguments.
        results: the arrays that it returns, each once.
        structure: how it returns them.
        names: what the results are called, after their places in the structure.
        guards: numbers that must be what they were for the trace to be good.
    """

    name: str
    signature: Signature
    nodes: tuple[Node, ...]
    results: tuple[Node, ...]
    structure: Any
    names: tuple[str, ...]
    guards: Guards

    @property
    def needed(self) -> tuple[Node, ...]:
        """The nodes that the results depend on, in their order, and all operands."""
        needed = {*self.results}
        for node in reversed(self.nodes):
            if node in needed:
                needed.update(node.arrays)
        return tuple(
            node for node in self.nodes if node in needed or isinstance(node.operation, Operand)
        )

    @property
    def literals(self) -> tuple[np.ndarray[Any, Any], ...]:
        """The arrays that the function has from elsewhere: operands after the others."""
        operations = (node.operation for node in self.needed)
        return tuple(each.array for each in operations if isinstance(each, Literal))

    def shapes(self, operands: Sequence[tuple[int, ...]], values: Sequence[float] = ()) -> Shapes:
        """The shape of every node, and the numbers among the arguments.

        Raises:
            TraceError: (a ValueError) the operands do not fit.
        """
        return shapes(self.nodes, operands, values)

    def fits(self, operands: Sequence[tuple[int, ...]], values: Sequence[float] = ()) -> bool:
        """Whether the trace is good for operands of these shapes, and for these numbers."""
        if not len(self.guards):
            return True
        try:
            return self.guards.hold(self.shapes(operands, values))
        except TraceError:  # a new trace will say what does not fit, and where
            return False

    def returned(self, known: Shapes) -> Any:
        """What the function returns for these shapes, with places for the results."""
        made, numbers, _ = flattened(
            self.structure, lambda value: isinstance(value, Number | Place)
        )
        values = [each if isinstance(each, Place) else number_of(each, known) for each in numbers]
        return filled(made, values)


def trace(
    function: Callable[..., Any],
    arguments: tuple[Any, Any],
    leaves: Sequence[np.ndarray[Any, Any] | float],
    same: Sequence[int] | None = None,
) -> Trace:
    """Call a function with symbols in place of arrays.

    Args:
        function: what to trace.
        arguments: its positional and its named arguments, with places for the leaves.
        leaves: arrays, the operands, whose shapes and dtypes count: what is traced is good for
            others of the same dtypes and ranks; and Python's floats, for any others.
        same: for each operand the first that is the same array; by default they all differ.

    Raises:
        TraceError: (a ValueError) the function does something that cannot be traced; the message
            has the line.

    >>> def norms(a, b):
    ...     return np.sqrt(((a @ b) ** 2).sum(axis=1))
    >>> found = trace(norms, ((Place(0), Place(1)), {}), [np.ones((2, 3)), np.ones((3, 4))])
    >>> [type(node.operation).__name__ for node in found.nodes]
    ['Operand', 'Operand', 'Contract', 'Elementwise', 'Sum', 'Elementwise']
    """
    operands = [leaf for leaf in leaves if isinstance(leaf, np.ndarray)]
    signature = Signature(
        tuple(array.dtype.newbyteorder("=") for array in operands),
        tuple(array.ndim for array in operands),
        tuple(range(len(operands)) if same is None else same),
    )
    floats = [leaf for leaf in leaves if not isinstance(leaf, np.ndarray)]
    recorder = Recorder([array.shape for array in operands], floats)
    first: dict[int, Node] = {}
    for position, array in enumerate(operands):
        number = signature.same[position]
        if number == position:
            dtype = signature.dtypes[position]
            first[position] = recorder.add(Operand(position), (), dtype, array.ndim)
    symbols = iter([Symbol(recorder, first[number]) for number in signature.same])
    numbers = map(recorder.argument, count())
    args, named = filled(
        arguments,
        [next(symbols if isinstance(leaf, np.ndarray) else numbers) for leaf in leaves],
    )
    returned = function(*args, **named)
    if isinstance(returned, np.ndarray | np.generic):  # the same for all operands
        returned = Symbol(recorder, recorder.node(returned))
    structure, leaves, names = flattened(
        returned, lambda value: isinstance(value, Symbol | np.ndarray)
    )
    results = [recorder.node(leaf) for leaf in leaves]
    once = list(dict.fromkeys(results))
    places = [Place(once.index(node)) for node in results]
    called = dict(reversed(list(zip(results, names, strict=True))))
    return Trace(
        name=getattr(function, "__name__", "function"),
        signature=signature,
        nodes=tuple(recorder.nodes),
        results=tuple(once),
        structure=filled(structure, places),
        names=tuple(called[node] for node in once),
        guards=recorder.guards,
    )
