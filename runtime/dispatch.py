"""From a call to its plan: every layout that an equation is called with has one.

A layout is what kernels depend on: dtype, shape, strides and alignment of the operands and of
`out`, which operands are the same memory, and whether `out` overlaps any. The first call with a
layout makes its plan (checks, conversions, compilation); every later one looks it up.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.resolve import resolve
from ..compiler.subscripts import Expression, Subscripts
from ..compiler.windows import Given
from . import settings
from .memory import allocate, memory_order
from .missing import at_best_level, explain_missing
from .native_plans import Direct, NativePlans
from .operands import (
    CASTINGS,
    ORDERS,
    Array,
    Dtypes,
    as_arrays,
    check_out,
    choose_dtypes,
    clashes,
    prepare,
    ready,
)
from .optimize import Optimize, check_path
from .tensors import Tensors, tensors_among
from .views import as_view, distinct_output

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from .uses import Use

__all__ = ["Dispatcher", "layout_of", "out_layout", "prepare_all"]

_Write = Callable[[Sequence[Array], Array], None]
"""Computes an einsum of prepared operands into an array that fits."""

_Plan = Callable[[Sequence[Array], Array | None], Any]
"""Computes an einsum of operands, as given, into `out` if there is one, and returns the result."""


class Dispatcher(NativePlans):
    """One equation and its plans.

    Attributes:
        equation: the text of the equation.
        names: what the operands are called, or None.
        optimize: how the order of contraction is chosen.
        memory_limit: bytes that intermediates may take, or None.
        sizes: extents that were asked for.
    """

    __slots__ = ()

    def __init__(
        self,
        subscripts: Subscripts,
        optimize: Optimize,
        names: tuple[str, ...] | None,
        memory_limit: int | None = None,
        sizes: Given = (),
    ) -> None:
        super().__init__()
        if isinstance(optimize, tuple) and not (optimize and isinstance(optimize[0], str)):
            check_path(optimize, len(subscripts.inputs))
        self.equation = subscripts.text
        self.names = names
        self.optimize = optimize
        self.memory_limit = memory_limit
        self.sizes = sizes
        self._subscripts = subscripts

    def _call(
        self,
        operands: tuple[Any, ...],
        out: Array | None,
        dtype: DTypeLike | None,
        order: str | None,
        casting: str,
    ) -> Any:
        """Look the plan up, or make it."""
        self._forget_old()
        if dtype is None and order == "K" and casting == "safe":  # nearly always
            key = layout_of(operands)
            if key is not None:
                if out is None:
                    plan = self._plans.get(key)
                    if plan is not None:
                        if key in self._direct:
                            self._make_native(key, operands, None)
                        return plan(operands, None)
                elif isinstance(out, np.ndarray):
                    key = (key, out_layout(out, operands))
                    plan = self._plans.get(key)
                    if plan is not None:
                        if key in self._direct:
                            self._make_native(key, operands, out)
                        return plan(operands, out)
        return self._call_first(operands, out, dtype, order, casting)

    def _call_first(
        self,
        operands: tuple[Any, ...],
        out: Array | None,
        dtype: DTypeLike | None,
        order: str | None,
        casting: str,
    ) -> Any:
        """What `_call` does, if the layout may be new or an argument unusual."""
        tensors = tensors_among((*operands, out))
        if tensors is not None:
            return self._call_with_tensors(tensors, operands, out, dtype, order, casting)
        for operand in operands:
            if hasattr(operand, "__einsumc_call__"):  # the function around it is being traced
                options = {"out": out, "dtype": dtype, "casting": casting, "sizes": self.sizes}
                return operand.__einsumc_call__(self._subscripts, operands, options)
        order, casting = _check_order(order), _check_casting(casting)
        if dtype is not None:
            dtype = np.dtype(dtype)
        arrays = as_arrays(operands)
        if out is not None and not isinstance(out, np.ndarray):
            check_out(out, ())

        key: Any = layout_of(arrays)
        if out is not None:
            key = (key, out_layout(out, arrays))
        if dtype is not None or order != "K" or casting != "safe":
            key = (key, dtype, order, casting)

        def make() -> _Plan:
            plan, direct = self._make_plan(arrays, out, dtype, order, casting)
            if direct is not None:
                self._direct[key] = direct
            return plan

        return self._obtain(key, make)(arrays, out)

    def _call_with_tensors(
        self,
        tensors: Tensors,
        operands: tuple[Any, ...],
        out: Any,
        dtype: DTypeLike | None,
        order: str | None,
        casting: str,
    ) -> Any:
        """What `_call` does for PyTorch's tensors: a call with arrays on the same memory."""

        def compute(*arrays: Any, out: Array | None = None) -> Any:
            return self._call(arrays, out, tensors.dtype(dtype), order, casting)

        if dtype is None and order == "K" and casting == "safe":
            compute = cast("Any", self)  # which the native entry may have taken over
        return tensors.call(compute, operands, out, self.names)

    def _make_plan(
        self,
        arrays: tuple[Array, ...],
        out: Array | None,
        dtype: np.dtype[Any] | None,
        order: str,
        casting: str,
    ) -> tuple[_Plan, Direct | None]:
        expression = self._resolve(arrays)
        shape = expression.output_shape
        if out is None:
            view = as_view(expression)
            if view is not None and _view_will_do(view(arrays[0]), dtype, order):
                return (lambda operands, out: view(operands[0])[()]), None
        else:
            check_out(out, shape)
        dtypes = choose_dtypes(
            arrays,
            out,
            dtype,
            casting,
            self.names,
            any_scalar_out=self.optimize is not False,
        )

        distinct, part = distinct_output(expression)
        axes = None
        if distinct is expression or order != "K":
            axes = memory_order(expression, arrays, order)
        new = allocate(shape, dtypes.compute, axes)
        in_place = out is not None and ready(out, dtypes.compute) and not clashes(out, arrays)
        target = out if out is not None and in_place else new()

        convert = _conversion(arrays, dtypes.compute)
        compute = self._computation(
            distinct, arrays, convert(arrays) if convert else arrays, part(target), dtypes
        )
        direct = None
        if distinct is expression and convert is None and (in_place or out is None):
            work = getattr(compute, "work", None)
            if work is not None and dtypes.result == dtypes.compute:
                layout = (shape, target.strides) if out is None else None
                direct = Direct(work, ((dtypes.compute, layout),))
        if distinct is not expression:
            compute = _into_part(compute, part)
        if convert is not None:
            compute = _after(convert, compute)
        if out is None:
            return _into_new(compute, new, dtypes, scalar=not shape), direct
        return (_into_out(compute) if in_place else _by_detour(compute, new)), direct

    def _computation(
        self,
        expression: Expression,
        given: Sequence[Array],
        arrays: Sequence[Array],
        target: Array,
        dtypes: Dtypes,
    ) -> _Write:
        """What computes, once operands and output are as kernels want them.

        `given` are the operands before they were made so.
        """
        if target.size == 0:
            return lambda arrays, target: None
        if not prod(extent for _, extent in expression.extents):
            return lambda arrays, target: target.fill(0)
        if not dtypes.has_kernels:
            from .slow import evaluate_slowly

            return functools.partial(evaluate_slowly, expression)

        def prepare_here() -> _Write:
            from .stored_plan import prepare

            call = (expression, arrays, target, self.optimize, self.memory_limit)
            found: _Write = prepare(*call)
            return found

        def use() -> Use:
            from .uses import use_of

            return use_of(
                self.equation,
                expression,
                given,
                dtypes.compute,
                self.optimize,
                self.memory_limit,
                self.sizes,
            )

        what = f"equation   {self.equation}"
        write = at_best_level(prepare_here, lambda why: explain_missing(why, what, given, use))
        path = settings.current().record
        if path is not None:
            from .record import record

            record(path, use)
        return write

    def _resolve(self, arrays: Sequence[Array]) -> Expression:
        """The equation with these shapes; errors call the operands by their names."""
        try:
            return resolve(self._subscripts, [array.shape for array in arrays], self.sizes)
        except EinsumError as error:
            if self.names is None:
                raise
            names = self.names

            def named(match: re.Match[str]) -> str:
                number = int(match[1])
                return f"{match[0]} ({names[number]})" if number < len(names) else match[0]

            message = re.sub(r"\boperand (\d+)", named, error.message)
            raise EinsumError(message, error.text, error.span) from None


