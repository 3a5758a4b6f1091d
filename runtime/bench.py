"""Time one einsum against the other libraries that are here: what `einsumc bench` prints.

All contenders take turns in one process on the same arrays, and of each the fastest round counts.
Every result is first compared with the others'. For cases, peers and rooflines beyond one equation
see `benchmarks/` in the repository.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..compiler.records import dataclass
from ..compiler.resolve import resolve
from ..compiler.subscripts import Expression, parse
from .decorator import compile_einsum
from .operands import Array

__all__ = ["Result", "bench", "random_operands"]

OURS = "einsumc"
REFERENCE = "np.einsum"
SHORTEST = 2e-3  # seconds; shorter calls are repeated until a sample lasts so long


@dataclass(slots=True)
class Result:
    """How one contender did.

    Attributes:
        name: of the contender.
        seconds: of a call, in the fastest round; NaN if it cannot compute this.
        error: the largest difference from the reference, relative to its largest element.
        correct: whether that is what rounding explains.
        note: why it cannot.
    """

    name: str
    seconds: float = math.nan
    error: float = math.nan
    correct: bool = True
    note: str = ""


def bench(equation: str, operands: Sequence[Array], rounds: int = 5) -> list[Result]:
    """Time einsumc, np.einsum and whichever of opt_einsum and torch are installed.

    Args:
        equation: what to compute; names of several letters are fine.
        operands: all of one dtype.
        rounds: how often each contender has its turn.

    Returns:
        One result a contender, einsumc first.

    Raises:
        EinsumError: (a ValueError) the equation is wrong or the operands do not fit it.

    >>> ours, numpy, *_ = bench("ij,jk->ik", random_operands([(8, 8), (8, 8)], "f8"), rounds=1)
    >>> ours.correct, numpy.name
    (True, 'np.einsum')
    """
    expression = resolve(parse(equation), [operand.shape for operand in operands])
    results: dict[str, Result] = {}
    ready: list[tuple[Result, Callable[[], Any], int]] = []
    reference: Array | None = None
    for name, call in _contenders(equation, _letters(expression), operands):
        result = results[name] = Result(name)
        try:
            value = np.asarray(call())
        except Exception as problem:
            if name == OURS:
                raise
            result.note = f"{type(problem).__name__}: {problem}".splitlines()[0]
            continue
        if reference is None:
            reference = value  # the first is np.einsum, unless it cannot
        result.error = _error(value, reference)
        terms = math.prod(extent for _, extent in expression.extents) / max(value.size, 1)
        result.correct = result.error <= _tolerance(value.dtype, terms)
        ready.append((result, call, _repeats(call)))
    for _ in range(rounds):
        for result, call, repeats in ready:
            result.seconds = min(result.seconds, _sample(call, repeats), key=_nan_last)
    return [results.pop(OURS), *results.values()]


def random_operands(
    shapes: Sequence[Sequence[int]], dtype: DTypeLike, seed: int = 0
) -> list[Array]:
    """Operands of these shapes: normal numbers, or small whole ones."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind in "biu":
        return [np.asarray(rng.integers(0, 2, shape)).astype(dtype) for shape in shapes]
    arrays = [np.asarray(rng.standard_normal(shape)) for shape in shapes]
    if dtype.kind == "c":
        arrays = [array + 1j * rng.standard_normal(array.shape) for array in arrays]
    return [array.astype(dtype) for array in arrays]


def _contenders(
    equation: str, letters: str, operands: Sequence[Array]
) -> list[tuple[str, Callable[[], Any]]]:
    """What computes the equation, the reference first; the others know letters only."""
    ours = compile_einsum(equation)
    found: list[tuple[str, Callable[[], Any]]] = [
        (REFERENCE, lambda: np.einsum(letters, *operands, optimize=True)),
        (OURS, lambda: ours(*operands)),
    ]
    if find_spec("opt_einsum"):
        from opt_einsum import contract_expression

        shapes = [operand.shape for operand in operands]
        made: list[Any] = []

        def opt_einsum() -> Any:
            if not made:
                made.append(contract_expression(letters, *shapes))
            return made[0](*operands)

        found.append(("opt_einsum", opt_einsum))
    if find_spec("torch"):
        from importlib import import_module

        torch = import_module("torch")
        tensors = [torch.from_numpy(operand) for operand in operands]
        found.append(("torch.einsum", lambda: torch.einsum(letters, *tensors)))
    return found


def _letters(expression: Expression) -> str:
    """The equation with a letter for each index, as every library takes it; affine axes stay."""
    symbols = [chr(code) for code in (*range(97, 123), *range(65, 91))]
    names = dict(zip(expression.sizes, symbols, strict=False))
    sides = [*expression.inputs, expression.output]
    plain = all(axis is not None and axis.is_index for axes in sides for axis in axes)
    if not plain or len(names) < len(expression.sizes):
        return expression.text
    *inputs, output = (
        "".join(names[axis.names[0]] for axis in axes if axis is not None) for axes in sides
    )
    return f"{','.join(inputs)}->{output}"


def _error(value: Array, reference: Array) -> float:
    if value.shape != reference.shape:
        return math.inf
    wide = np.result_type(value, np.float64)
    difference = np.abs(value.astype(wide) - reference.astype(wide)).max(initial=0.0)
    return float(difference / max(np.abs(reference).max(initial=0.0), np.finfo("f4").tiny))


def _tolerance(dtype: np.dtype[Any], terms: float) -> float:
    """What rounding may do in a sum of so many terms, in either of two results."""
    if dtype.kind in "biu":
        return 0.0
    return 16 * float(np.finfo(dtype).eps) * max(math.sqrt(terms), 4.0)


def _repeats(call: Callable[[], Any]) -> int:
    once = min(_sample(call, 1), _sample(call, 1))
    return max(1, math.ceil(SHORTEST / max(once, 1e-7)))


def _sample(call: Callable[[], Any], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value
