"""`einsum` and `compile_einsum`: what users call.

Both end in a `CompiledEinsum`: one equation, which keeps a plan for each layout it was called with
(see `runtime/dispatch.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from ..compiler.alone import alone
from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.subscripts import Subscripts, parse
from ..compiler.windows import Given, given_sizes
from .declared import Declared
from .dispatch import Dispatcher, prepare_all
from .memory import parse_bytes
from .operands import Array, as_arrays, choose_dtypes
from .optimize import Optimize, normalize_optimize

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from .explain import Explanation
    from .manifest import Request
    from .precompile import Job
    from .signatures import Signature
    from .traced import CompiledFunction

__all__ = ["CompiledEinsum", "compile_einsum", "einsum"]

_EQUATIONS = 512
"""How many equations `einsum` remembers."""


# --- einsum ---------------------------------------------------------------------------------------


def einsum(
    *operands: Any,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
    order: str | None = "K",
    casting: str = "safe",
    optimize: Any = True,
    memory_limit: int | str | None = None,
    sizes: Mapping[str, int] | None = None,
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
        memory_limit: the most memory for intermediates, in bytes or as a text such as "64 MiB"; by
            default there is no limit. Where they would take more, they are computed in slices.
        sizes: extents of indices, or of affine axes of the output, that are to differ from what
            `compiler/windows.py` says, `{"y": 32}`.

    Returns:
        `out` if it was given; else an array of the result's shape, or a scalar if it has no axes.
        As in NumPy, one operand of which nothing is summed gives a view.

    Raises:
        EinsumError: (a ValueError) the equation is wrong, the operands or `out` do not fit it, or
            intermediates cannot be made as small as `memory_limit`.
        TypeError: a cast is not allowed, or there is no arithmetic for a dtype.
        RuntimeError: an explicit path does not contract all operands.
        MemoryError: the result does not fit in memory.

    >>> a, b = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    >>> einsum("ij,j->i", a, b)
    array([ 5., 14.])
    >>> einsum(a, [0, 1], b, [1], [0])
    array([ 5., 14.])
    """
    if (
        optimize is True
        and memory_limit is None
        and sizes is None
        and dtype is None
        and order == "K"
        and casting == "safe"
        and operands
        and type(operands[0]) is str
        and type(operands[-1]) is np.ndarray
    ):  # nearly always; then as little Python as can be: see `runtime/entry.py`
        compiled = _by_text.get(operands[0]) or _first_by_text(operands[0])
        if out is None:
            return compiled(*operands[1:])
        return compiled(*operands[1:], out=out)
    if type(optimize) is not bool and type(optimize) is not str:
        optimize = normalize_optimize(optimize)
    if memory_limit is not None:
        memory_limit = parse_bytes(memory_limit)
    given = given_sizes(sizes)
    if not operands or type(operands[0]) is not str or type(operands[-1]) in (list, tuple):
        if len(operands) == 2 and type(operands[0]) is str:  # torch's form, unless of one operand
            compiled = _from_text(operands[0], optimize, memory_limit, given)
            if len(compiled._subscripts.inputs) > 1:
                return compiled._call(tuple(operands[1]), out, dtype, order, casting)
        subscripts, rest = _reader()(operands)
        compiled = _from_subscripts(subscripts, optimize, memory_limit, given)
        return compiled._call(rest, out, dtype, order, casting)
    compiled = _from_text(operands[0], optimize, memory_limit, given)
    return compiled._call(operands[1:], out, dtype, order, casting)


_by_text: dict[str, CompiledEinsum] = {}


def _first_by_text(text: str) -> CompiledEinsum:
    compiled = _from_text(text, True, None, ())
    if len(_by_text) >= _EQUATIONS:
        _by_text.clear()
    _by_text[text] = compiled
    return compiled


@functools.cache
def _reader() -> Callable[[tuple[Any, ...]], tuple[Subscripts, tuple[Any, ...]]]:
    """What reads calls without a text, imported once: later calls wait for no other thread."""
    with alone:
        from ..compiler.arguments import from_call

        return from_call


@functools.lru_cache(_EQUATIONS)
def _from_text(
    text: str, optimize: Optimize, memory_limit: int | None, sizes: Given
) -> CompiledEinsum:
    return CompiledEinsum(parse(text), optimize=optimize, memory_limit=memory_limit, sizes=sizes)


@functools.lru_cache(_EQUATIONS)
def _from_subscripts(
    subscripts: Subscripts, optimize: Optimize, memory_limit: int | None, sizes: Given
) -> CompiledEinsum:
    return CompiledEinsum(subscripts, optimize=optimize, memory_limit=memory_limit, sizes=sizes)


# --- compile_einsum -------------------------------------------------------------------------------


