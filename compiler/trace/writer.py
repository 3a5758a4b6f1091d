"""The program in the making: its tensors and statements, and what an unfolding writes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, count
from typing import Any, TypeVar

import numpy as np

from ..access import Access
from ..affine import Affine
from ..formula import Apply, Constant, Read, Value, accesses_of
from ..program import Epilogue, Statement, Tensor
from ..records import dataclass, replace
from .axes import At, Atom, Atoms, axis, coarser
from .lowered import BOOL, ZERO, Indices, Lowered, element, number_in_python, product, without
from .number import Number, Shapes, number_of

__all__ = ["Parameter", "Writer"]

_ONE = "one"

_T = TypeVar("_T")


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


class Writer:
    """What has been written of a program.

    Args:
        known: the sizes of what the program is for.
        names: of its operands.
        inputs: the names of those that differ, in their order.
    """

    def __init__(self, known: Shapes, names: Sequence[str], inputs: Sequence[str]) -> None:
        self.known = known
        self.tensors: dict[str, Tensor] = {}
        self.statements: list[Statement] = []
        self.extents: dict[str, int] = {}
        self.inputs = [*inputs]
        self.constants: list[np.ndarray[Any, Any] | Parameter] = []
        self.parameters: dict[tuple[int, np.dtype[Any]], Lowered] = {}
        self.taken = {*names}
        self.fresh = (f"t{n}" for n in count())

    # --- operands ---

    def operand(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Lowered:
        """A tensor whose axes are those of an array."""
        self.tensors.setdefault(name, Tensor(name, shape, element(dtype)))

        def at(places: Sequence[At]) -> Value:
            return Read(Access(name, tuple(sub for (sub,) in (place or ZERO for place in places))))

        axes = tuple(axis(extent) for extent in shape)
        return Lowered(dtype, axes, at, is_tensor=True)

    def literal(self, array: np.ndarray[Any, Any], dtype: np.dtype[Any], name: str) -> Lowered:
        """An array as a hidden operand."""
        return self.hidden(array, array.shape, dtype, name)

    def number(self, number: Any, dtype: np.dtype[Any]) -> Lowered:
        """A number: a constant, or a hidden operand if it is another one in each call."""
        if not isinstance(number, Number) or not number.given:
            constant = Constant(number_in_python(number_of(number, self.known)))
            return Lowered(dtype, (), lambda at: constant)
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
    ) -> Lowered:
        """A hidden operand, of a name that no other tensor has."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        self.inputs.append(name)
        self.constants.append(value)
        return self.operand(name, shape, dtype)

    # --- statements ---

    def stored(self, value: Lowered) -> Lowered:
        """A value as a tensor."""
        indices = Indices(self.extents)
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
    ) -> Lowered:
        """Write a statement: a product of factors, or a formula summed over indices.

        The tensor has no axes along which all is the same, unless it has a name.
        """
        reads = value if isinstance(value, Sequence) else accesses_of(value)
        read = {index for access in reads for index in access.names}
        has = [
            tuple(name is not None or not read.isdisjoint(sub.names) for sub in place)
            for place in places
        ]

        def of_tensor(several: Iterable[Iterable[_T]]) -> Iterator[_T]:
            return (
                each
                for parts, flags in zip(several, has, strict=True)
                for each in compress(parts, flags)
            )

        if name is None:
            name = next(each for each in self.fresh if each not in self.taken)
        target = Access(name, tuple(of_tensor(places)))
        shape = tuple(atom.extent for atom in of_tensor(axes))
        self.tensors[name] = Tensor(name, shape, element(dtype, wide=True))
        self.statements.append(self.statement(target, value, over))
        named = tuple(
            tuple(replace(atom, name=sub.names[0]) for atom, sub in zip(atoms, place, strict=True))
            for atoms, place in zip(axes, places, strict=True)
        )
        return Lowered(dtype, named, lambda where: Read(Access(name, tuple(of_tensor(where)))))

    def statement(
        self, target: Access, value: Value | Sequence[Access], over: tuple[str, ...]
    ) -> Statement:
        """A product of factors, or a formula that is summed over some indices."""
        if isinstance(value, Sequence):
            return Statement(target, tuple(value))
        factors = product(value)
        if factors:
            return Statement(target, factors)
        reads = list(accesses_of(value))
        if not reads:
            return Statement(target, (self.one(),), Epilogue(value, over))
        main = max(reads, key=lambda access: len(access.names))  # the first, if equal
        return Statement(target, (main,), Epilogue(without(value, main), over))

    def one(self) -> Access:
        """Something to compute a formula from that reads no tensor."""
        if _ONE not in self.tensors:
            self.literal(np.ones((), np.float32), np.dtype("f4"), _ONE)
        return Access(_ONE, ())

    def scattered(
        self,
        places: tuple[Affine, ...],
        shape: tuple[int, ...],
        factors: Sequence[Access],
        dtype: np.dtype[Any],
    ) -> Lowered:
        """Write a statement whose target has these axes, which may be sums of indices."""
        name = next(each for each in self.fresh if each not in self.taken)
        self.tensors[name] = Tensor(name, shape, element(dtype, wide=True))
        self.statements.append(Statement(Access(name, places), tuple(factors)))
        return self.operand(name, shape, dtype)

    def framed(self, value: Lowered) -> Lowered:
        """A value as a tensor that has all of its axes, those of extent 1 too."""
        indices = Indices(self.extents)
        places = [indices.new(atoms) for atoms in value.axes]
        factors = self.factors(value, lambda each: each.at(places))
        target = tuple(
            coarser(place, atoms, axis(extent))[0] if atoms else indices.new((Atom(1),))[0]
            for place, atoms, extent in zip(places, value.axes, value.shape, strict=True)
        )
        return self.scattered(target, value.shape, factors, value.dtype)

    def factors(self, value: Lowered, read: Callable[[Lowered], Value]) -> tuple[Access, ...]:
        """The tensors whose product a value is; one that is no product becomes a tensor."""
        found = product(read(value))
        return found or product(read(self.stored(value))) or ()

    def sum(self, value: Lowered, summed: Sequence[int], dtype: np.dtype[Any]) -> Lowered:
        """A sum over axes, in the dtype that the value has."""
        indices = Indices(self.extents)
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
        axes, at = [value.axes[n] for n in kept], [places[n] for n in kept]
        return self.repeated(self.written(axes, at, formula, dtype, tuple(over)), times_over)

    def repeated(self, value: Lowered, times: int) -> Lowered:
        """The sum of a value with itself, so many times; that of none is zero, not a product.

        >>> import numpy as np
        >>> writer = Writer({}, ["a"], ["a"])
        >>> value = writer.operand("a", (3,), np.dtype("i1"))
        >>> print(writer.repeated(value, 300).at([(Affine.index("i"),)]).text(""))
        a[i] * 44
        """
        dtype, axes = value.dtype, value.axes
        if times == 1 or (times and dtype == BOOL):
            return value
        if not times:
            return Lowered(dtype, axes, lambda at: Constant(0))
        number = Constant(int(np.asarray(times).astype(dtype)) if dtype.kind in "iu" else times)
        return Lowered(
            dtype, axes, lambda at: Apply("multiply", (value.at(at), number)), computes=dtype
        )

    def typed(self, value: Lowered, dtype: np.dtype[Any]) -> Lowered:
        """The same in another dtype."""
        if value.dtype == dtype:
            return value
        if dtype == BOOL:
            zero = Constant(0)
            return Lowered(
                dtype,
                value.axes,
                lambda at: Apply("not_equal", (value.at(at), zero)),
                value.computes or value.dtype,
            )
        formula = value.at([tuple(Affine(()) for _ in atoms) for atoms in value.axes])
        if isinstance(formula, Constant):
            number = number_in_python(np.asarray(formula.number).astype(dtype)[()])
            return Lowered(dtype, value.axes, lambda at: Constant(number))
        if value.dtype == BOOL:
            if value.computes not in (None, dtype):
                value = self.stored(value)
            numbers = Constant(1), Constant(0)
            source = value
            return Lowered(
                dtype, value.axes, lambda at: Apply("where", (source.at(at), *numbers)), dtype
            )
        if value.computes is not None:
            value = self.stored(value)
        return self.stored(replace(value, dtype=dtype))
