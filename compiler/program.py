"""The program IR: statements, each a sum of products of tensor accesses.

    t0[i,k] = sum_j a[i,j] * b[j,k]
    out[i,l] = sum_k t0[i,k] * c[k,l]

An equation is a program of one statement, and factorizing it makes several. An operand is a name:
the same array given twice is one tensor that is read at two places. An *epilogue* is what happens
to the sum before it is written, while it is in registers:

    out[n] = sum_{i,j} square(sum_t a[n,t,i] * b[n,t,j])

A map such as `out[i] = exp(a[i])` is the sum of one product of one factor with an epilogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain, count
from typing import Any, cast

import numpy as np

from .access import Access
from .affine import Affine
from .formula import Value, accesses_of, value_of, with_accesses
from .records import dataclass, field, replace
from .subscripts import Expression

__all__ = [
    "Access",
    "Epilogue",
    "Program",
    "Statement",
    "Tensor",
    "VerificationError",
    "bounds",
    "evaluate",
    "evaluate_all",
    "evaluate_statement",
    "from_expression",
    "scattered",
    "verify_program",
]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An operand, an intermediate or a result; `axes` is its shape.

    `element` is the type of its elements, such as `f4`, where it is not that of all others.
    """

    name: str
    axes: tuple[int, ...]
    element: str | None = None


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What becomes of a contraction's result before it is written.

    `value` is a formula of the sum, which is `CONTRACTED` in it, and of tensors at indices that
    are not summed in the contraction. It is summed over the indices `over`.
    `symmetric`: the contraction is of a tensor with itself, and to exchange the indices that its
    factors exchange changes nothing of what the formula reads.
    """

    value: Value
    over: tuple[str, ...] = ()
    symmetric: bool = False


@dataclass(frozen=True, slots=True)
class Statement:
    """The target is the product of the factors, summed over the indices that it does not have.

    With an epilogue, the factors are contracted first, over the indices `contracted`, and what the
    target gets is the epilogue's formula of that, summed over the epilogue's indices.

    >>> a, b = (Access(name, (Affine.index("i"), Affine.index("j"))) for name in "ab")
    >>> statement = Statement(Access("out", (Affine.index("i"),)), (a, b))
    >>> print(statement)
    out[i] = sum_j a[i,j] * b[i,j]
    >>> statement.kept, statement.reduced
    (('i',), ('j',))
    >>> from .formula import CONTRACTED, Apply
    >>> square = Apply("multiply", (CONTRACTED, CONTRACTED))
    >>> norm = Statement(Access("out", ()), (a, b), Epilogue(square, ("i",)))
    >>> print(norm)
    out = sum_i square(sum_j a[i,j] * b[i,j])
    >>> norm.reduced, norm.contracted
    (('i', 'j'), ('j',))
    """

    target: Access
    factors: tuple[Access, ...]
    epilogue: Epilogue | None = None
    _accesses: tuple[Access, ...] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    _indices: tuple[str, ...] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def kept(self) -> tuple[str, ...]:
        """The indices of the target, in its order."""
        return self.target.names

    @property
    def reduced(self) -> tuple[str, ...]:
        """The indices that are summed over, in the order of their first use."""
        return self.indices[len(self.kept) :]

    @property
    def contracted(self) -> tuple[str, ...]:
        """The indices over which the product of the factors is summed, before any epilogue."""
        over = self.epilogue.over if self.epilogue else ()
        return tuple(index for index in self.reduced if index not in over)

    @property
    def accesses(self) -> tuple[Access, ...]:
        """Every read of a tensor: the factors, then those of the epilogue."""
        if self._accesses is None:
            read = accesses_of(self.epilogue.value) if self.epilogue else ()
            object.__setattr__(self, "_accesses", (*self.factors, *read))
        return cast("tuple[Access, ...]", self._accesses)

    @property
    def indices(self) -> tuple[str, ...]:
        """The kept indices, then the reduced ones."""
        if self._indices is None:
            names = dict.fromkeys(self.target.names)
            for access in self.accesses:
                names.update(dict.fromkeys(access.names))
            object.__setattr__(self, "_indices", tuple(names))
        return cast("tuple[str, ...]", self._indices)

    def with_accesses(self, made: Callable[[Access], Access]) -> Statement:
        """The same of other tensors, or of the same ones at other places, target included.

        >>> a, out = (Access(name, (Affine.index("i"),)) for name in ("a", "out"))
        >>> print(Statement(out, (a,)).with_accesses(lambda at: replace(at, tensor=at.tensor * 2)))
        outout[i] = aa[i]
        """
        epilogue = self.epilogue
        if epilogue is not None:
            epilogue = replace(epilogue, value=with_accesses(epilogue.value, made))
        return Statement(made(self.target), tuple(map(made, self.factors)), epilogue)

    def __str__(self) -> str:
        product = f"{_sum(self.contracted)}{' * '.join(map(str, self.factors))}"
        if self.epilogue is None:
            return f"{self.target} = {product}"
        return f"{self.target} = {_sum(self.epilogue.over)}{self.epilogue.value.text(product)}"


def _sum(indices: Sequence[str]) -> str:
    names = ",".join(indices)
    return f"sum_{{{names}}} " if "," in names else f"sum_{names} " if names else ""


@dataclass(frozen=True, slots=True)
class Program:
    """Statements in the order of execution, and what their names mean.

    `inputs` has a name for each operand, the same one twice where they are the same array;
    `results` are the tensors to compute, one for an equation.
    `extents` has every index of every statement.

    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("ij,jk->ik"), [(2, 3), (3, 4)]))
    >>> print(program)
    out[i,k] = sum_j a[i,j] * b[j,k]
    >>> program.shapes, program.sizes
    ({'a': (2, 3), 'b': (3, 4), 'out': (2, 4)}, {'i': 2, 'j': 3, 'k': 4})
    """

    tensors: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    statements: tuple[Statement, ...]
    results: tuple[str, ...]
    extents: tuple[tuple[str, int], ...]

    @property
    def result(self) -> str:
        """The one result of an equation."""
        (name,) = self.results
        return name

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {tensor.name: tensor.axes for tensor in self.tensors}

    @property
    def sizes(self) -> dict[str, int]:
        """The extent of each index."""
        return dict(self.extents)

    def fresh_names(self) -> Iterator[str]:
        """Names for intermediates: `t0`, `t1` and so on, but for those that are taken."""
        taken = self.shapes
        return (name for name in map("t{}".format, count()) if name not in taken)

    def with_statements(self, statements: Sequence[Statement]) -> Program:
        """The same program computed in other steps.

        A target that is no tensor yet becomes one, as long on each axis as the index there.
        """
        shapes, sizes = self.shapes, self.sizes
        made = tuple(
            Tensor(target.tensor, tuple(sizes[name] for name in target.names))
            for target in (statement.target for statement in statements)
            if target.tensor not in shapes
        )
        return replace(self, tensors=(*self.tensors, *made), statements=tuple(statements))

    def __str__(self) -> str:
        return "\n".join(map(str, self.statements))


def from_expression(
    expression: Expression,
    names: Sequence[str] | None = None,
    same: Sequence[int] | None = None,
) -> Program:
    """The program of one statement that an equation is.

    Args:
        expression: the equation; it must not repeat an index of the output.
        names: a name for each operand; by default `a`, `b` and so on, or `x0`, `x1` and so on if
            there are more than the alphabet has.
        same: for each operand the first that is the same array, its own position if there is none
            before it.

    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> expression = resolve(parse("nti,nsi->nts"), [(2, 3, 4), (2, 3, 4)])
    >>> print(from_expression(expression, ["x", "y"], same=[0, 0]))
    out[n,t,s] = sum_i x[n,t,i] * x[n,s,i]
    """
    operands = len(expression.inputs)
    if names is None:
        names = [chr(97 + n) for n in range(operands)]
        if operands > 26:
            names = [f"x{n}" for n in range(operands)]
    inputs = tuple(names[n] for n in (range(operands) if same is None else same))
    factors = tuple(
        Access(name, tuple(Affine(()) if axis is None else axis for axis in axes))
        for name, axes in zip(inputs, expression.inputs, strict=True)
    )
    results = chain(["out"], map("out{}".format, count()))
    result = next(name for name in results if name not in inputs)
    shapes = dict(zip(inputs, expression.shapes, strict=True))
    shapes[result] = expression.output_shape
    program = Program(
        tuple(Tensor(name, axes) for name, axes in shapes.items()),
        inputs,
        (),
        (result,),
        expression.extents,
    )
    return program.with_statements([Statement(Access(result, expression.output), factors)])


def bounds(axis: Affine, sizes: Mapping[str, int]) -> tuple[int, int]:
    """The least and the greatest value that an axis takes.

    >>> bounds(Affine((("y", 2), ("k", -1)), 2), {"y": 5, "k": 3})
    (0, 10)
    """
    low = sum(c * (sizes[name] - 1) for name, c in axis.terms if c < 0)
    high = sum(c * (sizes[name] - 1) for name, c in axis.terms if c > 0)
    return axis.constant + low, axis.constant + high


# --- what must hold -------------------------------------------------------------------------------


class VerificationError(AssertionError):
    """An IR that breaks its own rules: a bug of the compiler, not of its user."""


def verify_program(program: Program) -> None:
    """Raise VerificationError unless the program means something.

    Tensors and indices are known and used as they are declared, each intermediate is written, whole
    and once, before it is read, the results are written, and no epilogue depends on an index that
    the contraction before it sums. An access may leave its tensor: a factor is zero there, and what
    a target would have there is dropped. What an epilogue reads stays inside.

    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("ij->i"), [(2, 3)]))
    >>> verify_program(program)
    >>> verify_program(replace(program, statements=()))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    VerificationError: nothing writes the result 'out'
    """
    shapes, sizes = program.shapes, program.sizes
    _expect(len(shapes) == len(program.tensors), "a tensor is declared twice")
    _expect(len(sizes) == len(program.extents), "an index has two extents")
    for name in program.inputs:
        _expect(name in shapes, f"the operand {name!r} is not declared")
    inputs, ready = {*program.inputs}, {*program.inputs}
    for statement in program.statements:
        _expect(bool(statement.factors), f"no factors in {statement}")
        for access in (statement.target, *statement.accesses):
            _verify_access(access, shapes, sizes, statement)
        for access in statement.accesses:
            _expect(access.tensor in ready, f"{access} is read before it is written in {statement}")
        if statement.epilogue is not None:
            _verify_epilogue(statement, statement.epilogue, shapes, sizes)
        target = statement.target
        if target.is_plain:
            _expect(
                tuple(sizes[name] for name in target.names) == shapes[target.tensor],
                f"{target} is not written whole in {statement}",
            )
        else:
            _expect(statement.epilogue is None, f"sums meet before the epilogue of {statement}")
        _expect(target.tensor not in inputs, f"an operand is written in {statement}")
        _expect(target.tensor not in ready, f"{target.tensor} is written again in {statement}")
        ready.add(target.tensor)
    for name in program.results:
        _expect(name in ready - inputs, f"nothing writes the result {name!r}")


def _verify_epilogue(
    statement: Statement,
    epilogue: Epilogue,
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
) -> None:
    inner = {name for factor in statement.factors for name in factor.names}
    for access in accesses_of(epilogue.value):
        for axis, extent in zip(access.subscripts, shapes[access.tensor], strict=True):
            low, high = bounds(axis, sizes)
            inside = (low >= 0 and high < extent) or any(sizes[name] == 0 for name in axis.names)
            _expect(inside, f"{access} reads {low} to {high} of an axis of {extent}")
        late = {*access.names} & {*statement.contracted}
        _expect(not late, f"{access} depends on an index that is summed in {statement}")
    for index in epilogue.over:
        _expect(index in statement.indices, f"no tensor has the index {index!r} of {statement}")
        _expect(index not in statement.kept, f"{index!r} is both kept and summed in {statement}")
    for index in statement.contracted:
        _expect(index in inner, f"no factor has the index {index!r} of {statement}")


def _verify_access(
    access: Access,
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    statement: Statement,
) -> None:
    _expect(access.tensor in shapes, f"{access.tensor!r} is not declared in {statement}")
    shape = shapes[access.tensor]
    _expect(
        len(access.subscripts) == len(shape),
        f"{access} does not fit the rank of a tensor of shape {shape} in {statement}",
    )
    for name in access.names:
        _expect(name in sizes, f"the index {name!r} has no extent in {statement}")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise VerificationError(message)


# --- what it means --------------------------------------------------------------------------------


def evaluate(program: Program, arrays: Mapping[str, Array]) -> Array:
    """Compute a program of one result, slowly: every product is laid out before the sum.

    Args:
        program: a program that `verify_program` accepts.
        arrays: an array of the declared shape for each of the operands' names.

    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("ii,i->"), [(2, 2), (2,)]))
    >>> evaluate(program, {"a": np.array([[1, 2], [3, 4]]), "b": np.array([10, 1])})
    array(14)
    """
    return evaluate_all(program, arrays)[program.result]


def evaluate_all(program: Program, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Compute all results of a program, by name, as `evaluate` does."""
    verify_program(program)
    shapes, sizes = program.shapes, program.sizes
    values = {name: np.asarray(arrays[name]) for name in program.inputs}
    for name, array in values.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{name!r} has shape {array.shape}, not {shapes[name]}")
    elements = {tensor.name: tensor.element for tensor in program.tensors}
    for statement in program.statements:
        name, target = statement.target.tensor, statement.target
        value = evaluate_statement(statement, values, sizes)
        if not target.is_plain:
            value = scattered(value, target, shapes[name])
        values[name] = value.astype(elements[name] or value.dtype, copy=False)
    return {name: values[name] for name in program.results}


