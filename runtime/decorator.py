"""`einsum` and `compile_einsum`: what users call.

Both end in a `CompiledEinsum`, one equation that keeps a plan for each layout it was called with. A
layout is what kernels depend on: dtype, shape, strides and alignment of the operands and of `out`,
which operands are the same memory, and whether `out` overlaps any. The first call with a layout
makes its plan (checks, conversions, compilation); every later one looks it up.
"""

import dis
import functools
import inspect
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.subscripts import Expression, Subscripts, from_call, parse, resolve
from .operands import (
    CASTINGS,
    ORDERS,
    Array,
    Dtypes,
    allocate,
    as_arrays,
    as_view,
    check_out,
    choose_dtypes,
    clashes,
    distinct_output,
    evaluate_slowly,
    memory_order,
    prepare,
    ready,
)
from .signatures import Signature, parse_signature

if TYPE_CHECKING:
    from .explain import Explanation
    from .precompile import Precompiled
    from .store import Store

__all__ = ["CompiledEinsum", "Optimize", "compile_einsum", "einsum", "normalize_optimize"]

Optimize = bool | str | tuple[str, float] | tuple[tuple[int, ...], ...] | Callable[..., Any]
"""How to choose the order of contraction, hashable; made by `normalize_optimize`."""

_Write = Callable[[Sequence[Array], Array], None]
"""Computes an einsum of prepared operands into an array that fits."""

_Plan = Callable[[Sequence[Array], Array | None], Any]
"""Computes an einsum of operands, as given, into `out` if there is one, and returns the result."""

_PLANS = 4096
"""Plans that one object keeps; when it has so many it starts anew."""


# --- einsum ---------------------------------------------------------------------------------------


def einsum(
    *operands: Any,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
    order: str | None = "K",
    casting: str = "safe",
    optimize: Any = True,
) -> Any:
    """Evaluate an einsum: `np.einsum`, compiled.

    Args:
        *operands: the equation and the operands in one of these forms: `("ij,jk->ik", a, b)`;
            torch's `("ij,jk->ik", [a, b])`; interleaved, `(a, [0, 1], b, [1, 2], [0, 2])`. Operands
            are array-likes of any shape that fits the equation, of boolean, integer, floating or
            complex dtype, or of objects that multiply and add.
        out: an array of the result's shape to write to; it may overlap operands.
        dtype: the dtype to compute in; by default what `np.result_type` says of operands and `out`.
        order: the memory layout of a new result: "C", "F", "A" (F if all operands are) or "K" (near
            that of the operands).
        casting: which casts are allowed: "no", "equiv", "safe", "same_kind" or "unsafe".
        optimize: how to order the contractions: True for einsumc's own choice, False to contract
            all operands at once, or the name of an algorithm, an explicit path, or whatever else
            `normalize_optimize` takes.

    Returns:
        `out` if it was given; else an array of the result's shape, or a scalar if it has no axes.
        As in NumPy, one operand of which nothing is summed gives a view.

    Raises:
        EinsumError: (a ValueError) the equation is wrong or the operands or `out` do not fit it.
        TypeError: a cast is not allowed, or there is no arithmetic for a dtype.
        RuntimeError: an explicit path does not contract all operands.
        MemoryError: the result does not fit in memory.

    >>> a, b = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    >>> einsum("ij,j->i", a, b)
    array([ 5., 14.])
    >>> einsum(a, [0, 1], b, [1], [0])
    array([ 5., 14.])
    """
    if type(optimize) is not bool and type(optimize) is not str:
        optimize = normalize_optimize(optimize)
    if not operands or type(operands[0]) is not str or type(operands[-1]) in (list, tuple):
        subscripts, rest = from_call(operands)
        compiled = _from_subscripts(subscripts, optimize)
        return compiled._call(rest, out, dtype, order, casting)
    return _from_text(operands[0], optimize)._call(operands[1:], out, dtype, order, casting)


@functools.lru_cache(512)
def _from_text(text: str, optimize: Optimize) -> "CompiledEinsum":
    return CompiledEinsum(parse(text), optimize=optimize)


