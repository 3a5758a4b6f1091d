"""Programs as an expert writes them by hand: every step by the library call that does it fastest.

A program is a list of einsums of two operands. Each may be a product of matrices (numpy's BLAS
computes half of `a @ a.T`), a dot product of rows, a broadcast product, or the library's einsum;
what is fastest for the operands at hand is taken, step by step. Where an index is in all of them,
the whole program is also run for one of its positions after the other, into the same arrays each
time, so that intermediates stay in cache.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cases import Program

__all__ = ["Calls", "numpy_calls", "torch_calls", "variants"]

Array = Any
Step = tuple[str, str, tuple[str, ...]]  # (result, equation, operands)
Method = Callable[[Array, Array], Array]

_TRIALS = 3


@dataclass(frozen=True)
class Calls:
    """What a library offers; arrays of both have `reshape` and can be indexed alike.

    Attributes:
        permuted: a view with its axes in another order.
        matmul: of stacks of matrices, into the third argument unless that is None.
        row_dots: ways to the dot products of the rows of two arrays, along the last axis.
        row_squares: ways to those of one array with itself.
        einsum: an equation's value.
    """

    permuted: Callable[[Array, Sequence[int]], Array]
    matmul: Callable[[Array, Array, Array | None], Array]
    row_dots: tuple[Method, ...]
    row_squares: tuple[Callable[[Array], Array], ...]
    einsum: Callable[[str, Array, Array], Array]


def numpy_calls(numpy: Any) -> Calls:
    """Those of numpy."""
    einsum = numpy.einsum
    row_dots = [lambda x, y: einsum("...k,...k->...", x, y)]
    if hasattr(numpy, "vecdot"):
        row_dots.append(numpy.vecdot)
    row_dots.append(lambda x, y: numpy.matmul(x[..., None, :], y[..., None])[..., 0, 0])
    return Calls(
        permuted=numpy.transpose,
        matmul=lambda x, y, out: numpy.matmul(x, y, out=out),
        row_dots=tuple(row_dots),
        row_squares=(lambda x: numpy.square(x).sum(-1),),
        einsum=lambda equation, x, y: einsum(equation, x, y, optimize=True),
    )


def torch_calls(torch: Any) -> Calls:
    """Those of torch."""
    return Calls(
        permuted=torch.permute,
        matmul=lambda x, y, out: torch.matmul(x, y, out=out),
        row_dots=(
            torch.linalg.vecdot,
            lambda x, y: (x * y).sum(-1),
            lambda x, y: torch.matmul(x[..., None, :], y[..., None])[..., 0, 0],
        ),
        row_squares=(
            lambda x: x.square().sum(-1),
            lambda x: torch.linalg.vector_norm(x, dim=-1).square(),
        ),
        einsum=torch.einsum,
    )


def variants(
    calls: Calls, programs: Sequence[Program], placed: Mapping[str, Array]
) -> Iterator[tuple[str, Callable[[], Array]]]:
    """Every program of a case, whole and position by position, each step tuned.

    Args:
        calls: the library's.
        programs: those of the case's programs that are worth running.
        placed: the operands, by name.
    """
    for program in programs:
        yield program.name, _whole(calls, program.steps, placed)
        index = _common_index(program.steps)
        if index is not None:
            yield f"{program.name}, each {index}", _each(calls, program.steps, placed, index)


# --- programs -------------------------------------------------------------------------------------


def _whole(
    calls: Calls, steps: Sequence[Step], placed: Mapping[str, Array], into: bool = False
) -> Callable[..., Array]:
    """The program with the fastest way for each of its steps."""
    values, chosen = dict(placed), []
    for result, equation, operands in steps:
        x, y = (values[name] for name in operands)
        method = _fastest(_methods(calls, equation, x, y, into), x, y)
        values[result] = method(x, y)
        chosen.append((result, method, operands))
    last = chosen[-1][0]

    def run(given: Mapping[str, Array] = placed) -> Array:
        values = dict(given)
        for result, method, (first, second) in chosen:
            values[result] = method(values[first], values[second])
        return values[last]

    return run


def _each(
    calls: Calls, steps: Sequence[Step], placed: Mapping[str, Array], index: str
) -> Callable[[], Array]:
    """The program for one position of an index after the other."""
    axes = {
        name: term.index(index)
        for _, equation, operands in steps
        for term, name in zip(_terms(equation)[:2], operands, strict=True)
        if name in placed
    }
    extent = next(placed[name].shape[axis] for name, axis in axes.items())
    inner = [
        (result, equation.replace(index, ""), operands) for result, equation, operands in steps
    ]

    def at(position: int) -> dict[str, Array]:
        return {
            name: placed[name][(slice(None),) * axis + (position,)] for name, axis in axes.items()
        }

    run = _whole(calls, inner, at(0), into=True)
    output = _terms(steps[-1][1])[2]
    first = run(at(0))
    place = output.find(index)

    def collected() -> Array:
        if place < 0:
            total = run(at(0)) + run(at(1)) if extent > 1 else run(at(0)) * 1
            for position in range(2, extent):
                total += run(at(position))
            return total
        shape = list(first.shape)
        shape.insert(place, extent)
        total = placed[next(iter(axes))].reshape(-1)[:1].new_empty(shape) if _is_torch(first) else 0
        if not _is_torch(first):
            import numpy as np

            total = np.empty(shape, first.dtype)
        for position in range(extent):
            total[(slice(None),) * place + (position,)] = run(at(position))
        return total

    return collected


def _is_torch(array: Array) -> bool:
    return hasattr(array, "new_empty")


def _common_index(steps: Sequence[Step]) -> str | None:
    """The index that all operands of all steps have first, if there is one."""
    terms = [term for _, equation, _ in steps for term in _terms(equation)[:2]]
    common = [i for i in terms[0] if all(i in term for term in terms)]
    return common[0] if common else None


def _terms(equation: str) -> tuple[str, str, str]:
    inputs, _, output = equation.partition("->")
    first, second = inputs.split(",")
    return first, second, output


# --- steps ----------------------------------------------------------------------------------------


def _fastest(methods: Sequence[Method], x: Array, y: Array) -> Method:
    best, chosen = math.inf, methods[0]
    for method in methods:
        for trial in range(1 + _TRIALS):
            begin = time.perf_counter()
            method(x, y)
            seconds = time.perf_counter() - begin
            if trial and seconds < best:  # the first one warms up
                best, chosen = seconds, method
            if seconds > 10 * best:
                break
    return chosen


def _methods(calls: Calls, equation: str, x: Array, y: Array, into: bool) -> list[Method]:
    """The ways to compute a step of operands of these shapes."""
    found: list[Method] = [lambda x, y: calls.einsum(equation, x, y)]
    first, second, output = _terms(equation)
    extents = dict(zip(first + second, (*x.shape, *y.shape), strict=True))
    batch = [i for i in output if i in first and i in second]
    left = [i for i in output if i in first and i not in second]
    right = [i for i in output if i in second and i not in first]
    k = [i for i in first if i in second and i not in output]
    if {*first, *second} != {*batch, *left, *right, *k} or len({*first}) < len(first):
        return found

    def size(indices: Sequence[str]) -> int:
        return math.prod(extents[i] for i in indices)

    def arranged(array: Array, term: str, *groups: Sequence[str]) -> Array:
        """The batch's axes, then one axis for each group."""
        order = [*batch, *(i for group in groups for i in group)]
        array = calls.permuted(array, [term.index(i) for i in order])
        return array.reshape(*(extents[i] for i in batch), *map(size, groups))

    made = [*batch, *left, *right]
    shape = [extents[i] for i in made]
    axes = [made.index(i) for i in output]

    def finished(result: Array) -> Array:
        return calls.permuted(result.reshape(shape), axes)

    if not k:
        found.append(
            lambda x, y: finished(
                arranged(x, first, left, []) * arranged(y, second, [], right)
                if right
                else arranged(x, first, left) * arranged(y, second, [])
            )
        )
        return found
    if not left and not right:
        for dots in calls.row_dots:
            found.append(lambda x, y, dots=dots: finished(dots(*_rows(x, y))))
        if x is y and first == second:
            for squares in calls.row_squares:
                found.append(lambda x, y, squares=squares: finished(squares(_rows(x, x)[0])))

        def _rows(x: Array, y: Array) -> tuple[Array, Array]:
            return arranged(x, first, k), arranged(y, second, k)

        return found
    room: list[Array] = []

    def product(x: Array, y: Array) -> Array:
        result = calls.matmul(
            arranged(x, first, left, k), arranged(y, second, k, right), room[0] if room else None
        )
        if into and not room:
            room.append(result)
        return finished(result)

    def turned(x: Array, y: Array) -> Array:
        result = calls.matmul(arranged(y, second, right, k), arranged(x, first, k, left), None)
        return calls.permuted(
            result.reshape([extents[i] for i in (*batch, *right, *left)]),
            [[*batch, *right, *left].index(i) for i in output],
        )

    return [*found, product, turned]
