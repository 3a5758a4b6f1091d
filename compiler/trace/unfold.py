"""From a trace to a program, once the operands' shapes are known.

Every node of the trace becomes a `Lowered` value: a function from places to a formula of what is
there. Views only change the places. A function of elements that is used once is part of the formula
that uses it; what is used more often, and what is summed, is a tensor that a statement writes.
A product of tensors that is summed is a contraction, any other formula an epilogue.

    g = a @ b                 t0[i,k] = sum_j a[i,j] * b[j,k]
    (g * g).sum(axis=1)       out[i] = sum_k t0[i,k] * t0[i,k]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..access import Access
from ..affine import Affine
from ..errors import EinsumError
from ..formula import Apply, Read, Value
from ..program import Program, Statement
from ..records import dataclass, replace
from .axes import At
from .contract import contract
from .graph import (
    Broadcast,
    Cast,
    Contract,
    Diagonal,
    Elementwise,
    Fill,
    Index,
    Literal,
    Node,
    Operand,
    Reshape,
    Sum,
    Transpose,
)
from .location import TraceError
from .lowered import BOOL, Indices, Lowered, element, mapped
from .number import Shapes
from .trace import Trace
from .views import broadcast, diagonal, index, read, reshaped, together, transposed
from .writer import Parameter, Writer

__all__ = ["Parameter", "Result", "Unfolded", "unfold"]


@dataclass(frozen=True, slots=True)
class Result:
    """A result, and how the tensor that holds it lies in it.

    Attributes:
        tensor: its name in the program.
        shape: of the result.
        dtype: of the result.
        parts: the extents that the result's axes are made of, one after the other; the tensor has
            these as its axes, in another order.
        order: the tensor's axis n is part `order[n]`.
    """

    tensor: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unfolded:
    """The program of a trace for operands of some shapes.

    Attributes:
        program: its inputs are the operands, then `constants`.
        results: of the program, in the order of the trace's.
        constants: arrays that the function has from elsewhere, what the program needs besides, and
            numbers that follow from arguments.
    """

    program: Program
    results: tuple[Result, ...]
    constants: tuple[np.ndarray[Any, Any] | Parameter, ...]


def unfold(
    trace: Trace,
    shapes: Sequence[tuple[int, ...]],
    names: Sequence[str] | None = None,
    values: Sequence[float] = (),
    known: Shapes | None = None,
) -> Unfolded:
    """The program of a trace for operands of these shapes.

    Args:
        trace: of a function.
        shapes: of the operands; the trace's guards hold for them.
        values: of the numbers among the arguments; the program is good for others.
        known: what `trace.shapes` says of them, if that has been asked for.
        names: what the operands are called; by default `a`, `b` and so on.

    Raises:
        TraceError: (a ValueError) the operands do not fit, or a reshape cannot be expressed.

    >>> from .structure import Place
    >>> from .trace import trace
    >>> def norms(a, b):
    ...     return ((a @ b) ** 2).sum(axis=1)
    >>> found = trace(norms, ((Place(0), Place(1)), {}), [np.ones((2, 3)), np.ones((3, 4))])
    >>> print(unfold(found, [(5, 6), (6, 7)], "ab").program)
    t0[i,k] = sum_j a[i,j] * b[j,k]
    out[i] = sum_k t0[i,k] * t0[i,k]
    """
    if names is None:
        names = [chr(97 + n) if len(shapes) <= 26 else f"x{n}" for n in range(len(shapes))]
    return _Unfolding(trace, known or trace.shapes(shapes, values), names).run()


class _Unfolding(Writer):
    """The state of one unfolding."""

    def __init__(self, trace: Trace, known: Shapes, names: Sequence[str]) -> None:
        super().__init__(known, names, [names[number] for number in trace.signature.same])
        self.trace, self.names = trace, names
        self.nodes = trace.needed
        self.uses = Counter(
            chain(chain.from_iterable(node.arrays for node in self.nodes), trace.results)
        )
        self.values: dict[Node, Lowered] = {}
        self.renamed: dict[str, str] = {}  # tensors that are results

    def run(self) -> Unfolded:
        for node in self.nodes:
            try:
                lowered = self.lower(node)
                if self.uses[node] > 1 and lowered.computes is not None:  # it is more than read
                    lowered = self.stored(lowered)
            except TraceError:
                raise
            except EinsumError as error:
                raise TraceError(error.message, node.where) from None
            self.values[node] = lowered
        results = [
            self.result(node, name)
            for node, name in zip(self.trace.results, self.result_names(), strict=True)
        ]
        program = Program(
            tensors=tuple(
                replace(tensor, name=self.renamed.get(name, name))
                for name, tensor in self.tensors.items()
            ),
            inputs=tuple(self.inputs),
            statements=tuple(map(self.renaming, self.statements)),
            results=tuple(result.tensor for result in results),
            extents=tuple(self.extents.items()),
        )
        return Unfolded(program, tuple(results), tuple(self.constants))

    # --- nodes ---

    def lower(self, node: Node) -> Lowered:
        """The value of a node whose arguments have one."""
        given = [self.values[each] for each in node.arrays]
        match node.operation:
            case Operand(position):
                return self.operand(self.names[position], self.known[node], node.dtype)
            case Literal(array):
                return self.literal(array, node.dtype, f"c{len(self.constants)}")
            case Fill():
                return self.number(node.arguments[0], node.dtype)
            case Cast():
                return self.typed(given[0], node.dtype)
            case Elementwise():
                return self.elementwise(node, node.operation)
            case Contract():
                return contract(self, node, node.operation, given)
            case Sum(axes):
                return self.sum(given[0], axes, node.dtype)
            case Transpose(axes):
                return transposed(given[0], axes)
            case Diagonal():
                return diagonal(self, given[0], node.operation)
            case Index(items):
                return index(given[0], items, self.known)
            case Reshape():
                return reshaped(given[0], self.known[node])
            case Broadcast():
                return broadcast(given[0], self.known[node])

    def elementwise(self, node: Node, operation: Elementwise) -> Lowered:
        """A function of elements."""
        given = []
        for argument, dtype in zip(node.arguments, operation.loop, strict=True):
            if isinstance(argument, Node):
                given.append(self.typed(self.values[argument], dtype))
            else:
                given.append(self.number(argument, dtype))
        computes = operation.loop[-1]
        if computes == BOOL:  # in whatever the comparisons in it compute
            computes = next((v.computes for v in given if v.computes not in (None, BOOL)), BOOL)
        given = [
            value if value.computes in (None, BOOL, computes) else self.stored(value)
            for value in given
        ]
        axes = together(given, node.rank)

        def at(places: Sequence[At]) -> Value:
            return Apply(operation.function, tuple(read(v, places, axes) for v in given))

        return Lowered(node.dtype, axes, at, computes)

    # --- results ---

    def result_names(self) -> list[str]:
        """`out`, or `out_` and its place in the structure if there are several."""
        names = []
        for place in self.trace.names:
            name = f"out_{place}" if place else "out"
            while name in self.taken:
                name += "_"
            self.taken.add(name)
            names.append(name)
        return names

    def result(self, node: Node, name: str) -> Result:
        """Have a result in a tensor of this name."""
        value, shape = self.values[node], self.known[node]
        indices = Indices(self.extents)
        places = [indices.new(atoms) for atoms in value.axes]
        formula = value.at(places)
        parts = [sub for place in places for sub in place]
        own = self.own(formula, parts, node.dtype)
        if own is None:
            value = self.written(value.axes, places, formula, node.dtype, name=name)
            order, tensor = list(range(len(parts))), name
        else:
            order, tensor = [parts.index(sub) for sub in own.subscripts], own.tensor
            self.renamed[tensor] = name
        self.tensors[tensor] = replace(self.tensors[tensor], element=element(node.dtype))
        extents = tuple(atom.extent for atoms in value.axes for atom in atoms)
        return Result(name, shape, node.dtype, extents, tuple(order))

    def own(self, formula: Value, parts: Sequence[Affine], dtype: np.dtype[Any]) -> Access | None:
        """The access that a result is, if it is a whole tensor that no other result is."""
        if not isinstance(formula, Read) or formula.access.tensor in (*self.renamed, *self.inputs):
            return None
        tensor = formula.access.tensor
        if self.tensors[tensor].element != element(dtype) and any(
            access.tensor == tensor for each in self.statements for access in each.accesses
        ):  # a result is rounded; the others read what it was before
            return None
        read = formula.access.subscripts
        if sorted(map(str, read)) != sorted(map(str, parts)):
            return None
        whole = tuple(self.extents[sub.names[0]] for sub in read) == self.tensors[tensor].axes
        return formula.access if whole else None

    def renaming(self, statement: Statement) -> Statement:
        """A statement with the results' own names."""

        def renamed(access: Access) -> Access:
            return replace(access, tensor=self.renamed.get(access.tensor, access.tensor))

        epilogue = statement.epilogue
        if epilogue is not None:
            value = mapped(epilogue.value, lambda access: Read(renamed(access)))
            epilogue = replace(epilogue, value=value)
        factors = tuple(map(renamed, statement.factors))
        return Statement(renamed(statement.target), factors, epilogue)