@functools.lru_cache(512)
def _from_subscripts(subscripts: Subscripts, optimize: Optimize) -> "CompiledEinsum":
    return CompiledEinsum(subscripts, optimize=optimize)


def normalize_optimize(optimize: Any) -> Optimize:
    """The `optimize` argument of NumPy or opt_einsum in one form, which can be hashed.

    Args:
        optimize: a bool (None is False); a name such as "greedy" or "optimal"; a pair of a name and
            the largest intermediate in elements; an explicit path, `[(1, 2), (0, 1)]`, with
            "einsum_path" before it as NumPy has it or without; or a callable, such as an opt_einsum
            `PathOptimizer`.

    Raises:
        EinsumTypeError: (a TypeError) it is something else.

    >>> normalize_optimize(["einsum_path", (1, 2), (0, 1)])
    ((1, 2), (0, 1))
    >>> normalize_optimize(("greedy", 1000))
    ('greedy', 1000)
    """
    if optimize is None or isinstance(optimize, bool | np.bool_):
        return bool(optimize)
    if isinstance(optimize, str) or callable(optimize):
        return cast("Optimize", optimize)
    if isinstance(optimize, Sequence) and len(optimize):
        first, rest = optimize[0], list(optimize[1:])
        if isinstance(first, str) and first != "einsum_path":
            if len(rest) == 1 and isinstance(rest[0], int | np.integer):
                return first, int(rest[0])
            if len(rest) == 1 and isinstance(rest[0], float | np.floating):
                return first, float(rest[0])
        else:
            try:
                steps = rest if isinstance(first, str) else list(optimize)
                return tuple(tuple(int(position) for position in step) for step in steps)
            except (TypeError, ValueError):
                pass
    raise EinsumTypeError(
        "optimize must be a bool, the name of an algorithm, (name, memory limit), a path such as "
        f"[(1, 2), (0, 1)], or a callable, not {optimize!r}"
    )


def _check_path(path: tuple[tuple[int, ...], ...], operands: int) -> None:
    """Raise RuntimeError, as NumPy does, if a path does not contract so many operands to one."""
    left = operands
    for step in path:
        if not step or len({*step}) < len(step) or not all(0 <= n < left for n in step):
            raise RuntimeError(f"invalid path {list(path)}: step {step} of {left} operands")
        left += 1 - len(step)
    if left > 1:
        raise RuntimeError(f"invalid path {list(path)}: it leaves {left} operands uncontracted")


# --- compile_einsum -------------------------------------------------------------------------------


@overload
def compile_einsum(
    equation: str, *, signatures: Iterable[str] = (), optimize: Any = True
) -> "CompiledEinsum": ...
@overload
def compile_einsum(
    equation: Callable[..., Any], *, signatures: Iterable[str] = (), optimize: Any = True
) -> "CompiledEinsum": ...
@overload
def compile_einsum(
    equation: None = None, *, signatures: Iterable[str] = (), optimize: Any = True
) -> Callable[[Callable[..., Any]], "CompiledEinsum"]: ...
def compile_einsum(
    equation: str | Callable[..., Any] | None = None,
    *,
    signatures: Iterable[str] = (),
    optimize: Any = True,
) -> Any:
    """Make a function of an equation; or, as a decorator, give a stub its body.

    Args:
        equation: what to compute, as the first argument of np.einsum. (Without one the decorated
            function's body would say; that is not implemented yet.)
        signatures: dtypes and ranks to have kernels for, `"f4[i,j], f4[j,k]"`; the grammar is in
            `runtime/signatures.py`. Calls with others work as well.
        optimize: as for `einsum`.

    Returns:
        A `CompiledEinsum`. Used as a decorator it takes the stub's name, docstring and the names of
        its parameters, one an operand; operands may then be given by keyword.

    Raises:
        EinsumError: (a ValueError) the equation or a signature is wrong.
        EinsumTypeError: (a TypeError) the stub does not fit the equation.
        NotImplementedError: there is no equation.

    >>> multiply = compile_einsum("ij,jk->ik")
    >>> multiply(np.ones((2, 3)), np.ones((3, 2)))
    array([[3., 3.],
           [3., 3.]])
    >>> @compile_einsum("ij,jk,kl->il")
    ... def chain(a, b, c):
    ...     "A product of three matrices."
    >>> chain(np.eye(2), c=np.eye(2), b=np.ones((2, 2)))
    array([[1., 1.],
           [1., 1.]])
    """
    if isinstance(signatures, str):
        signatures = (signatures,)
    if isinstance(equation, str):
        subscripts = parse(equation)
        checked = tuple(parse_signature(signature, subscripts) for signature in signatures)
        return CompiledEinsum(subscripts, checked, normalize_optimize(optimize))
    if equation is not None and not callable(equation):
        kind = type(equation).__name__
        raise EinsumTypeError(f"the equation must be a str, or a function to decorate, not {kind}")
    parsed = tuple(parse_signature(signature) for signature in signatures)
    if equation is not None:
        return _trace_body(equation, parsed, normalize_optimize(optimize))
    return lambda function: _trace_body(function, parsed, normalize_optimize(optimize))


