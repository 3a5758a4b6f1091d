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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from math import prod
from typing import TYPE_CHECKING, cast

from .access import Access
from .affine import Affine
from .records import dataclass, field, replace
from .subscripts import Expression

if TYPE_CHECKING:
    from .formula import Value

__all__ = [
    "Access",
    "Epilogue",
    "Program",
    "Statement",
    "Tensor",
    "bounds",
    "elements",
    "from_expression",
    "volume",
]


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
        return (
            tuple([index for index in self.reduced if index not in over]) if over else self.reduced
        )

    @property
    def accesses(self) -> tuple[Access, ...]:
        """Every read of a tensor: the factors, then those of the epilogue."""
        if self._accesses is None:
            read: Iterable[Access] = ()
            if self.epilogue is not None:
                from .formula import accesses_of  # an equation alone has none

                read = accesses_of(self.epilogue.value)
            object.__setattr__(self, "_accesses", (*self.factors, *read))
        return cast("tuple[Access, ...]", self._accesses)

    @property
    def operands(self) -> tuple[Access, ...]:
        """What its kernel reads: the factors, then each read of the epilogue once."""
        return (*self.factors, *dict.fromkeys(self.accesses[len(self.factors) :]))

    @property
    def is_plain(self) -> bool:
        """Whether the target and the factors have an index of its own on each of their axes."""
        return all(access.is_plain for access in (self.target, *self.factors))

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
            from .formula import with_accesses  # an equation alone has none

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


def elements(access: Access, extents: Mapping[str, int]) -> int:
    """How many elements of its tensor an access touches; for an affine one, about as many."""
    touched = volume(access.names, extents)
    if len(access.names) > len(access.subscripts):
        spans = (bounds(axis, extents) for axis in access.subscripts)
        touched = min(touched, prod(high - low + 1 for low, high in spans))
    return touched


def volume(names: Iterable[str], extents: Mapping[str, int]) -> int:
    """The product of some indices' extents."""
    return prod([extents[name] for name in names])