_FEW = 5
"""So many operands are compared with each other faster than by their addresses."""


# --- layouts --------------------------------------------------------------------------------------


def layout_of(operands: Sequence[Any]) -> tuple[Any, ...] | None:
    """What kernels depend on, of operands that are arrays; None if one is something else."""
    key: list[Any] = []
    for operand in operands:
        if type(operand) is not np.ndarray:
            return None
        key.append((operand.dtype, operand.shape, operand.strides, operand.flags.aligned))
    if len(operands) == 2:
        if key[0] == key[1] and _is_same(*operands):
            key.append(1)
    elif 2 < len(operands) <= _FEW:
        for later in range(1, len(operands)):
            for first in range(later):
                if key[first] == key[later] and _is_same(operands[first], operands[later]):
                    key += (later, first)
                    break
    elif len(operands) > 2:
        seen: dict[Any, int] = {}
        for later, operand in enumerate(operands):
            first = seen.setdefault((_address(operand), key[later]), later)
            if first != later:
                key += (later, first)
    return tuple(key)


def _is_same(first: Array, second: Array) -> bool:
    """Whether two arrays of one dtype, shape and strides are one."""
    return first is second or (
        np.may_share_memory(first, second)  # cheaper than what follows, and mostly false
        and _address(first) == _address(second)
    )


