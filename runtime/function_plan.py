"""The plan of a compiled function for operands of one layout: a program, and what becomes of it.

A trace says what is computed for operands of any sizes. With their shapes it is unfolded to a
program (`compiler/trace/unfold.py`); with their strides and the results' that is prepared, and from
then on a call makes the results and runs it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..compiler.records import dataclass
from ..compiler.trace import (
    Argument,
    Parameter,
    Place,
    Result,
    Shapes,
    Trace,
    filler,
    kept_filler,
    unfold,
)
from .memory import allocate
from .native_plans import Direct
from .operands import Array, plain, prepare
from .virtual import virtual

if TYPE_CHECKING:
    from ..compiler.program import Program
    from .programs import ProgramExecution
    from .step import Layouts
    from .stored_program import StoredProgram

__all__ = ["FunctionPlan", "Made", "make", "native_dtype", "prepared"]


@dataclass(frozen=True, slots=True)
class Made:
    """A trace for operands of some shapes.

    Attributes:
        trace: of the function.
        known: the shapes of all its nodes.
        program: what is computed; its inputs are the operands, then `constants`.
        results: of the program.
        constants: arrays that the function has from elsewhere, and numbers among its arguments.
    """

    trace: Trace
    known: Shapes
    program: Program
    results: tuple[Result, ...]
    constants: tuple[Array | Parameter, ...]

    def with_values(self, values: Sequence[float]) -> Shapes:
        """What is known once the numbers among the arguments are."""
        if not values:
            return self.known
        given = {Argument(position): (value,) for position, value in enumerate(values)}
        return cast("Shapes", ChainMap(cast("Any", given), cast("Any", self.known)))

    def hidden(self, known: Shapes) -> list[Array]:
        """The constants as operands."""
        return [
            each.array(known) if isinstance(each, Parameter) else prepare_constant(each)
            for each in self.constants
        ]

    def returned(self, known: Shapes) -> Callable[[Sequence[Any]], Any]:
        """What makes of results what the function returns."""
        return filler(self.trace.returned(known))

    def layouts(self, operands: Sequence[Array], results: Sequence[Array]) -> Layouts:
        """The layouts of the program's inputs and results."""
        constants = [
            virtual((), each.dtype) if isinstance(each, Parameter) else prepare_constant(each)
            for each in self.constants
        ]
        names = (*self.program.inputs, *self.program.results)
        arrays = (*operands, *constants, *results)
        return {
            name: (array.strides, array.dtype) for name, array in zip(names, arrays, strict=True)
        }

    def tensors(self, results: Sequence[Array]) -> list[Array]:
        """The program's results in these arrays."""
        return [_in_order(each)(array) for each, array in zip(self.results, results, strict=True)]

    def virtual_results(self) -> list[Array]:
        """The tensors of the results as they would be allocated, without memory."""
        return self.tensors([virtual(each.shape, each.dtype, _axes(each)) for each in self.results])


def make(
    trace: Trace, shapes: Sequence[tuple[int, ...]], names: Sequence[str], values: Sequence[float]
) -> Made:
    """A trace for operands of these shapes, which are called so."""
    known = trace.shapes(shapes, values)
    unfolded = unfold(trace, shapes, names, values, known)
    return Made(trace, known, unfolded.program, unfolded.results, unfolded.constants)