def evaluate_statement(
    statement: Statement, values: Mapping[str, Array], sizes: Mapping[str, int]
) -> Array:
    """What a statement computes from these tensors, in the dtype that NumPy computes it in."""
    over = statement.epilogue.over if statement.epilogue else ()
    order = (*statement.kept, *over, *statement.contracted)
    shape = tuple(sizes[name] for name in order)
    grids = np.ogrid[tuple(slice(extent) for extent in shape)]
    position: dict[str, Any] = dict(zip(order, grids, strict=True))

    def read(access: Access) -> Array:
        return _read(values[access.tensor], access, position)

    def total(terms: Array, shape: tuple[int, ...], kept: int) -> Array:
        terms = np.broadcast_to(terms, shape)
        summed = tuple(range(kept, len(shape)))
        return terms.sum(summed, dtype=terms.dtype, keepdims=True) if summed else terms

    first = len(statement.kept) + len(over)
    result = total(reduce(np.multiply, map(read, statement.factors)), shape, first)
    if statement.epilogue is not None:
        outer = (*shape[:first], *(1 for _ in shape[first:]))
        with np.errstate(all="ignore"):
            result = np.asarray(value_of(statement.epilogue.value, result, read))
        result = total(result, outer, len(statement.kept))
    return np.array(result.reshape(shape[: len(statement.kept)]))


