"""The program IR: statements, each a sum of products of tensor accesses.

    t0[i,k] = sum_j a[i,j] * b[j,k]
    out[i,l] = sum_k t0[i,k] * c[k,l]

An equation is a program of one statement, and factorizing it makes several. An operand is a name:
the same array given twice is one tensor that is read at two places.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .affine import Affine
from .subscripts import Expression

__all__ = [
    "Access",
    "Program",
    "Statement",
    "Tensor",
    "VerificationError",
    "bounds",
    "evaluate",
    "from_expression",
    "verify_program",
]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An operand, an intermediate or the result; `axes` is its shape."""

    name: str
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """A tensor, read or written at one affine expression of the indices for each of its axes.

    `names` are the indices, each once, in the order of the axes.

    >>> diagonal = Access("a", (Affine.index("i"), Affine.index("i"), Affine(())))
    >>> print(diagonal, diagonal.names)
    a[i,i,0] ('i',)
    """

    tensor: str
    subscripts: tuple[Affine, ...]
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys([name for axis in self.subscripts for name, _ in axis.terms])
        object.__setattr__(self, "names", tuple(names))

    def __str__(self) -> str:
        listed = ",".join(map(str, self.subscripts))
        return f"{self.tensor}[{listed}]" if listed else self.tensor


@dataclass(frozen=True, slots=True)
class Statement:
    """The target is the product of the factors, summed over the indices that it does not have.

    >>> a, b = (Access(name, (Affine.index("i"), Affine.index("j"))) for name in "ab")
    >>> statement = Statement(Access("out", (Affine.index("i"),)), (a, b))
    >>> print(statement)
    out[i] = sum_j a[i,j] * b[i,j]
    >>> statement.kept, statement.reduced
    (('i',), ('j',))
    """

    target: Access
    factors: tuple[Access, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """The indices of the target, in its order."""
        return self.target.names

    @property
    def reduced(self) -> tuple[str, ...]:
        """The indices that are summed over, in the order of their first use."""
        return self.indices[len(self.kept) :]

    @property
    def indices(self) -> tuple[str, ...]:
        """The kept indices, then the reduced ones."""
        accesses = (self.target, *self.factors)
        return tuple(dict.fromkeys(chain.from_iterable(access.names for access in accesses)))

    def __str__(self) -> str:
        names = ",".join(self.reduced)
        total = f"sum_{{{names}}} " if "," in names else f"sum_{names} " if names else ""
        return f"{self.target} = {total}{' * '.join(map(str, self.factors))}"


@dataclass(frozen=True, slots=True)
class Program:
    """Statements in the order of execution, and what their names mean.

    `inputs` has a name for each operand, the same one twice where they are the same array.
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
    result: str
    extents: tuple[tuple[str, int], ...]

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

    def with_statements(self, statements: Sequence[Statement]) -> "Program":
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
        result,
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
    and once, before it is read, and the result is written. An affine access may leave its tensor: a
    factor is zero there, and what a target would have there is dropped.

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
        for access in (statement.target, *statement.factors):
            _verify_access(access, shapes, sizes, statement)
        for factor in statement.factors:
            _expect(factor.tensor in ready, f"{factor} is read before it is written in {statement}")
        target = statement.target
        if all(axis.is_index for axis in target.subscripts):
            whole = tuple(sizes[axis.names[0]] for axis in target.subscripts)
            _expect(
                len(target.names) == len(target.subscripts) and whole == shapes[target.tensor],
                f"{target} is not written whole, each element once, in {statement}",
            )
        _expect(target.tensor not in inputs, f"an operand is written in {statement}")
        _expect(target.tensor not in ready, f"{target.tensor} is written again in {statement}")
        ready.add(target.tensor)
    _expect(program.result in ready - inputs, f"nothing writes the result {program.result!r}")


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
    for axis, extent in zip(access.subscripts, shape, strict=True):
        low, high = bounds(axis, sizes)
        _expect(
            not axis.is_index or (low >= 0 and high < extent) or sizes[axis.names[0]] == 0,
            f"{access} reads {low} to {high} of an axis of {extent} in {statement}",
        )


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise VerificationError(message)


# --- what it means --------------------------------------------------------------------------------


def evaluate(program: Program, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Compute a program, slowly: every product of a statement is laid out before the sum.

    Args:
        program: a program that `verify_program` accepts.
        arrays: an array of the declared shape for each of the operands' names.

    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("ii,i->"), [(2, 2), (2,)]))
    >>> evaluate(program, {"a": np.array([[1, 2], [3, 4]]), "b": np.array([10, 1])})
    array(14)
    """
    verify_program(program)
    shapes, sizes = program.shapes, program.sizes
    values = {name: np.asarray(arrays[name]) for name in program.inputs}
    for name, array in values.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{name!r} has shape {array.shape}, not {shapes[name]}")
    for statement in program.statements:
        shape = tuple(sizes[name] for name in statement.indices)
        grids = np.ogrid[tuple(slice(extent) for extent in shape)]
        position: dict[str, Any] = dict(zip(statement.indices, grids, strict=True))
        factors = (_read(values[factor.tensor], factor, position) for factor in statement.factors)
        products = np.broadcast_to(reduce(np.multiply, factors), shape)
        summed = tuple(range(len(statement.kept), len(shape)))
        total = products.sum(summed, dtype=products.dtype) if summed else products.copy()
        target = statement.target
        if not all(axis.is_index for axis in target.subscripts):
            total = _scattered(np.asarray(total), target, shapes[target.tensor])
        values[target.tensor] = np.asarray(total)
    return values[program.result]


def _read(array: NDArray[Any], access: Access, position: Mapping[str, Any]) -> NDArray[Any]:
    """The elements at some positions, and zero where there are none."""
    places = [np.asarray(axis.evaluate(position)) for axis in access.subscripts]
    inside = [
        (place >= 0) & (place < extent)
        for place, extent in zip(places, array.shape, strict=True)
    ]
    if not array.size:
        shape = np.broadcast_shapes(*(place.shape for place in places))
        return np.zeros(shape, array.dtype)
    clipped = tuple(np.where(near, at, 0) for near, at in zip(inside, places, strict=True))
    found = array[clipped]
    return np.where(reduce(np.logical_and, inside, np.True_), found, np.zeros((), array.dtype))


def _scattered(total: NDArray[Any], target: Access, shape: tuple[int, ...]) -> NDArray[Any]:
    """What is written to an affine target: values that meet in one element are added up."""
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