class FunctionPlan:
    """Computes what a function returns, of operands of one layout.

    Args:
        made: what is computed.
        execution: the same prepared.
        convert: whether operands are not as kernels want them.
        in_place: whether the only result is written to `out` where it is; None without an `out`.
    """

    __slots__ = ("_convert", "_execution", "_in_place", "_made", "_new", "_returned", "_whole")

    def __init__(
        self,
        made: Made,
        execution: ProgramExecution | StoredProgram,
        convert: bool,
        in_place: bool | None,
    ) -> None:
        self._made, self._execution, self._convert = made, execution, convert
        self._in_place = in_place
        self._new = [allocate(each.shape, each.dtype, _axes(each)) for each in made.results]
        self._whole = all(map(_is_whole, made.results))
        self._returned: Callable[[Sequence[Any]], Any] | None = None

    def __call__(
        self, operands: Sequence[Array], values: Sequence[float], out: Array | None
    ) -> Any:
        """Compute what the function returns.

        Args:
            operands: of the layout that the plan is for.
            values: the numbers among the arguments.
            out: where the result goes, if the plan is for one.
        """
        made = self._made
        if self._convert:
            operands = prepared(operands)
        known = made.known
        if made.constants:
            known = made.with_values(values)
            operands = [*operands, *made.hidden(known)]
        elif values:
            known = made.with_values(values)
        results = [cast("Array", out)] if self._in_place else [make() for make in self._new]
        self._execution(operands, results if self._whole else made.tensors(results))
        if out is None:
            returned = self._returned
            if returned is None:
                returned = made.returned(known)
                if not values:  # which may be among the results
                    self._returned = returned
            return returned([each if each.ndim else each[()] for each in results])
        if not self._in_place:
            np.copyto(out, results[0], casting="same_kind")
        return out

    def direct(self) -> Direct | None:
        """The same for the native entry, if it is nothing but kernels and whole results."""
        made = self._made
        if self._convert or self._in_place is False or not (self._whole and made.results):
            return None
        constants = [each for each in made.constants if not isinstance(each, Parameter)]
        if len(constants) < len(made.constants) or not all(map(plain, constants)):
            return None
        results = []
        for each in made.results:
            new = virtual(each.shape, each.dtype, _axes(each)) if self._in_place is None else None
            layout = None if new is None else (each.shape, new.strides)
            results.append((each.dtype, layout))
        structure = made.trace.returned(made.known)
        several, returned = not isinstance(structure, Place), None
        in_order = type(structure) is tuple and structure == tuple(map(Place, range(len(results))))
        if several and not in_order:
            returned = kept_filler(structure)
            if returned is None:
                return None
        return Direct(lambda: self._execution.work(constants), tuple(results), returned, several)


# --- operands -------------------------------------------------------------------------------------


def native_dtype(array: Array) -> np.dtype[Any]:
    """The dtype in which kernels want an array: its own in native byte order."""
    return array.dtype.newbyteorder("=")


def prepare_constant(array: Array) -> Array:
    """A constant as kernels want it."""
    return prepare(array, native_dtype(array))


def prepared(arrays: Sequence[Array]) -> list[Array]:
    """Operands as kernels want them; what was one array stays one."""
    made: dict[int, Array] = {}
    for array in arrays:
        if id(array) not in made:
            made[id(array)] = prepare(array, native_dtype(array))
    return [made[id(array)] for array in arrays]


# --- results --------------------------------------------------------------------------------------


def _axes(result: Result) -> tuple[int, ...] | None:
    """A result's axes in memory, slowest first; None for C order.

    Where nothing is merged the tensor in it is contiguous, otherwise the result is.
    """
    extents = [extent for extent in result.shape if extent != 1]
    if list(result.parts) != extents or list(result.order) == sorted(result.order):
        return None
    places = [n for n, extent in enumerate(result.shape) if extent != 1]
    rest = [n for n, extent in enumerate(result.shape) if extent == 1]
    return (*rest, *(places[n] for n in result.order))


def _is_whole(result: Result) -> bool:
    """Whether the tensor of a result is the result as it is."""
    return (
        bool(prod(result.shape))
        and result.parts == result.shape
        and list(result.order) == list(range(len(result.order)))
    )


def _in_order(result: Result) -> Callable[[Array], Array]:
    """The tensor of a result as a view of it."""
    parts, order = result.parts, result.order
    if not prod(result.shape):  # nothing is written
        shape = tuple(parts[n] for n in order)
        return lambda array: np.empty(shape, array.dtype)
    if _is_whole(result):
        return lambda array: array
    return lambda array: _split(array, parts).transpose(order)


def _split(array: Array, parts: Sequence[int]) -> Array:
    """A view with axes cut in parts; of parts of extent 1 there are none."""
    axes = iter(zip(array.shape, array.strides, strict=True))
    shape: list[int] = []
    strides: list[int] = []
    left = list(parts)
    for extent, stride in axes:
        inner, taken = 1, []
        while inner < extent:
            taken.append(left.pop(0))
            inner *= taken[-1]
        for part in taken:
            inner //= part
            shape.append(part)
            strides.append(inner * stride)
    return np.lib.stride_tricks.as_strided(array, shape, strides)