def _read(array: Array, access: Access, position: Mapping[str, Any]) -> Array:
    """The elements at some positions, and zero where there are none."""
    places = [np.asarray(axis.evaluate(position)) for axis in access.subscripts]
    inside = [
        (place >= 0) & (place < extent) for place, extent in zip(places, array.shape, strict=True)
    ]
    if not array.size:
        shape = np.broadcast_shapes(*(place.shape for place in places))
        return np.zeros(shape, array.dtype)
    clipped = tuple(np.where(near, at, 0) for near, at in zip(inside, places, strict=True))
    found = array[clipped]
    return np.where(reduce(np.logical_and, inside, np.True_), found, np.zeros((), array.dtype))


def scattered(total: Array, target: Access, shape: tuple[int, ...]) -> Array:
    """A new tensor of a shape, with values at the places of an affine target.

    `total` has an axis for each of the target's indices. Values that meet in one element are added
    up, and what would be outside is dropped.

    >>> target = Access("out", (Affine((("y", 1), ("k", 1))),))
    >>> scattered(np.ones((3, 2)), target, (4,))
    array([1., 2., 2., 1.])
    """
    grids = np.indices(total.shape, sparse=True)
    position: dict[str, Any] = dict(zip(target.names, grids, strict=True))
    places = [
        np.broadcast_to(axis.evaluate(position), total.shape).reshape(-1)
        for axis in target.subscripts
    ]
    inside = reduce(
        np.logical_and,
        ((at >= 0) & (at < extent) for at, extent in zip(places, shape, strict=True)),
        np.ones(total.size, np.bool_),
    )
    result = np.zeros(shape, total.dtype)
    np.add.at(result, tuple(at[inside] for at in places), total.reshape(-1)[inside])
    return result
