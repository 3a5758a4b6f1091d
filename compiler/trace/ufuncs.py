"""NumPy's universal functions on traced arrays: what each of them records.

Most are functions of a formula under their own names. Some are made of others here, in the way that
NumPy computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..formula import FUNCTIONS
from .graph import Node
from .linear import LINEAR
from .location import TraceError, here
from .number import Number
from .record import Recorder, Value

__all__ = ["record_ufunc"]

_LARGEST_PRODUCT = 4
"""The largest power that is a product."""


def record_ufunc(
    recorder: Recorder, ufunc: Any, method: str, inputs: Sequence[Any], options: dict[str, Any]
) -> Node:
    """The node of a call of a universal function, or of one of its methods."""
    options = {key: value for key, value in options.items() if not _is_default(key, value)}
    dtype, casting = options.pop("dtype", None), options.pop("casting", "same_kind")
    name = ufunc.__name__
    if method == "reduce" and ufunc is np.add:
        from .functions import total

        return total(recorder, *inputs, **{"axis": 0, "dtype": dtype, **options})
    if method == "outer" and not options:
        first, second = map(recorder.node, inputs)
        inputs = recorder.with_new_axes(first, after=second.rank), second
    elif method != "__call__" or options:
        what = f"np.{name}" + (f".{method}" if method != "__call__" else "")
        given = f" with {', '.join(options)}=" if options else ""
        raise TraceError(f"{what}{given} is not traced", here())
    values = [recorder.value(each) for each in inputs]
    if dtype is not None:
        dtype = np.dtype(dtype)
        values = [_cast(recorder, value, dtype, casting, name) for value in values]
    if name in _MADE_OF_OTHERS:
        return _MADE_OF_OTHERS[name](recorder, *values)
    if name in LINEAR:
        return LINEAR[name](recorder, *values)
    if FUNCTIONS.get(name) is ufunc:
        return recorder.apply(name, *values)
    raise TraceError(f"np.{name} is not traced", here())


_DEFAULTS = {"where": True, "order": "K", "subok": True, "out": None, "dtype": None}


def _is_default(key: str, value: Any) -> bool:
    default = _DEFAULTS.get(key, _DEFAULTS)
    return value is default or (isinstance(default, str) and value == default)


def _cast(recorder: Recorder, value: Value, dtype: np.dtype[Any], casting: Any, name: str) -> Value:
    if not isinstance(value, Node):
        return value
    if not np.can_cast(value.dtype, dtype, casting):
        raise TraceError(f"np.{name} cannot cast {value.dtype} to {dtype}", here())
    return recorder.cast(value, dtype)


# --- made of others -------------------------------------------------------------------------------


def _power(recorder: Recorder, base: Value, exponent: Value) -> Node:
    """Powers as NumPy's own shortcuts have them, small ones as products."""
    if isinstance(exponent, Number) and exponent.given:
        exponent = float(exponent)  # it decides what is computed, and hardly ever changes
    power = exponent
    if isinstance(exponent, Number) and isinstance(base, Node):
        power = float("nan")  # not known before the call
    if not isinstance(base, Node) or isinstance(power, Node | complex):
        return recorder.apply("power", base, exponent)
    real = base.dtype.kind in "fc"
    if isinstance(power, float) and not real:
        return _power(recorder, recorder.cast(base, np.dtype(float)), power)
    if base.dtype.kind in "iu" and isinstance(power, int) and power < 0:
        raise TraceError("Integers to negative integer powers are not allowed.", here())
    if power == 1 and base.dtype.kind != "b":
        return base
    if power == 0.5 and real:
        return recorder.apply("sqrt", base)
    if power == -1 and real:
        return recorder.apply("divide", 1, base)
    if power in range(2, _LARGEST_PRODUCT + 1) and base.dtype.kind != "b":
        result = base
        for _ in range(int(power) - 1):
            result = recorder.apply("multiply", result, base)
        return result
    return recorder.apply("power", base, exponent)


def _square(recorder: Recorder, value: Value) -> Node:
    return recorder.apply("multiply", value, value)


def _conjugate(recorder: Recorder, value: Value) -> Node:
    node = recorder.node(value)
    return recorder.apply("conjugate", node) if node.dtype.kind == "c" else node


def _positive(recorder: Recorder, value: Value) -> Node:
    return recorder.node(value)


def _absolute(recorder: Recorder, value: Value) -> Node:
    node = recorder.node(value)
    return node if node.dtype.kind in "bu" else recorder.apply("absolute", node)


def _reciprocal(recorder: Recorder, value: Value) -> Node:
    node = recorder.node(value)
    if node.dtype.kind not in "fc":
        raise TraceError(f"np.reciprocal of {node.dtype} is not traced", here())
    return recorder.apply("divide", 1, node)


def _isnan(recorder: Recorder, value: Value) -> Node:
    return recorder.apply("not_equal", value, value)


def _sign(recorder: Recorder, value: Value) -> Node:
    node = recorder.node(value)
    if node.dtype.kind not in "if":
        raise TraceError(f"np.sign of {node.dtype} is not traced", here())
    negative = recorder.apply("where", recorder.apply("less", node, 0), -1, node)
    return recorder.apply("where", recorder.apply("greater", node, 0), 1, negative)


def _bitwise(logical: str) -> Callable[..., Node]:
    """A bitwise function, which is a logical one of booleans."""

    def record(recorder: Recorder, *values: Value) -> Node:
        nodes = [recorder.value(value) for value in values]
        kinds = [each.dtype.kind if isinstance(each, Node) else "i" for each in nodes]
        if set(kinds) != {"b"}:
            raise TraceError("bitwise operations are traced for booleans alone", here())
        return recorder.apply(logical, *nodes)

    return record


def _logical_xor(recorder: Recorder, first: Value, second: Value) -> Node:
    sides = (recorder.cast(recorder.node(each), np.dtype(bool)) for each in (first, second))
    return recorder.apply("not_equal", *sides)


_MADE_OF_OTHERS: dict[str, Callable[..., Node]] = {
    "power": _power,
    "float_power": lambda recorder, base, exponent: recorder.apply(
        "power", recorder.cast(recorder.node(base), np.dtype(float)), exponent
    ),
    "square": _square,
    "conjugate": _conjugate,
    "positive": _positive,
    "absolute": _absolute,
    "fabs": _absolute,
    "reciprocal": _reciprocal,
    "isnan": _isnan,
    "sign": _sign,
    "bitwise_and": _bitwise("logical_and"),
    "bitwise_or": _bitwise("logical_or"),
    "bitwise_xor": _bitwise("not_equal"),
    "invert": _bitwise("logical_not"),
    "logical_xor": _logical_xor,
}
