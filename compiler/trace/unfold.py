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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, count
from math import prod
from typing import Any

import numpy as np

from ..access import Access
from ..affine import Affine
from ..errors import EinsumError
from ..formula import CONTRACTED, Apply, Constant, Read, Value, accesses_of
from ..program import Epilogue, Program, Statement, Tensor, bounds
from ..records import dataclass, replace
from ..resolve import resolve
from .axes import At, Atom, Atoms, axis, coarser, plus, refined, regrouped, times
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
    Slice,
    Sum,
    Transpose,
    positions,
    sizes,
)
from .location import TraceError
from .number import Number, Shapes, number_of
from .trace import Trace

__all__ = ["Parameter", "Result", "Unfolded", "unfold"]

_LETTERS = "ijklmnopqrstuvwxyzabcdefgh"
_BOOL = np.dtype(bool)
_ONE = "one"


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
class Parameter:
    """A number that every call has its own of, as an operand without axes.

    Attributes:
        number: follows from numbers among the arguments.
        dtype: in which it is computed with.
    """

    number: Number
    dtype: np.dtype[Any]

    def array(self, known: Shapes) -> np.ndarray[Any, Any]:
        """The operand for these arguments."""
        return np.asarray(self.number.value(known)).astype(self.dtype)


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


@dataclass(frozen=True, slots=True)
class _Lowered:
    """What a node is.

    Attributes:
        dtype: of the elements.
        axes: its axes' atoms.
        at: the formula of an element, by where each axis is read.
        computes: the dtype that the formula computes in; None if it only reads.
        is_tensor: whether it is a whole tensor, each axis of which is one of its own.
    """

    dtype: np.dtype[Any]
    axes: tuple[Atoms, ...]
    at: Callable[[Sequence[At]], Value]
    computes: np.dtype[Any] | None = None
    is_tensor: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(atom.extent for atom in atoms) for atoms in self.axes)