def _trace_body(
    function: Callable[..., Any], signatures: tuple[Signature, ...], optimize: Optimize
) -> "CompiledEinsum":
    """What the einsums in a function's body compute; to be."""
    raise NotImplementedError(
        f"{getattr(function, '__name__', function)}: compiling the body of a function is not "
        'implemented yet; give the equation, as in @compile_einsum("ij,jk->ik")'
    )


class CompiledEinsum:
    """One equation, callable on arrays; made by `compile_einsum`.

    Attributes:
        equation: the text of the equation.
        names: what the operands are called, or None.
        signatures: the signatures it was declared with.
        optimize: how the order of contraction is chosen.

    >>> norm = compile_einsum("ij,ij->")
    >>> norm
    CompiledEinsum('ij,ij->')
    >>> print(norm(np.ones((2, 3)), np.ones((2, 3))))
    6.0
    """

    def __init__(
        self,
        subscripts: Subscripts,
        signatures: tuple[Signature, ...] = (),
        optimize: Optimize = True,
        names: tuple[str, ...] | None = None,
    ) -> None:
        if isinstance(optimize, tuple) and not (optimize and isinstance(optimize[0], str)):
            _check_path(optimize, len(subscripts.inputs))
        self.equation = subscripts.text
        self.names = names
        self.signatures = signatures
        self.optimize = optimize
        self._subscripts = subscripts
        self._plans: dict[Any, _Plan] = {}
        self._making: dict[Any, _Making] = {}

    @overload
    def __call__(self, stub: FunctionType, /) -> "CompiledEinsum": ...
    @overload
    def __call__(
        self,
        *operands: ArrayLike,
        out: Array | None = None,
        dtype: DTypeLike | None = None,
        order: str | None = "K",
        casting: str = "safe",
        **named: ArrayLike,
    ) -> Any: ...
    def __call__(
        self,
        *operands: Any,
        out: Array | None = None,
        dtype: DTypeLike | None = None,
        order: str | None = "K",
        casting: str = "safe",
        **named: Any,
    ) -> Any:
        """Compute; arguments, result and exceptions are those of `einsum`.

        Called with a function, decorate it: see `compile_einsum`.
        """
        if named:
            operands = self._in_order(operands, named)
        return self._call(operands, out, dtype, order, casting)

    def explain(self, *operands: ArrayLike, **named: ArrayLike) -> "Explanation":
        """How operands like these would be contracted, for people to read.

        Raises what a call would raise for wrong operands. Nothing is computed or compiled.

        >>> plan = compile_einsum("ij,jk->ik").explain(np.ones((2, 3)), np.ones((3, 2)))
        >>> plan.steps[0].statement
        'out[i,k] = sum_j a[i,j] * b[j,k]'
        """
        from .explain import explain

        arrays = as_arrays(self._in_order(operands, named) if named else operands)
        expression = self._resolve(arrays)
        compute = choose_dtypes(arrays, names=self.names).compute
        return explain(expression, _prepared(arrays, compute), self.optimize, self.names)

    def precompile(self, *, store: "Store | None" = None, jobs: int = 1) -> "list[Precompiled]":
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
        from .precompile import build, jobs_for

        if not self.signatures:
            raise EinsumError(f"{self!r} has no signatures that say what to compile it for")
        wanted = jobs_for(self._subscripts, self.signatures, self.optimize)
        return build(wanted, store=store, jobs=jobs)

    def __repr__(self) -> str:
        name = getattr(self, "__name__", None)
        described = f"{name}: " if name else ""
        return f"CompiledEinsum({described}{self.equation!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if "__wrapped__" in vars(self):
            return cast("str", vars(self)["__qualname__"])  # found again by name, as functions are
        return type(self), (self._subscripts, self.signatures, self.optimize, self.names)

    # --- a call ---

    def _call(
        self,
        operands: tuple[Any, ...],
        out: Array | None,
        dtype: DTypeLike | None,
        order: str | None,
        casting: str,
    ) -> Any:
        """Look the plan up, or make it."""
        if dtype is None and order == "K" and casting == "safe":  # nearly always
            key = _layout(operands)
            if key is not None:
                if out is None:
                    plan = self._plans.get(key)
                    if plan is not None:
                        return plan(operands, None)
                elif isinstance(out, np.ndarray):
                    plan = self._plans.get((key, _out_layout(out, operands)))
                    if plan is not None:
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
        if len(operands) == 1 and isinstance(operands[0], FunctionType):
            return self._decorate(operands[0])
        order, casting = _check_order(order), _check_casting(casting)
        if dtype is not None:
            dtype = np.dtype(dtype)
        arrays = as_arrays(operands)
        if out is not None and not isinstance(out, np.ndarray):
            check_out(out, ())

        key: Any = _layout(arrays)
        if out is not None:
            key = (key, _out_layout(out, arrays))
        if dtype is not None or order != "K" or casting != "safe":
            key = (key, dtype, order, casting)
        return self._plan(key, arrays, out, dtype, order, casting)(arrays, out)

    def _plan(self, key: Any, *call: Any) -> _Plan:
        """The plan for this key; however many threads ask for it at once, one of them makes it."""
        while True:
            plan = self._plans.get(key)
            if plan is not None:
                return plan
            mine = _Making()
            theirs = self._making.setdefault(key, mine)
            if theirs is not mine:
                if theirs.process == os.getpid():
                    theirs.done.wait()
                    continue
                self._making[key] = mine  # a thread that was not taken along when we were forked
            try:
                plan = self._make_plan(*call)
                if len(self._plans) >= _PLANS:
                    self._plans.clear()
                self._plans[key] = plan
                return plan
            finally:
                self._making.pop(key, None)
                mine.done.set()

    def _make_plan(
        self,
        arrays: tuple[Array, ...],
        out: Array | None,
        dtype: np.dtype[Any] | None,
        order: str,
        casting: str,
    ) -> _Plan:
        expression = self._resolve(arrays)
        shape = expression.output_shape
        if out is None:
            view = as_view(expression)
            if view is not None and _view_will_do(view(arrays[0]), dtype, order):
                return lambda operands, out: view(operands[0])[()]
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
            distinct, convert(arrays) if convert else arrays, part(target), dtypes
        )
        if distinct is not expression:
            compute = _into_part(compute, part)
        if convert is not None:
            compute = _after(convert, compute)
        if out is None:
            return _into_new(compute, new, dtypes, scalar=not shape)
        return _into_out(compute) if in_place else _by_detour(compute, new)

    def _computation(
        self, expression: Expression, arrays: Sequence[Array], target: Array, dtypes: Dtypes
    ) -> _Write:
        """What computes, once operands and output are as kernels want them."""
        if target.size == 0:
            return lambda arrays, target: None
        if not prod(extent for _, extent in expression.extents):
            return lambda arrays, target: target.fill(0)
        if not dtypes.has_kernels:
            return functools.partial(evaluate_slowly, expression)
        from .execute import prepare as prepare_execution

        write: _Write = prepare_execution(expression, arrays, target, self.optimize)
        return write

    def _resolve(self, arrays: Sequence[Array]) -> Expression:
        """The equation with these shapes; errors call the operands by their names."""
        try:
            return resolve(self._subscripts, [array.shape for array in arrays])
        except EinsumError as error:
            if self.names is None:
                raise
            names = self.names

            def named(match: re.Match[str]) -> str:
                number = int(match[1])
                return f"{match[0]} ({names[number]})" if number < len(names) else match[0]

            message = re.sub(r"\boperand (\d+)", named, error.message)
            raise EinsumError(message, error.text, error.span) from None

    # --- as a decorator ---

    def _decorate(self, stub: FunctionType) -> "CompiledEinsum":
        """The same with the names of the stub and of its parameters."""
        names = _parameters(stub)
        terms = len(self._subscripts.inputs)
        if len(names) != terms:
            raise EinsumTypeError(
                f"{stub.__name__} has {len(names)} parameter{'s' * (len(names) != 1)}, but the "
                f"equation {self.equation} has {terms} term{'s' * (terms != 1)}"
            )
        if not _is_stub(stub):
            raise EinsumTypeError(
                f"{stub.__name__} has a body, which would be ignored, since the equation "
                f"{self.equation} says what it computes; write ... instead"
            )
        made = CompiledEinsum(self._subscripts, self.signatures, self.optimize, names)
        functools.update_wrapper(cast("Any", made), stub)
        return made

    def _in_order(self, operands: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """All operands in order, some of which came by name."""
        function = getattr(self, "__name__", "the compiled einsum")
        names = self.names or ()
        for name in named:
            if name not in names:
                raise EinsumTypeError(f"{function} has no operand {name!r}")
            if names.index(name) < len(operands):
                raise EinsumTypeError(f"{function} got its operand {name!r} twice")
        for name in names[len(operands) :]:
            if name not in named:
                raise EinsumTypeError(f"{function} misses its operand {name!r}")
        return operands + tuple(named[name] for name in names[len(operands) :])


class _Making:
    """A plan that a thread is making."""

    __slots__ = ("done", "process")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.process = os.getpid()


# --- layouts --------------------------------------------------------------------------------------


def _layout(operands: Sequence[Any]) -> tuple[Any, ...] | None:
    """What kernels depend on, of operands that are arrays; None if one is something else."""
    key: list[Any] = []
    for operand in operands:
        if type(operand) is not np.ndarray:
            return None
        key.append((operand.dtype, operand.shape, operand.strides, operand.flags.aligned))
    if len(operands) == 2:
        if key[0] == key[1] and _is_same(*operands):
            key.append(1)
    elif len(operands) > 2:
        for later in range(1, len(operands)):
            for first in range(later):
                if key[first] == key[later] and _is_same(operands[first], operands[later]):
                    key += (later, first)
                    break
    return tuple(key)


def _is_same(first: Array, second: Array) -> bool:
    """Whether two arrays of one dtype, shape and strides are one."""
    return first is second or (
        np.may_share_memory(first, second)  # cheaper than what follows, and mostly false
        and _address(first) == _address(second)
    )


def _address(array: Array) -> int:
    return cast("int", array.__array_interface__["data"][0])


def _out_layout(out: Array, operands: Sequence[Array]) -> tuple[Any, ...]:
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


def _prepared(arrays: Sequence[Array], dtype: np.dtype[Any]) -> list[Array]:
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
    return lambda operands: _prepared(operands, dtype)


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


# --- stubs ----------------------------------------------------------------------------------------


def _parameters(stub: FunctionType) -> tuple[str, ...]:
    """The names of a stub's parameters, which must be plain ones."""
    parameters = inspect.signature(stub).parameters.values()
    for parameter in parameters:
        problem = None
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            problem = "is not positional"
        elif parameter.default is not parameter.empty:
            problem = "has a default"
        elif parameter.name in ("out", "dtype", "order", "casting"):
            problem = "has the name of an option of the call"
        if problem:
            raise EinsumTypeError(
                f"the parameters of {stub.__name__} name the operands, but {parameter} {problem}"
            )
    return tuple(parameter.name for parameter in parameters)


def _is_stub(function: FunctionType) -> bool:
    """Whether a body is nothing but a docstring, `...`, `pass` or `return None`."""
    harmless = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}
    instructions = list(dis.get_instructions(function))
    return all(step.opname in harmless for step in instructions) and all(
        step.argval is None for step in instructions if step.opname.endswith("_CONST")
    )