@overload
def compile_einsum(
    equation: str,
    *,
    signatures: Iterable[str] = (),
    optimize: Any = True,
    memory_limit: int | str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> CompiledEinsum: ...
@overload
def compile_einsum(
    equation: Callable[..., Any],
    *,
    signatures: Iterable[str] = (),
    optimize: Any = True,
    memory_limit: int | str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> CompiledFunction: ...
@overload
def compile_einsum(
    equation: None = None,
    *,
    signatures: Iterable[str] = (),
    optimize: Any = True,
    memory_limit: int | str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Callable[[Callable[..., Any]], CompiledFunction]: ...
def compile_einsum(
    equation: str | Callable[..., Any] | None = None,
    *,
    signatures: Iterable[str] = (),
    optimize: Any = True,
    memory_limit: int | str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Any:
    """Make a function of an equation; or, as a decorator, give a stub its body, or compile a body.

    Args:
        equation: what to compute, as the first argument of np.einsum. Without one the decorated
            function's body says: it is traced, and may be made of whatever `compiler/trace` knows.
        signatures: dtypes and ranks to have kernels for, `"f4[i,j], f4[j,k]"`, for a body as it is
            called, `"{w: f4[i,o], b: f4[o]}, f4[n,i]"`; the grammar is in `runtime/signatures.py`.
            Calls with others work as well.
        optimize: as for `einsum`.
        memory_limit: as for `einsum`.
        sizes: as for `einsum`; for equations alone.

    Returns:
        A `CompiledEinsum`, or a `CompiledFunction` if there is no equation. Used as a decorator it
        takes the stub's name, docstring and the names of its parameters, one an operand; operands
        may then be given by keyword.

    Raises:
        EinsumError: (a ValueError) the equation or a signature is wrong.
        EinsumTypeError: (a TypeError) the stub does not fit the equation.

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
    limit = None if memory_limit is None else parse_bytes(memory_limit)
    if isinstance(equation, str):
        subscripts = parse(equation)
        checked = _signatures(signatures, subscripts)
        chosen, given = normalize_optimize(optimize), given_sizes(sizes)
        return CompiledEinsum(subscripts, checked, chosen, memory_limit=limit, sizes=given)
    if equation is not None and not callable(equation):
        kind = type(equation).__name__
        raise EinsumTypeError(f"the equation must be a str, or a function to decorate, not {kind}")
    parsed = _signatures(signatures)
    if sizes is not None:
        raise EinsumError("sizes are for equations; a function's body says what its arrays are")
    with alone:
        from .traced import CompiledFunction

    if equation is not None:
        return CompiledFunction(equation, parsed, normalize_optimize(optimize), limit)
    chosen = normalize_optimize(optimize)
    return lambda function: CompiledFunction(function, parsed, chosen, limit)


def _signatures(
    texts: Iterable[str], subscripts: Subscripts | None = None
) -> tuple[Signature, ...]:
    texts = tuple(texts)
    if not texts:
        return ()
    with alone:
        from .signatures import parse_signature

    return tuple(parse_signature(text, subscripts) for text in texts)


class CompiledEinsum(Declared, Dispatcher):
    """One equation, callable on arrays; made by `compile_einsum`.

    Attributes:
        equation: the text of the equation.
        names: what the operands are called, or None.
        signatures: the signatures it was declared with.
        optimize: how the order of contraction is chosen.
        memory_limit: bytes that intermediates may take, or None.
        sizes: extents that were asked for.

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
        memory_limit: int | None = None,
        sizes: Given = (),
    ) -> None:
        super().__init__(subscripts, optimize, names, memory_limit, sizes)
        self.signatures = signatures

    @overload
    def __call__(self, stub: FunctionType, /) -> CompiledEinsum: ...
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

    def explain(self, *operands: ArrayLike, **named: ArrayLike) -> Explanation:
        """How operands like these would be contracted, for people to read.

        Raises what a call would raise, for wrong operands or too low a memory limit. Nothing is
        computed or compiled.

        >>> plan = compile_einsum("ij,jk->ik").explain(np.ones((2, 3)), np.ones((3, 2)))
        >>> plan.steps[0].statement
        'out[i,k] = sum_j a[i,j] * b[j,k]'
        """
        with alone:
            from .explain import explain

            arrays = as_arrays(self._in_order(operands, named) if named else operands)
            expression = self._resolve(arrays)
            compute = choose_dtypes(arrays, names=self.names).compute
            prepared = prepare_all(arrays, compute)
            return explain(expression, prepared, self.optimize, self.names, self.memory_limit)

    def _jobs(self) -> list[Job]:
        from .wanted import jobs_of

        return jobs_of(self.request())

    def request(self) -> Request:
        """What it was declared for, as an entry of a manifest is read."""
        from .manifest import Request

        return Request(
            self._subscripts, self.signatures, self.optimize, self.memory_limit, sizes=self.sizes
        )

    def __repr__(self) -> str:
        name = getattr(self, "__name__", None)
        described = f"{name}: " if name else ""
        return f"CompiledEinsum({described}{self.equation!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if "__wrapped__" in vars(self):
            return cast("str", vars(self)["__qualname__"])  # found again by name, as functions are
        made_of = self._subscripts, self.signatures, self.optimize, self.names, self.memory_limit
        return type(self), (*made_of, self.sizes)

    # --- as a decorator ---

    def _call_first(
        self,
        operands: tuple[Any, ...],
        out: Array | None,
        dtype: DTypeLike | None,
        order: str | None,
        casting: str,
    ) -> Any:
        if len(operands) == 1 and isinstance(operands[0], FunctionType):
            return self._decorate(operands[0])
        return super()._call_first(operands, out, dtype, order, casting)

    def _decorate(self, stub: FunctionType) -> CompiledEinsum:
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
        made = CompiledEinsum(
            self._subscripts, self.signatures, self.optimize, names, self.memory_limit, self.sizes
        )
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


CompiledEinsum._entered = CompiledEinsum
CompiledEinsum._parameters_shown = (
    "$self, /, *operands, out=None, dtype=None, order='K', casting='safe', **named"
)


# --- stubs ----------------------------------------------------------------------------------------


def _parameters(stub: FunctionType) -> tuple[str, ...]:
    """The names of a stub's parameters, which must be plain ones."""
    import inspect  # here, as `dis` below, since it takes long to import

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
    import dis

    harmless = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}
    instructions = list(dis.get_instructions(function))
    return all(step.opname in harmless for step in instructions) and all(
        step.argval is None for step in instructions if step.opname.endswith("_CONST")
    )