class _Unfolding:
    """The state of one unfolding."""

    def __init__(self, trace: Trace, known: Shapes, names: Sequence[str]) -> None:
        self.trace, self.known = trace, known
        self.nodes = trace.needed
        self.uses = Counter(
            chain(chain.from_iterable(node.arrays for node in self.nodes), trace.results)
        )
        self.tensors: dict[str, Tensor] = {}
        self.statements: list[Statement] = []
        self.extents: dict[str, int] = {}
        self.values: dict[Node, _Lowered] = {}
        self.inputs = [names[number] for number in trace.signature.same]
        self.constants: list[np.ndarray[Any, Any] | Parameter] = []
        self.parameters: dict[tuple[int, np.dtype[Any]], _Lowered] = {}
        self.names = names
        self.taken = {*names}
        self.fresh = (f"t{n}" for n in count())
        self.renamed: dict[str, str] = {}  # tensors that are results

    def run(self) -> Unfolded:
        for node in self.nodes:
            try:
                lowered = self.lower(node)
                if self.uses[node] > 1 and not self.is_plain(lowered):
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

    def lower(self, node: Node) -> _Lowered:
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
                return self.contract(node, node.operation, given)
            case Sum(axes):
                return self.sum(given[0], axes, node.dtype)
            case Transpose(axes):
                return _transposed(given[0], axes)
            case Diagonal():
                return self.diagonal(given[0], node.operation)
            case Index(items):
                return self.index(given[0], items)
            case Reshape():
                return _reshaped(given[0], self.known[node])
            case Broadcast():
                return _broadcast(given[0], self.known[node])

    def operand(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Lowered:
        """A tensor whose axes are those of an array."""
        self.tensors.setdefault(name, Tensor(name, shape, _element(dtype)))

        def at(places: Sequence[At]) -> Value:
            return Read(Access(name, tuple(sub for (sub,) in (place or _ZERO for place in places))))

        axes = tuple(axis(extent) for extent in shape)
        return _Lowered(dtype, axes, at, is_tensor=True)

    def literal(self, array: np.ndarray[Any, Any], dtype: np.dtype[Any], name: str) -> _Lowered:
        """An array as a hidden operand."""
        return self.hidden(array, array.shape, dtype, name)

    def number(self, number: Any, dtype: np.dtype[Any]) -> _Lowered:
        """A number: a constant, or a hidden operand if it is another one in each call."""
        if not isinstance(number, Number) or not number.given:
            constant = Constant(_plain(number_of(number, self.known)))
            return _Lowered(dtype, (), lambda at: constant)
        key = id(number), dtype
        if key not in self.parameters:
            name = f"c{len(self.constants)}"
            self.parameters[key] = self.hidden(Parameter(number, dtype), (), dtype, name)
        return self.parameters[key]

    def hidden(
        self,
        value: np.ndarray[Any, Any] | Parameter,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str,
    ) -> _Lowered:
        """A hidden operand, of a name that no other tensor has."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        self.inputs.append(name)
        self.constants.append(value)
        return self.operand(name, shape, dtype)

    def elementwise(self, node: Node, operation: Elementwise) -> _Lowered:
        """A function of elements."""
        given = []
        for argument, dtype in zip(node.arguments, operation.loop, strict=True):
            if isinstance(argument, Node):
                given.append(self.typed(self.values[argument], dtype))
            else:
                given.append(self.number(argument, dtype))
        computes = operation.loop[-1]
        if computes == _BOOL:  # in whatever the comparisons in it compute
            computes = next((v.computes for v in given if v.computes not in (None, _BOOL)), _BOOL)
        given = [
            value if value.computes in (None, _BOOL, computes) else self.stored(value)
            for value in given
        ]
        axes = _together(given, node.rank)

        def at(places: Sequence[At]) -> Value:
            return Apply(operation.function, tuple(_read(v, places, axes) for v in given))

        return _Lowered(node.dtype, axes, at, computes)

    def contract(self, node: Node, operation: Contract, given: Sequence[_Lowered]) -> _Lowered:
        """An einsum."""
        shapes = [value.shape for value in given]
        expression = resolve(operation.subscripts, shapes, operation.given)
        terms, output, extents = expression.inputs, expression.output, expression.sizes
        plain = Access("", output).is_plain
        parts: dict[str, Atoms] = {}
        for name, extent in expression.extents:
            uses = (
                value.axes[place]
                for value, term in zip(given, terms, strict=True)
                for place, each in enumerate(term)
                if each is not None and each == Affine.index(name)
            )
            parts[name] = tuple(
                replace(atom, name=name if _is_name(name) and len(atoms) == 1 else atom.name)
                for atoms in [refined(uses) or axis(extent)]
                for atom in atoms
            )
        kept = [name for each in output for name in each.names]
        is_view = len(given) == 1 and plain and parts.keys() <= {*kept}
        if is_view and not _leaving(terms[0], given[0].shape, extents):

            def at(where: Sequence[At]) -> Value:
                named = dict(zip(kept, where, strict=True))
                return _read_term(terms[0], named, parts, given[0])

            axes = tuple(parts[name] for name in kept)
            return _Lowered(node.dtype, axes, at, given[0].computes)
        indices = _Indices(self.extents)
        places = {name: indices.new(atoms) for name, atoms in parts.items()}
        factors: list[Access] = []
        for value, term in zip(given, terms, strict=True):
            value = self.windowed(value, term, extents)
            factors += self.factors(value, partial(_read_term, term, places, parts))
        if plain:
            atoms = [parts[name] for name in kept]
            return self.written(atoms, [places[name] for name in kept], factors, node.dtype)
        target = tuple(_position(each, places, parts) for each in output)
        return self.scattered(target, expression.output_shape, factors, node.dtype)

    def windowed(
        self, value: _Lowered, term: Sequence[Affine | None], extents: Mapping[str, int]
    ) -> _Lowered:
        """A value that is zero wherever an operand's term reads outside of it: a copy if need be.

        A tensor is zero outside, but not what a slice of it leaves out, nor most formulas. An axis
        that was merged of several has no windows of its own.
        """
        for each, atoms in zip(term, value.axes, strict=True):
            if each is not None and not each.is_index and len(atoms) > 1:
                return self.framed(value)
        leaving = _leaving(term, value.shape, extents)
        if not leaving or value.is_tensor:
            return value
        markers = [
            tuple(Affine.index(f"{axis}.{n}") for n, _ in enumerate(atoms))
            for axis, atoms in enumerate(value.axes)
        ]
        factors = _product(value.at(markers)) or ()
        whole = {
            sub
            for factor in factors
            for sub, extent in zip(factor.subscripts, self.tensors[factor.tensor].axes, strict=True)
            for axis in leaving
            if markers[axis] == (sub,) and value.shape[axis] == extent
        }
        if all(whole.issuperset(markers[axis]) and markers[axis] for axis in leaving):
            return value
        return self.framed(value)

    def framed(self, value: _Lowered) -> _Lowered:
        """A value as a tensor that has all of its axes, those of extent 1 too."""
        indices = _Indices(self.extents)
        places = [indices.new(atoms) for atoms in value.axes]
        factors = self.factors(value, lambda each: each.at(places))
        target = tuple(
            coarser(place, atoms, axis(extent))[0] if atoms else indices.new((Atom(1),))[0]
            for place, atoms, extent in zip(places, value.axes, value.shape, strict=True)
        )
        return self.scattered(target, value.shape, factors, value.dtype)

    def scattered(
        self,
        places: tuple[Affine, ...],
        shape: tuple[int, ...],
        factors: Sequence[Access],
        dtype: np.dtype[Any],
    ) -> _Lowered:
        """Write a statement whose target has these axes, which may be sums of indices."""
        name = next(each for each in self.fresh if each not in self.taken)
        self.tensors[name] = Tensor(name, shape, _element(dtype, wide=True))
        self.statements.append(Statement(Access(name, places), tuple(factors)))
        return self.operand(name, shape, dtype)

    def factors(self, value: _Lowered, read: Callable[[_Lowered], Value]) -> tuple[Access, ...]:
        """The tensors whose product a value is; one that is no product becomes a tensor."""
        found = _product(read(value))
        return found or _product(read(self.stored(value))) or ()

    def sum(self, value: _Lowered, summed: Sequence[int], dtype: np.dtype[Any]) -> _Lowered:
        """A sum over axes, in the dtype that the value has."""
        indices = _Indices(self.extents)
        places = [indices.new(atoms) for atoms in value.axes]
        formula = value.at(places)
        kept = [n for n in range(len(value.axes)) if n not in summed]
        names = {name for access in accesses_of(formula) for name in access.names}
        over, times_over = [], 1
        for n in summed:
            for sub, atom in zip(places[n], value.axes[n], strict=True):
                if sub.names[0] in names:
                    over.append(sub.names[0])
                else:  # every element is the same
                    times_over *= atom.extent
        if times_over != 1 and value.computes is None:
            value = replace(value, computes=dtype)
        if times_over != 1:
            formula = Apply("multiply", (formula, Constant(times_over)))
        axes, at = [value.axes[n] for n in kept], [places[n] for n in kept]
        return self.written(axes, at, formula, dtype, tuple(over))

    def typed(self, value: _Lowered, dtype: np.dtype[Any]) -> _Lowered:
        """The same in another dtype."""
        if value.dtype == dtype:
            return value
        if dtype == _BOOL:
            zero = Constant(0)
            return _Lowered(
                dtype,
                value.axes,
                lambda at: Apply("not_equal", (value.at(at), zero)),
                value.computes or value.dtype,
            )
        formula = value.at([tuple(Affine(()) for _ in atoms) for atoms in value.axes])
        if isinstance(formula, Constant):
            number = _plain(np.asarray(formula.number).astype(dtype)[()])
            return _Lowered(dtype, value.axes, lambda at: Constant(number))
        if value.dtype == _BOOL:
            if value.computes not in (None, dtype):
                value = self.stored(value)
            numbers = Constant(1), Constant(0)
            source = value
            return _Lowered(
                dtype, value.axes, lambda at: Apply("where", (source.at(at), *numbers)), dtype
            )
        if value.computes is not None:
            value = self.stored(value)
        return self.stored(replace(value, dtype=dtype))

    # --- views that need positions ---

    def diagonal(self, value: _Lowered, operation: Diagonal) -> _Lowered:
        first, second, offset = operation.first, operation.second, operation.offset
        shape = value.shape
        rows, columns = shape[first], shape[second]
        length = min(rows + min(offset, 0), columns - max(offset, 0))
        rest = [n for n in range(len(shape)) if n not in (first, second)]

        def at(places: Sequence[At]) -> Value:
            full: list[At] = [()] * len(shape)
            for n, place in zip(rest, places, strict=False):
                full[n] = place
            for n, begin in ((first, max(-offset, 0)), (second, max(offset, 0))):
                full[n] = _one_place(places[-1], begin, 1, value.axes[n])
            return value.at(full)

        axes = (*(value.axes[n] for n in rest), axis(max(length, 0)))
        return _Lowered(value.dtype, axes, at, value.computes)

    def index(self, value: _Lowered, items: Sequence[Any]) -> _Lowered:
        axes: list[Atoms] = []
        reads: list[Callable[[Sequence[At]], At]] = []
        left = iter(value.axes)
        for item in items:
            if item is None:
                axes.append(())
                continue
            atoms = next(left)
            extent = prod(atom.extent for atom in atoms)
            if isinstance(item, Slice):
                made, read = _slice(positions(item, extent, self.known), atoms, len(axes))
                axes.append(made)
                reads.append(read)
            else:
                fixed = _fixed(sizes((item,), self.known)[0] % extent, atoms)
                reads.append(lambda places, fixed=fixed: fixed)  # type: ignore[misc]

        def at(places: Sequence[At]) -> Value:
            return value.at([read(places) for read in reads])

        return _Lowered(value.dtype, tuple(axes), at, value.computes)

    # --- statements ---

    def is_plain(self, value: _Lowered) -> bool:
        """Whether a value is read from a tensor, or is a number."""
        return value.computes is None

    def stored(self, value: _Lowered) -> _Lowered:
        """A value as a tensor."""
        indices = _Indices(self.extents)
        places = [indices.new(atoms) for atoms in value.axes]
        return self.written(value.axes, places, value.at(places), value.dtype)

    def written(
        self,
        axes: Sequence[Atoms],
        places: Sequence[At],
        value: Value | Sequence[Access],
        dtype: np.dtype[Any],
        over: tuple[str, ...] = (),
        name: str | None = None,
    ) -> _Lowered:
        """Write a statement: a product of factors, or a formula summed over indices."""
        if name is None:
            name = next(each for each in self.fresh if each not in self.taken)
        target = Access(name, tuple(sub for place in places for sub in place))
        shape = tuple(atom.extent for atoms in axes for atom in atoms)
        self.tensors[name] = Tensor(name, shape, _element(dtype, wide=True))
        self.statements.append(self.statement(target, value, over))

        def at(where: Sequence[At]) -> Value:
            return Read(Access(name, tuple(sub for place in where for sub in place)))

        names = iter(sub.names[0] for sub in target.subscripts)
        named = tuple(tuple(replace(atom, name=next(names)) for atom in atoms) for atoms in axes)
        return _Lowered(dtype, named, at)

    def statement(
        self, target: Access, value: Value | Sequence[Access], over: tuple[str, ...]
    ) -> Statement:
        if isinstance(value, Sequence):
            return Statement(target, tuple(value))
        product = _product(value)
        if product:
            return Statement(target, product)
        reads = list(accesses_of(value))
        if not reads:
            return Statement(target, (self.one(),), Epilogue(value, over))
        main = max(reads, key=lambda access: len(access.names))  # the first, if equal
        return Statement(target, (main,), Epilogue(_without(value, main), over))

    def one(self) -> Access:
        """Something to compute a formula from that reads no tensor."""
        if _ONE not in self.tensors:
            self.literal(np.ones((), np.float32), np.dtype("f4"), _ONE)
        return Access(_ONE, ())

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
        indices = _Indices(self.extents)
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
        self.tensors[tensor] = replace(self.tensors[tensor], element=_element(node.dtype))
        extents = tuple(atom.extent for atoms in value.axes for atom in atoms)
        return Result(name, shape, node.dtype, extents, tuple(order))

    def own(self, formula: Value, parts: Sequence[Affine], dtype: np.dtype[Any]) -> Access | None:
        """The access that a result is, if it is a whole tensor that no other result is."""
        if not isinstance(formula, Read) or formula.access.tensor in (*self.renamed, *self.inputs):
            return None
        tensor = formula.access.tensor
        if self.tensors[tensor].element != _element(dtype) and any(
            access.tensor == tensor for each in self.statements for access in each.accesses
        ):  # a result is rounded; the others read what it was before
            return None
        whole = sorted(map(str, formula.access.subscripts)) == sorted(map(str, parts))
        return formula.access if whole else None

    def renaming(self, statement: Statement) -> Statement:
        """A statement with the results' own names."""

        def renamed(access: Access) -> Access:
            return replace(access, tensor=self.renamed.get(access.tensor, access.tensor))

        epilogue = statement.epilogue
        if epilogue is not None:
            value = _mapped(epilogue.value, lambda access: Read(renamed(access)))
            epilogue = replace(epilogue, value=value)
        factors = tuple(map(renamed, statement.factors))
        return Statement(renamed(statement.target), factors, epilogue)


class _Indices:
    """Names for the indices of one statement.

    An index of the same name has the same extent everywhere in a program.
    """

    def __init__(self, extents: dict[str, int]) -> None:
        self._extents = extents
        self._used: set[str] = set()

    def new(self, atoms: Atoms) -> At:
        """Indices of these extents, with the atoms' names if they are free."""
        return tuple(Affine.index(self._name(atom)) for atom in atoms)

    def _name(self, atom: Atom) -> str:
        numbered = (f"{atom.name or letter}{n}" for n in count(1) for letter in _LETTERS)
        for name in chain([atom.name] if atom.name else _LETTERS, numbered):
            if name in self._used or self._extents.get(name, atom.extent) != atom.extent:
                continue
            self._used.add(name)
            self._extents[name] = atom.extent
            return name
        raise AssertionError


# --- views ----------------------------------------------------------------------------------------

_ZERO: At = (Affine(()),)


def _transposed(value: _Lowered, axes: Sequence[int]) -> _Lowered:
    def at(places: Sequence[At]) -> Value:
        return value.at([places[axes.index(n)] for n in range(len(axes))])

    return replace(value, axes=tuple(value.axes[n] for n in axes), at=at)


def _reshaped(value: _Lowered, shape: Sequence[int]) -> _Lowered:
    axes = regrouped(value.axes, shape)
    fine = tuple(chain.from_iterable(axes))
    coarse = tuple(chain.from_iterable(value.axes))

    def at(places: Sequence[At]) -> Value:
        subs = iter(coarser(tuple(chain.from_iterable(places)), fine, coarse))
        return value.at([tuple(next(subs) for _ in atoms) for atoms in value.axes])

    return _Lowered(value.dtype, axes, at, value.computes)


def _broadcast(value: _Lowered, shape: Sequence[int]) -> _Lowered:
    new = len(shape) - len(value.axes)
    axes = tuple(
        value.axes[n - new] if n >= new and value.axes[n - new] else axis(extent)
        for n, extent in enumerate(shape)
    )
    return _Lowered(value.dtype, axes, lambda places: _read(value, places, axes), value.computes)


def _together(values: Sequence[_Lowered], rank: int) -> tuple[Atoms, ...]:
    """The axes of an array of so many axes to which these broadcast."""
    return tuple(
        refined(value.axes[-place] for value in values if place <= len(value.axes))
        for place in range(rank, 0, -1)
    )


def _read(value: _Lowered, places: Sequence[At], axes: Sequence[Atoms]) -> Value:
    """An element of a value that broadcasts to these axes."""
    new = len(axes) - len(value.axes)
    return value.at(
        [
            coarser(place, fine, coarse) if coarse else ()
            for place, fine, coarse in zip(places[new:], axes[new:], value.axes, strict=True)
        ]
    )


def _read_term(
    term: Sequence[Affine | None],
    places: Mapping[str, At],
    parts: Mapping[str, Atoms],
    value: _Lowered,
) -> Value:
    """An element of an operand of an einsum."""
    at: list[At] = []
    for each, atoms in zip(term, value.axes, strict=True):
        if each is None or (not atoms and (each.is_index or not value.is_tensor)):
            at.append(())
        elif each.is_index:
            at.append(coarser(places[each.names[0]], parts[each.names[0]], atoms))
        else:
            at.append((_position(each, places, parts),))
    return value.at(at)


def _position(each: Affine, places: Mapping[str, At], parts: Mapping[str, Atoms]) -> Affine:
    """Where a sum of an einsum's indices is, each of which may be several indices or none."""
    position = Affine((), each.constant)
    for name, factor in each.terms:
        atoms = parts[name]
        if atoms:
            (whole,) = coarser(places[name], atoms, axis(prod(atom.extent for atom in atoms)))
            position = plus(position, times(whole, factor))
    return position


def _leaving(
    term: Sequence[Affine | None], shape: Sequence[int], extents: Mapping[str, int]
) -> list[int]:
    """The axes of an operand that its term leaves."""
    found = []
    for number, (each, extent) in enumerate(zip(term, shape, strict=True)):
        if each is not None and not each.is_index and all(extents[name] for name in each.names):
            low, high = bounds(each, extents)
            if low < 0 or high >= extent:
                found.append(number)
    return found


def _slice(part: range, atoms: Atoms, number: int) -> tuple[Atoms, Callable[[Sequence[At]], At]]:
    """The atoms of a slice that is axis `number` of its array, and where it is read."""
    if part == range(prod(atom.extent for atom in atoms)):
        return atoms, lambda places: places[number]
    if len(part) == 1:
        fixed = _fixed(part[0], atoms)
        return (), lambda places: fixed
    if len(atoms) > 1 and part == range(prod(atom.extent for atom in atoms))[::-1]:
        return atoms, lambda places: _reversed(places[number], atoms)
    if len(atoms) > 1 and len(part):
        raise EinsumError("a part of an axis that was merged of several cannot be taken")
    name = atoms[0].name if len(atoms) == 1 else None
    begin, step = (part.start, part.step) if len(part) else (0, 1)
    return axis(len(part), name), lambda places: _one_place(places[number], begin, step, atoms)


def _one_place(place: At, begin: int, step: int, atoms: Atoms) -> At:
    """Where an axis is read at a multiple of another one, from a position on."""
    if not place:
        return _fixed(begin, atoms)
    if len(atoms) != 1:  # nothing is read: the other axis is empty
        return tuple(place[0] if n == 0 else Affine(()) for n, _ in enumerate(atoms))
    return (plus(Affine((), begin), times(place[0], step)),)


def _reversed(place: At, atoms: Atoms) -> At:
    """Where an axis is read that is walked backwards: so are all its atoms."""
    return tuple(
        plus(Affine((), atom.extent - 1), times(sub, -1))
        for sub, atom in zip(place, atoms, strict=True)
    )


def _fixed(position: int, atoms: Atoms) -> At:
    """One position of an axis."""
    subs: list[Affine] = []
    for atom in reversed(atoms):
        position, place = divmod(position, atom.extent)
        subs.insert(0, Affine((), place))
    return tuple(subs)


# --- formulas -------------------------------------------------------------------------------------


def _product(value: Value) -> tuple[Access, ...] | None:
    """The tensors whose product a formula is; None if it is anything else."""
    match value:
        case Read(access):
            return (access,)
        case Apply("multiply", (first, second)):
            left, right = _product(first), _product(second)
            return None if left is None or right is None else (*left, *right)
    return None


def _without(value: Value, main: Access) -> Value:
    """A formula in which the sum takes the place of a tensor."""
    return _mapped(value, lambda access: CONTRACTED if access == main else Read(access))


def _mapped(value: Value, change: Callable[[Access], Value]) -> Value:
    match value:
        case Read(access):
            return change(access)
        case Apply(function, arguments):
            return Apply(function, tuple(_mapped(each, change) for each in arguments))
    return value


def _plain(number: Any) -> Any:
    """A number as Python has it."""
    return number.item() if isinstance(number, np.generic) else number


def _element(dtype: np.dtype[Any], wide: bool = False) -> str:
    """What kernels call a dtype; sums of halves are kept in single precision."""
    if wide and dtype == np.float16:
        return "f4"
    return f"{dtype.kind}{dtype.itemsize}"


def _is_name(name: str) -> bool:
    return name.isidentifier() or len(name) == 1
