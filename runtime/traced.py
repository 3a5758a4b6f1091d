"""Functions whose body is compiled: `@compile_einsum` without an equation.

A `CompiledFunction` keeps traces (`compiler/trace`), which are good for operands of any sizes, and
for each layout that it was called with a plan: a program whose kernels are at hand, and what to
make of its results.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.records import dataclass
from ..compiler.trace import Place, Result, Symbol, Trace, filled, flattened, trace, unfold
from . import settings
from .dispatch import layout_of, out_layout
from .memory import allocate
from .operands import Array, check_out, clashes, plain, prepare, ready
from .optimize import Optimize
from .plan_cache import PlanCache
from .signatures import Signature

if TYPE_CHECKING:
    from ..compiler.program import Program
    from .execute import Layouts
    from .explain import Explanation
    from .manifest import FunctionRequest
    from .precompile import Precompiled
    from .programs import ProgramExecution
    from .store import Store

__all__ = ["CompiledFunction"]

_Plan = Callable[[Sequence[Array], Array | None], Any]
"""Computes what the function returns, of operands as given, into `out` if there is one."""


class CompiledFunction(PlanCache):
    """A function made of NumPy's operations, compiled; made by `compile_einsum`.

    Attributes:
        signatures: the signatures it was declared with.
        optimize: how the order of contraction is chosen.

    >>> from einsumc import compile_einsum
    >>> @compile_einsum
    ... def norms(a):
    ...     return np.sqrt((a * a).sum(axis=1))
    >>> norms(np.array([[3.0, 4.0], [0.0, 2.0]]))
    array([5., 2.])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signatures: tuple[Signature, ...] = (),
        optimize: Optimize = True,
    ) -> None:
        super().__init__()
        self._function = function
        self._name = getattr(function, "__name__", type(function).__name__)
        self._parameters = inspect.signature(function)
        if "out" in self._parameters.parameters:
            raise EinsumTypeError(
                f"{self._name} has a parameter 'out', which is an option of the call"
            )
        self.signatures = signatures
        self.optimize = optimize
        self._traces: dict[Any, list[Trace]] = {}
        functools.update_wrapper(cast("Any", self), function)

    def __call__(self, *args: Any, out: Array | None = None, **named: Any) -> Any:
        """What the function returns for these arguments.

        Args:
            *args: as for the function. Arrays, array-likes and NumPy's scalars are operands, also
                where they are in tuples, lists and dicts; whatever else there is is part of the
                program, which is traced again for another value.
            out: an array of the shape of the result, if that is one array: it is written to, and
                may overlap operands.
            **named: as for the function.

        Returns:
            New arrays in the structure that the function returns, also where the function itself
            would return a view or one of its arguments.

        Raises:
            TraceError: (an EinsumError, a ValueError) the function does something that cannot be
                traced, or operands do not fit; the message has the line.
            EinsumError: (a ValueError) `out` does not fit.
        """
        structure, leaves = self._operands(args, named)
        if any(isinstance(leaf, Symbol) for leaf in leaves):  # we are part of what is traced
            return self._function(*args, **named)
        self._forget_old()
        arrays = [leaf if type(leaf) is np.ndarray else np.asarray(leaf) for leaf in leaves]
        static = _hashable(structure)
        key: Any = static, layout_of(arrays)
        if out is not None:
            if not isinstance(out, np.ndarray):
                check_out(out, ())
            key = (key, out_layout(out, arrays))
        plan = self._plans.get(key)
        if plan is None:
            plan = self._obtain(key, lambda: self._make_plan(structure, static, arrays, out))
        return plan(arrays, out)

    # --- arguments ---

    def _operands(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, list[Any]]:
        """The structure of the arguments, and the operands in it."""
        bound = self._parameters.bind(*args, **named)
        bound.apply_defaults()
        structure, leaves, _ = flattened((bound.args, bound.kwargs), _is_operand)
        return structure, leaves

    def _names(self, structure: Any) -> list[str]:
        """What to call the operands: after the parameters, and their places in them."""
        arguments = self._parameters.bind(*structure[0], **structure[1]).arguments
        _, places, names = flattened(dict(arguments), lambda value: isinstance(value, Place))
        order = sorted(range(len(places)), key=lambda n: places[n].number)
        found: dict[str, None] = {}
        for name in (names[n] for n in order):
            while name in found:
                name += "_"
            found[name] = None
        return list(found)

    # --- plans ---

    def _trace(self, structure: Any, static: Any, arrays: Sequence[Array]) -> Trace:
        """A trace that is good for these operands."""
        same = _same(arrays)
        key = static, tuple((array.dtype.newbyteorder("="), array.ndim) for array in arrays), same
        known = self._traces.setdefault(key, [])
        shapes = [array.shape for array in arrays]
        for each in known:
            if each.fits(shapes):
                return each
        made = trace(self._function, structure, arrays, same)
        known.append(made)
        return made

    def _make_plan(
        self, structure: Any, static: Any, arrays: Sequence[Array], out: Array | None
    ) -> _Plan:
        made = self._unfolded(structure, static, arrays)
        if out is not None:
            return self._plan_for_out(made, arrays, out)
        convert = not all(map(plain, arrays))
        constants, returned = made.constants, made.returned
        new = [_allocation(result) for result in made.results]
        parts = [_in_order(result) for result in made.results]
        tensors = [part(make()) for make, part in zip(new, parts, strict=True)]
        execution = self._execution(made, arrays, tensors)

        def plan(operands: Sequence[Array], out: Array | None) -> Any:
            if convert:
                operands = _prepared(operands)
            results = [make() for make in new]
            tensors = [part(result) for part, result in zip(parts, results, strict=True)]
            execution([*operands, *constants], tensors)
            return filled(returned, [result[()] for result in results])

        return plan

    def _plan_for_out(self, made: _Made, arrays: Sequence[Array], out: Array) -> _Plan:
        if not isinstance(made.returned, Place):
            raise EinsumError(f"{self._name} returns several results, for which there is no out")
        (result,) = made.results
        check_out(out, result.shape)
        if not np.can_cast(result.dtype, out.dtype, "same_kind"):
            raise EinsumTypeError(f"the result would be cast from {result.dtype} to {out.dtype}")
        constants = made.constants
        in_place = ready(out, result.dtype) and not clashes(out, [*arrays, *constants])
        make, part = _allocation(result), _in_order(result)
        execution = self._execution(made, arrays, [part(out if in_place else make())])

        def plan(operands: Sequence[Array], out: Array | None) -> Any:
            target = cast("Array", out) if in_place else make()
            execution([*_prepared(operands), *constants], [part(target)])
            if not in_place:
                np.copyto(cast("Array", out), target, casting="same_kind")
            return out

        return plan

    def _unfolded(self, structure: Any, static: Any, arrays: Sequence[Array]) -> _Made:
        """The program for operands of these layouts."""
        traced = self._trace(structure, static, arrays)
        shapes = [array.shape for array in arrays]
        unfolded = unfold(traced, shapes, self._names(structure))
        constants = tuple(prepare(each, _native(each)) for each in unfolded.constants)
        returned = traced.returned(traced.shapes(shapes))
        return _Made(unfolded.program, unfolded.results, constants, returned)

    def _execution(
        self, made: _Made, arrays: Sequence[Array], results: Sequence[Array]
    ) -> ProgramExecution:
        """A program, its kernels at hand, for operands and results of these layouts."""
        from .missing import at_best_level
        from .programs import prepare_program

        layouts = made.layouts([*_prepared(arrays), *made.constants], results)
        if stages := settings.current().show:
            from .explain_function import print_stages

            print_stages(stages, self._name, made.program, layouts, self.optimize)
        return at_best_level(
            lambda: prepare_program(made.program, layouts, self.optimize),
            lambda problem: self._missing(problem, arrays),
        )

    def _missing(self, problem: Exception, arrays: Sequence[Array]) -> str:
        """What to say where a kernel is missing."""
        given = ", ".join(f"{a.dtype} {'x'.join(map(str, a.shape)) or '()'}" for a in arrays)
        return (
            f"a kernel is in no store, and it may not or cannot be compiled here\n"
            f"  function   {self.__module__}:{self._name}\n"
            f"  operands   {given}\n"
            f"  kernel     {problem}\n"
            "Declare signatures= for such operands, and call .precompile() where compiling is "
            "allowed."
        )

    # --- before any call ---

    def planned(self, *args: Any, **named: Any) -> tuple[Program, ProgramExecution]:
        """What a call with operands like these would execute; it cannot be called itself.

        Args:
            *args: as for a call; only the layouts of arrays matter.
            **named: the same by name.

        Returns:
            The program as it was traced, and how it would be executed, its kernels without code.
        """
        from .plan import planned, virtual
        from .programs import prepare_program

        structure, leaves = self._operands(args, named)
        arrays = [leaf if type(leaf) is np.ndarray else np.asarray(leaf) for leaf in leaves]
        made = self._unfolded(structure, _hashable(structure), arrays)
        results = [
            _in_order(result)(virtual(result.shape, result.dtype, _axes(result)))
            for result in made.results
        ]
        layouts = made.layouts([*_prepared(arrays), *made.constants], results)
        return made.program, prepare_program(made.program, layouts, self.optimize, planned)

    def explain(self, *args: Any, **named: Any) -> Explanation:
        """How a call with operands like these would be computed, for people to read.

        Nothing is computed or compiled.
        """
        from .explain_function import explain_program

        return explain_program(self._name, *self.planned(*args, **named))

    def precompile(self, *, store: Store | None = None, jobs: int = 1) -> list[Precompiled]:
        """Compile every kernel that calls of the declared signatures need.

        Args:
            store: where the kernels go; by default where einsumc looks for them.
            jobs: processes to compile in; see `runtime.precompile.precompile`.

        Returns:
            The kernels, whether they were compiled now or before.

        Raises:
            EinsumError: (a ValueError) no signatures were declared.
            OSError: the store cannot be written.
        """
        from .precompile import build, jobs_for_function

        if not self.signatures:
            raise EinsumError(f"{self!r} has no signatures that say what to compile it for")
        wanted = jobs_for_function(self, self.signatures)
        return build(wanted, store=store, jobs=jobs)

    def request(self) -> FunctionRequest:
        """What it was declared for, as an entry of a manifest is read."""
        from .manifest import FunctionRequest

        return FunctionRequest(f"{self.__module__}:{vars(self)['__qualname__']}", self.signatures)

    def __repr__(self) -> str:
        return f"CompiledFunction({self._name}{self._parameters})"

    def __reduce__(self) -> str:
        return cast("str", vars(self)["__qualname__"])  # found again by name, as functions are


