"""Functions whose body is compiled: `@compile_einsum` without an equation.

A `CompiledFunction` keeps traces (`compiler/trace`), which are good for operands of any sizes, and
for each layout that it was called with a plan (`function_plan.py`): a program whose kernels are at
hand, and what to make of its results.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..compiler.alone import alone
from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.records import dataclass
from ..compiler.trace import Place, Symbol, Trace, filled, flattened, told_apart, trace
from . import settings
from .declared import Declared
from .dispatch import layout_of, out_layout
from .function_plan import FunctionPlan, Made, make, prepared
from .native_plans import NativePlans
from .operands import Array, check_out, clashes, plain, ready
from .optimize import Optimize
from .tensors import tensors_among

if TYPE_CHECKING:
    from ..compiler.machine import Target
    from ..compiler.program import Program
    from ..compiler.schedule import Schedule
    from .explain import Explanation
    from .kernels import Kernel
    from .manifest import FunctionRequest
    from .precompile import Job
    from .programs import ProgramExecution
    from .signature import Signature
    from .step import Layouts
    from .stored_program import StoredProgram
    from .uses import FunctionUse, GradnormsUse

__all__ = ["CompiledFunction"]


@dataclass(frozen=True, slots=True)
class _Call:
    """The arguments of a call.

    Attributes:
        structure: positional and named arguments, with places for the leaves.
        leaves: what is an operand or a number, in the order of the places.
        static: all that is neither, as a key: a trace is for the same alone.
    """

    structure: Any
    leaves: Sequence[Any]
    static: Any

    @property
    def arrays(self) -> list[Array]:
        """The operands."""
        return [leaf for leaf in self.leaves if type(leaf) is not float]

    @property
    def values(self) -> list[float]:
        """The numbers that every call may have others of."""
        return [leaf for leaf in self.leaves if type(leaf) is float]


class CompiledFunction(Declared, NativePlans):
    """A function made of NumPy's operations, compiled; made by `compile_einsum`.

    Attributes:
        signatures: the signatures it was declared with.
        optimize: how the order of contraction is chosen.
        memory_limit: bytes that intermediates may take, or None.
        written: for a function of `einsumc.gradnorms` its entry in a manifest, by its operands.

    >>> from einsumc import compile_einsum
    >>> @compile_einsum
    ... def norms(a):
    ...     return np.sqrt((a * a).sum(axis=1))
    >>> norms(np.array([[3.0, 4.0], [0.0, 2.0]]))
    array([5., 2.])
    """

    __slots__ = ()

    def __init__(
        self,
        function: Callable[..., Any],
        signatures: tuple[Signature, ...] = (),
        optimize: Optimize = True,
        memory_limit: int | None = None,
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
        self.memory_limit = memory_limit
        self.written: Callable[[Signature], str] | None = None
        self._traces: dict[Any, list[Trace]] = {}
        self._by_value: set[Any] = set()  # keys of plans that hold for some numbers alone
        functools.update_wrapper(cast("Any", self), function)

    def __call__(self, *args: Any, out: Array | None = None, **named: Any) -> Any:
        """What the function returns for these arguments.

        Args:
            *args: as for the function. Arrays, array-likes, NumPy's scalars and PyTorch's tensors
                are operands, also where they are in tuples, lists and dicts. A Python float is a
                number that may be another one in every call. Whatever else there is is part of the
                program, which is traced again for another value.
            out: an array of the shape of the result, if that is one array: it is written to, and
                may overlap operands.
            **named: as for the function.

        Returns:
            New arrays in the structure that the function returns, also where the function itself
            would return a view or one of its arguments; tensors if an operand is one.

        Raises:
            TraceError: (an EinsumError, a ValueError) the function does something that cannot be
                traced, or operands do not fit; the message has the line.
            EinsumError: (a ValueError) `out` does not fit.
        """
        self._forget_old()
        if not named:
            key: Any = layout_of(args)
            if key is not None and (out is None or isinstance(out, np.ndarray)):
                if out is not None:
                    key = (key, out_layout(out, args))
                plan = self._plans.get(key)
                if plan is not None:
                    if key in self._direct:
                        self._make_native(key, args, out)
                    return plan(args, (), out)
        return self._call_first(args, named, out)

    def _call_first(self, args: tuple[Any, ...], named: dict[str, Any], out: Any) -> Any:
        """What a call does, if the layout may be new or an argument unusual."""
        call = self._bound(args, named)
        if any(isinstance(leaf, Symbol) for leaf in call.leaves):  # we are part of what is traced
            return self._function(*args, **named)
        tensors = tensors_among((*call.leaves, out))
        if tensors is not None:

            def compute(*leaves: Any, out: Array | None = None) -> Any:
                args, named = filled(call.structure, leaves)
                return self(*args, out=out, **named)

            return tensors.call(compute, call.leaves, out, self._names(call.structure))
        if out is not None and not isinstance(out, np.ndarray):
            check_out(out, ())
        arrays, values = call.arrays, call.values
        layout: Any = layout_of(arrays)
        plain_call = not named and len(args) == len(arrays) == len(call.leaves)
        if plain_call and all(a is b for a, b in zip(args, arrays, strict=True)):
            key = layout
        else:
            key = call.static, layout
        if out is not None:
            key = (key, out_layout(out, arrays))
        while True:
            by_value = key in self._by_value
            exact = (key, *values) if by_value else key
            plan = self._obtain(exact, lambda: self._make_plan(key, call, out))
            if by_value or key not in self._by_value:
                return plan(arrays, values, out)

    # --- arguments ---

    def _bound(self, args: tuple[Any, ...], named: dict[str, Any]) -> _Call:
        """The arguments of a call by what they are."""
        bound = self._parameters.bind(*args, **named)
        bound.apply_defaults()
        structure, leaves, _ = flattened((bound.args, bound.kwargs), _is_leaf)
        numbers = tuple(n for n, leaf in enumerate(leaves) if type(leaf) is float)
        if not all(type(leaf) in _AS_THEY_ARE for leaf in leaves) and not tensors_among(leaves):
            leaves = [leaf if type(leaf) in _AS_THEY_ARE else np.asarray(leaf) for leaf in leaves]
        return _Call(structure, leaves, (told_apart(structure, _hashable), numbers))

    def _names(self, structure: Any) -> list[str]:
        """What to call the leaves: after the parameters, and their places in them."""
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

    def _trace(self, call: _Call, same: tuple[int, ...]) -> Trace:
        """A trace that is good for these operands and numbers."""
        arrays, values = call.arrays, call.values
        types = tuple((array.dtype.newbyteorder("="), array.ndim) for array in arrays)
        known = self._traces.setdefault((call.static, types, same), [])
        shapes = [array.shape for array in arrays]
        for each in known:
            if each.fits(shapes, values):
                return each
        made = trace(self._function, call.structure, call.leaves, same)
        known.append(made)
        return made

    def _unfolded(self, call: _Call, same: tuple[int, ...] | None = None) -> Made:
        """The program for operands of these shapes.

        Args:
            call: has them.
            same: for every operand the first one that is taken for the same.
        """
        names = [
            name
            for name, leaf in zip(self._names(call.structure), call.leaves, strict=True)
            if type(leaf) is not float
        ]
        shapes = [array.shape for array in call.arrays]
        trace = self._trace(call, _same(call.arrays) if same is None else same)
        return make(trace, shapes, names, call.values)

    def _make_plan(self, key: Any, call: _Call, out: Array | None) -> FunctionPlan:
        made, arrays = self._unfolded(call), call.arrays
        in_place = None
        if out is not None:
            self._check_out(made, out)
            hidden = [each for each in made.constants if isinstance(each, np.ndarray)]
            in_place = ready(out, made.results[0].dtype) and not clashes(out, [*arrays, *hidden])
        made, execution = self._execution(made, call, out if in_place else None)
        if made.trace.guards.given:
            self._by_value.add(key)
        plan = FunctionPlan(made, execution, not all(map(plain, arrays)), in_place)
        if key == layout_of(arrays) or (out is not None and key[0] == layout_of(arrays)):
            direct = None if made.trace.guards.given else plan.direct()
            if direct is not None:
                self._direct[key] = direct
        return plan

    def _check_out(self, made: Made, out: Array) -> None:
        if not isinstance(made.trace.structure, Place):
            raise EinsumError(f"{self._name} returns several results, for which there is no out")
        (result,) = made.results
        check_out(out, result.shape)
        if not np.can_cast(result.dtype, out.dtype, "same_kind"):
            raise EinsumTypeError(f"the result would be cast from {result.dtype} to {out.dtype}")

    def _execution(
        self, made: Made, call: _Call, out: Array | None
    ) -> tuple[Made, ProgramExecution | StoredProgram]:
        """A program, its kernels at hand, for operands of these layouts and an `out` to write to.

        Where the kernels for operands that are the same array are missing, others may be there.
        """
        from .kernels import KernelMissing
        from .missing import at_best_level, explain_missing

        arrays = call.arrays

        def layouts_of(made: Made) -> Layouts:
            results = made.virtual_results() if out is None else made.tensors([out])
            return made.layouts(prepared(arrays), results)

        if stages := settings.current().show:
            from .explain_function import print_stages

            limits = self.optimize, self.memory_limit
            print_stages(stages, self._name, made.program, layouts_of(made), *limits)

        def use() -> FunctionUse | GradnormsUse:
            from .function_use import use_of_function

            args, named = call.structure
            bound = self._parameters.bind(*args, **named)
            bound.apply_defaults()
            return use_of_function(self, bound, call.leaves, made.program)

        def prepare_this(made: Made) -> tuple[Made, ProgramExecution | StoredProgram]:
            from .stored_program import prepare

            limits = self.optimize, self.memory_limit
            return made, prepare(made.program, layouts_of(made), *limits)

        def prepare_here() -> tuple[Made, ProgramExecution | StoredProgram]:
            try:
                return prepare_this(made)
            except KernelMissing:
                others = tuple(range(len(arrays)))
                if made.trace.signature.same == others:
                    raise
                with suppress(KernelMissing):
                    return prepare_this(self._unfolded(call, others))
                raise

        what = f"function   {self.__module__}:{self._name}"
        prepared_as = at_best_level(
            prepare_here,
            lambda problem: explain_missing(problem, what, arrays, use),
        )
        path = settings.current().record
        if path is not None:
            from .record import record
            from .stored_program import StoredProgram

            execution = prepared_as[1]
            if isinstance(execution, StoredProgram) or execution.steps:
                record(path, use)
        return prepared_as

    # --- before any call ---

    def planned(self, *args: Any, **named: Any) -> tuple[Program, ProgramExecution]:
        """What a call with operands like these would execute; it cannot be called itself.

        Args:
            *args: as for a call; only the layouts of arrays matter.
            **named: the same by name.

        Returns:
            The program as it was traced, and how it would be executed, its kernels without code.
        """
        with alone:
            from .plan import planned
            from .programs import prepare_program

            program, layouts = self._planned(args, named)
            limits = self.optimize, planned, self.memory_limit
            return program, prepare_program(program, layouts, *limits)

    def _planned(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Program, Layouts]:
        """The program of a call, and the layouts of its operands and results."""
        call = self._bound(args, named)
        tensors = tensors_among(call.leaves)
        if tensors is not None:
            call = _Call(call.structure, tensors.arrays(call.leaves), call.static)
        made = self._unfolded(call)
        return made.program, made.layouts(prepared(call.arrays), made.virtual_results())

    def planned_for(
        self,
        signature: Signature,
        operands: Sequence[Array],
        arguments: Mapping[str, Any],
        obtain: Callable[[Schedule, Target], Kernel],
        alike: tuple[ProgramExecution, ProgramExecution] | None = None,
    ) -> tuple[ProgramExecution, ProgramExecution]:
        """What calls like one in a manifest would execute, and what they would do without that.

        Args:
            signature: says what the operands are in.
            operands: of which only the layouts matter, and which are the same array.
            arguments: further arguments by name.
            obtain: makes a kernel of a schedule.
            alike: the same of operands of the same dtypes and shapes, if there were any.
        """
        from .function_use import arranged, named_tuple
        from .programs import prepare_apart, prepare_program

        given, named = signature.filled(operands, functools.partial(named_tuple, self))
        for name in named.keys() & arguments.keys():
            raise EinsumError(f"the argument {name!r} is in the signature as well")
        bound = arranged(self._parameters, given, {**named, **arguments})
        program, layouts = self._planned(bound.args, bound.kwargs)
        limits = self.optimize, obtain, self.memory_limit
        known = (None, None) if alike is None else (alike[0].stepped, alike[1].stepped)
        best = None if self.memory_limit is not None else known[0]
        return (
            prepare_program(program, layouts, *limits, best),
            prepare_apart(program, layouts, obtain, known[1]),
        )

    def explain(self, *args: Any, **named: Any) -> Explanation:
        """How a call with operands like these would be computed, for people to read.

        Nothing is computed or compiled.
        """
        with alone:
            from .explain_function import explain_program

            return explain_program(self._name, *self.planned(*args, **named))

    def _jobs(self) -> list[Job]:
        from .precompile import jobs_for_function

        return jobs_for_function(self, self.signatures)

    def request(self) -> FunctionRequest:
        """What it was declared for, as an entry of a manifest is read."""
        from .manifest import FunctionRequest

        return FunctionRequest(f"{self.__module__}:{vars(self)['__qualname__']}", self.signatures)

    def __repr__(self) -> str:
        return f"CompiledFunction({self._name}{self._parameters})"

    def __reduce__(self) -> str:
        return cast("str", vars(self)["__qualname__"])  # found again by name, as functions are


CompiledFunction._entered = CompiledFunction
CompiledFunction._parameters_shown = "$self, /, *args, out=None, **named"

_AS_THEY_ARE = (np.ndarray, float, Symbol)


def _is_leaf(value: Any) -> bool:
    """Whether an argument is an operand, or a number that may be another one in every call."""
    kinds = np.ndarray | np.generic | Symbol
    return type(value) is float or isinstance(value, kinds) or hasattr(value, "__array__")


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        kind = type(value).__name__
        raise EinsumTypeError(f"an argument is a {kind}, neither an array nor hashable") from None
    return value


def _same(arrays: Sequence[Array]) -> tuple[int, ...]:
    """For every operand the first one that is the same array."""
    seen: dict[Any, int] = {}
    return tuple(
        seen.setdefault(
            (a.__array_interface__["data"][0], a.dtype, a.shape, a.strides) if a.size else n, n
        )
        for n, a in enumerate(arrays)
    )
