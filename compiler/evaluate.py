"""What must hold of a program, and what it means: it is computed slowly, and obviously right."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from .access import Access
from .formula import accesses_of, value_of
from .program import Epilogue, Program, Statement, bounds

__all__ = [
    "VerificationError",
    "evaluate",
    "evaluate_all",
    "evaluate_statement",
    "scattered",
    "verify_program",
]

Array = np.ndarray[Any, np.dtype[Any]]


class VerificationError(AssertionError):
    """An IR that breaks its own rules: a bug of the compiler, not of its user."""


def verify_program(program: Program) -> None:
    """Raise VerificationError unless the program means something.

    Tensors and indices are known and used as they are declared, each intermediate is written, whole
    and once, before it is read, the results are written, and no epilogue depends on an index that
    the contraction before it sums. An access may leave its tensor: a factor is zero there, and what
    a target would have there is dropped. What an epilogue reads stays inside.

    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("ij->i"), [(2, 3)]))
    >>> verify_program(program)
    >>> from .records import replace
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

    >>> from .program import from_expression
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

    >>> from .affine import Affine
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