def _is_operand(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic | Symbol) or hasattr(value, "__array__")


def _hashable(structure: Any) -> Any:
    """The same as a key: values that differ in their types are others."""
    if isinstance(structure, dict):
        return dict, tuple((key, _hashable(each)) for key, each in structure.items())
    if isinstance(structure, tuple | list):
        return type(structure), tuple(map(_hashable, structure))
    try:
        hash(structure)
    except TypeError:
        kind = type(structure).__name__
        raise EinsumTypeError(f"an argument is a {kind}, neither an array nor hashable") from None
    return type(structure), structure


def _same(arrays: Sequence[Array]) -> tuple[int, ...]:
    """For every operand the first one that is the same array."""
    seen: dict[Any, int] = {}
    return tuple(
        seen.setdefault(
            (a.__array_interface__["data"][0], a.dtype, a.shape, a.strides) if a.size else n, n
        )
        for n, a in enumerate(arrays)
    )


def _native(array: Array) -> np.dtype[Any]:
    return array.dtype.newbyteorder("=")


def _prepared(arrays: Sequence[Array]) -> list[Array]:
    """Operands as kernels want them; what was one array stays one."""
    made: dict[int, Array] = {}
    for array in arrays:
        if id(array) not in made:
            made[id(array)] = prepare(array, _native(array))
    return [made[id(array)] for array in arrays]


# --- results --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Made:
    """A program for operands of some shapes, and what to make of its results."""

    program: Program
    results: tuple[Result, ...]
    constants: tuple[Array, ...]
    returned: Any

    def layouts(self, operands: Sequence[Array], results: Sequence[Array]) -> Layouts:
        """The layouts of the program's inputs and results."""
        names = (*self.program.inputs, *self.program.results)
        arrays = (*operands, *results)
        return {
            name: (array.strides, array.dtype) for name, array in zip(names, arrays, strict=True)
        }


def _allocation(result: Result) -> Callable[[], Array]:
    """How to make a result."""
    return allocate(result.shape, result.dtype, _axes(result))


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


def _in_order(result: Result) -> Callable[[Array], Array]:
    """The tensor of a result as a view of it."""
    parts, order = result.parts, result.order
    if not prod(result.shape):  # nothing is written
        shape = tuple(parts[n] for n in order)
        return lambda array: np.empty(shape, array.dtype)
    if parts == result.shape and list(order) == list(range(len(order))):
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