def _address(array: Array) -> int:
    return cast("int", array.__array_interface__["data"][0])


def out_layout(out: Array, operands: Sequence[Array]) -> tuple[Any, ...]:
    """What a plan depends on, of an array for the result."""
    return (
        out.dtype,
        out.shape,
        out.strides,
        out.flags.aligned,
        out.flags.writeable,
        clashes(out, operands),
    )


def _check_order(order: Any) -> str:
    if order is None:
        return "K"
    if not isinstance(order, str):
        raise EinsumTypeError(f"order must be a str, not {type(order).__name__}")
    if order.upper() not in ORDERS:
        raise EinsumError(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
    return order.upper()


def _check_casting(casting: Any) -> str:
    if casting not in CASTINGS:
        raise EinsumError(f"casting must be one of {', '.join(CASTINGS)}, not {casting!r}")
    return cast("str", casting)


def _view_will_do(view: Array, dtype: np.dtype[Any] | None, order: str) -> bool:
    """Whether a view has the dtype and order that were asked for."""
    return (dtype is None or dtype == view.dtype) and (
        order in "KA"
        or (order == "C" and view.flags.c_contiguous)
        or (order == "F" and view.flags.f_contiguous)
    )


# --- the parts of a plan --------------------------------------------------------------------------


def prepare_all(arrays: Sequence[Array], dtype: np.dtype[Any]) -> list[Array]:
    """Operands as kernels want them; what was one array stays one."""
    made = {id(array): array for array in arrays}
    made = {key: prepare(array, dtype) for key, array in made.items()}
    return [made[id(array)] for array in arrays]


def _conversion(
    arrays: Sequence[Array], dtype: np.dtype[Any]
) -> Callable[[Sequence[Array]], Sequence[Array]] | None:
    """What to do to operands like these before kernels see them."""
    if all(ready(array, dtype) for array in arrays):
        return None
    return lambda operands: prepare_all(operands, dtype)


def _after(convert: Callable[[Sequence[Array]], Sequence[Array]], compute: _Write) -> _Write:
    return lambda operands, target: compute(convert(operands), target)


def _into_part(compute: _Write, part: Callable[[Array], Array]) -> _Write:
    def write(operands: Sequence[Array], target: Array) -> None:
        target.fill(0)
        compute(operands, part(target))

    return write


def _into_new(compute: _Write, new: Callable[[], Array], dtypes: Dtypes, scalar: bool) -> _Plan:
    if scalar or dtypes.result != dtypes.compute:

        def plan(operands: Sequence[Array], out: Array | None) -> Any:
            result = new()
            compute(operands, result)
            return result.astype(dtypes.result, copy=False)[()]
    else:

        def plan(operands: Sequence[Array], out: Array | None) -> Any:
            result = new()
            compute(operands, result)
            return result

    return plan


def _into_out(compute: _Write) -> _Plan:
    def plan(operands: Sequence[Array], out: Array | None) -> Any:
        compute(operands, cast("Array", out))
        return out

    return plan


def _by_detour(compute: _Write, new: Callable[[], Array]) -> _Plan:
    def plan(operands: Sequence[Array], out: Array | None) -> Any:
        result = new()
        compute(operands, result)
        np.copyto(cast("Array", out), result, casting="unsafe")
        return out

    return plan
