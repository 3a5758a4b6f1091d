"""Symbols: arrays without values, which record what is done to them.

A traced function gets one for every operand. NumPy's functions, operators and methods work on it
through NumPy's own protocols; `functions.py` says what each of them records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from .graph import Node, Operand
from .location import TraceError, here
from .number import Number
from .record import Recorder

__all__ = ["Symbol", "untraced"]


class Symbol(NDArrayOperatorsMixin):
    """An array of known dtype and rank, whose sizes and elements are not known yet."""

    __slots__ = ("_alone", "_recorder", "_traced_node")
    __array_priority__ = 1000

    def __init__(self, recorder: Recorder, node: Node, alone: bool = False) -> None:
        self._recorder = recorder
        self._traced_node = node
        self._alone = alone  # whether nothing else may be a view of the same memory

    # --- what is known ---

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the elements."""
        return self._traced_node.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._traced_node.rank

    @property
    def shape(self) -> tuple[Number, ...]:
        """The extents of the axes, as numbers that a call fills in."""
        return self._recorder.shape(self._traced_node)

    @property
    def size(self) -> Any:
        """The number of elements, as a number that a call fills in."""
        total: Any = 1
        for extent in self.shape:
            total = extent * total
        return total

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(self.dtype.itemsize)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of an array without axes")
        return int(self.shape[0])

    def __repr__(self) -> str:
        return f"<a traced array of {self.dtype} with {self.ndim} axes>"

    # --- NumPy's protocols ---

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        from .functions import call_ufunc

        return call_ufunc(self._recorder, ufunc, method, inputs, options)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, options: Any
    ) -> Any:
        from .functions import call_function

        return call_function(self._recorder, function, args, options)

    def __einsumc_call__(self, compiled: Any, operands: Any, options: Any) -> Any:
        """What a compiled einsum does with traced operands."""
        from .functions import call_compiled

        return call_compiled(self._recorder, compiled, operands, options)

    def __getattr__(self, name: str) -> Any:
        from .functions import METHODS

        if name in METHODS:
            method = METHODS[name]
            return lambda *args, **options: call_method(self, name, method, args, options)
        if not name.startswith("_") and hasattr(np.ndarray, name):
            raise _Missing(f"an array's .{name} is not traced", here())
        raise AttributeError(f"a traced array has no attribute {name!r}")

    @property
    def T(self) -> Any:  # noqa: N802
        """The axes in reverse order."""
        return np.transpose(self)

    @property
    def mT(self) -> Any:  # noqa: N802
        """The last two axes the other way round."""
        return np.swapaxes(self, -1, -2)

    @property
    def real(self) -> Any:
        """The array itself if it is real; of complex ones it is not traced."""
        if self.dtype.kind != "c":
            return self
        raise TraceError("the real part of a complex array is not traced", here())

    def __getitem__(self, key: Any) -> Any:
        from .functions import index

        return index(self, key)

    # --- what writes ---

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TraceError("writing to elements of an array is not traced", here())

    def _becomes(self, node: Node) -> None:
        """Be another array from now on, as an in-place operation makes it."""
        if not self._alone or isinstance(self._traced_node.operation, Operand):
            message = "writing in place is traced only for arrays that the function has just made"
            raise TraceError(message, here())
        self._traced_node = node

    # --- what needs values ---

    def __bool__(self) -> bool:
        raise TraceError(
            "a compiled body cannot branch on the values of an array; np.where chooses for each "
            "element",
            here(),
        )

    def __iter__(self) -> Any:
        raise TraceError("a compiled body cannot iterate over an array; write x[0], x[1]", here())

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TraceError(
            "this needs the values of an array, which a traced one does not have", here()
        )

    def _no_value(self, *_: Any) -> Any:
        raise TraceError("a compiled body cannot take a value out of an array", here())

    __int__ = __float__ = __complex__ = __index__ = __contains__ = _no_value

    __hash__ = object.__hash__


class _Missing(TraceError, AttributeError):
    """An attribute of arrays that is not traced."""


def call_method(
    symbol: Symbol, name: str, method: Callable[..., Any], args: Any, options: Any
) -> Any:
    """Call what is recorded for a method, and say where it was if it does not take that."""
    try:
        return method(symbol, *args, **options)
    except TypeError as error:
        raise untraced(f".{name}", error) from None


def untraced(what: str, error: TypeError) -> TraceError:
    """The error for arguments that a traced function does not take."""
    if isinstance(error, TraceError):
        return error
    return TraceError(f"{what} with these arguments is not traced: {error}", here())
