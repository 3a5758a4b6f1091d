"""NumPy's functions and array methods on traced arrays: what each of them records.

Every function here has the parameters of NumPy's that can be traced, so that a call with another
one is an error of Python's, which becomes ours. They take traced arrays, arrays and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from ..arguments import from_call
from ..errors import EinsumError
from ..subscripts import Subscripts
from ..windows import Given
from .graph import Diagonal, Index, Node, Size, Slice
from .linear import dot, inner, outer, pad, sliding_windows, tensordot, vdot
from .location import TraceError, here
from .number import Number, is_integer
from .record import Recorder
from .symbol import Symbol, untraced
from .ufuncs import record_ufunc

__all__ = ["METHODS", "call_compiled", "call_function", "call_ufunc", "index", "total"]

_MANY = Any  # one axis, several, or None for all


# --- the protocols --------------------------------------------------------------------------------


def call_ufunc(
    recorder: Recorder, ufunc: Any, method: str, inputs: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """What a universal function of traced arrays is; with `out`, a traced one becomes it."""
    outs = options.get("out") or ()
    rest = {key: value for key, value in options.items() if key != "out"}
    try:
        node = record_ufunc(recorder, ufunc, method, inputs, rest)
    except TypeError as error:
        raise untraced(f"np.{ufunc.__name__}", error) from None
    if not outs:
        return Symbol(recorder, node, alone=True)
    (out,) = outs
    if not isinstance(out, Symbol):
        raise TraceError("a traced array has no elements that an array could take", here())
    if not np.can_cast(node.dtype, out.dtype, "same_kind"):
        raise TraceError(f"{node.dtype} cannot be cast to {out.dtype} in place", here())
    shape = out.shape
    node = recorder.cast(node, out.dtype)
    out._becomes(recorder.broadcast(node, shape) if recorder.now(node) != _now(shape) else node)
    return out


def _now(shape: Sequence[Number]) -> tuple[int, ...]:
    return tuple(extent.now for extent in shape)


def call_function(recorder: Recorder, function: Callable[..., Any], args: Any, options: Any) -> Any:
    """What another function of NumPy's is of traced arrays."""
    record = _FUNCTIONS.get(function)
    name = getattr(function, "__name__", str(function))
    if record is None:
        module = getattr(function, "__module__", "numpy").replace("numpy", "np", 1)
        raise TraceError(f"{module}.{name} is not traced", here())
    try:
        return _wrapped(recorder, record(recorder, *args, **options))
    except TraceError:
        raise
    except EinsumError as error:
        raise TraceError(str(error), here()) from None
    except TypeError as error:
        raise untraced(f"np.{name}", error) from None


def call_compiled(
    recorder: Recorder, subscripts: Subscripts, operands: Sequence[Any], options: Mapping[str, Any]
) -> Symbol:
    """An einsum of einsumc's inside of a traced function."""
    if options["out"] is not None:
        raise TraceError("a traced einsum cannot write to out", here())
    dtype, casting, sizes = options["dtype"], options["casting"], options["sizes"]
    node = _contracted(recorder, subscripts, operands, dtype, casting, sizes)
    return Symbol(recorder, node, alone=True)


def _wrapped(recorder: Recorder, result: Any) -> Any:
    return Symbol(recorder, result, alone=True) if isinstance(result, Node) else result


def _view(recorder: Recorder, source: Any, node: Node) -> Symbol:
    """A traced array of the same memory as another one: neither can be written in place."""
    if isinstance(source, Symbol):
        source._alone = False
    return Symbol(recorder, node)


# --- sums -----------------------------------------------------------------------------------------


def total(
    recorder: Recorder, a: Any, axis: _MANY = None, dtype: Any = None, keepdims: bool = False
) -> Node:
    """`np.sum`."""
    node = recorder.node(a)
    axes = _axes(axis, node.rank)
    summed = recorder.sum(node, axes, None if dtype is None else np.dtype(dtype))
    return _kept(recorder, summed, axes, node.rank) if keepdims else summed


def _kept(recorder: Recorder, node: Node, axes: Sequence[int], rank: int) -> Node:
    """A node with axes of extent 1 at these places of the rank that it is to have."""
    items = tuple(None if axis in axes else _ALL for axis in range(rank))
    return recorder.add(Index(items), (node,), node.dtype, rank)


_ALL = Slice(None, None, None)


def _axes(axis: _MANY, rank: int) -> tuple[int, ...]:
    """Axes counted from the front."""
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    found = []
    for each in given:
        number = int(each)
        if not -rank <= number < rank:
            raise TraceError(f"axis {number} is out of an array of {rank} axes", here())
        found.append(number % rank)
    if len({*found}) < len(found):
        raise TraceError("an axis is given twice", here())
    return tuple(found)


def _count(recorder: Recorder, node: Node, axes: Sequence[int]) -> Any:
    count: Any = 1
    for axis in axes:
        count = recorder.shape(node)[axis] * count
    return count


def _mean(
    recorder: Recorder, a: Any, axis: _MANY = None, dtype: Any = None, keepdims: bool = False
) -> Node:
    node = recorder.node(a)
    axes = _axes(axis, node.rank)
    if dtype is None:
        dtype = np.dtype(float) if node.dtype.kind in "biu" else node.dtype
    summed = total(recorder, node, axis, dtype, keepdims)
    return recorder.apply("divide", summed, _count(recorder, node, axes))


def _var(
    recorder: Recorder,
    a: Any,
    axis: _MANY = None,
    dtype: Any = None,
    ddof: Any = 0,
    keepdims: bool = False,
    correction: Any = None,
) -> Node:
    node = recorder.node(a)
    if dtype is not None or node.dtype.kind in "biu":
        node = recorder.cast(node, np.dtype(float if dtype is None else dtype))
    axes = _axes(axis, node.rank)
    apart = recorder.apply("subtract", node, _mean(recorder, node, axis, keepdims=True))
    if apart.dtype.kind == "c":
        apart = recorder.apply("absolute", apart)
    squares = total(recorder, recorder.apply("multiply", apart, apart), axis, keepdims=keepdims)
    fewer = ddof if correction is None else correction
    return recorder.apply("divide", squares, _count(recorder, node, axes) - fewer)


def _std(recorder: Recorder, a: Any, *args: Any, **options: Any) -> Node:
    return recorder.apply("sqrt", _var(recorder, a, *args, **options))


def _norm(
    recorder: Recorder, x: Any, ord: Any = None, axis: _MANY = None, keepdims: bool = False
) -> Node:
    node = recorder.node(x)
    if node.dtype.kind in "biu":
        node = recorder.cast(node, np.dtype(float))
    axes = _axes(axis, node.rank)
    is_vector = len(axes) == 1
    if not (ord is None or (is_vector and ord in (1, 2)) or (len(axes) == 2 and ord == "fro")):
        raise TraceError(f"the norm of ord={ord!r} of {len(axes)} axes is not traced", here())
    sizes = recorder.apply("absolute", node) if ord == 1 or node.dtype.kind == "c" else node
    if ord == 1:
        return total(recorder, sizes, axis, keepdims=keepdims)
    squares = recorder.apply("multiply", sizes, sizes)
    return recorder.apply("sqrt", total(recorder, squares, axis, keepdims=keepdims))


def _any(recorder: Recorder, a: Any, axis: _MANY = None, keepdims: bool = False) -> Node:
    return total(recorder, a, axis, bool, keepdims)


def _all(recorder: Recorder, a: Any, axis: _MANY = None, keepdims: bool = False) -> Node:
    missing = recorder.apply("logical_not", a)
    return recorder.apply("logical_not", total(recorder, missing, axis, bool, keepdims))


def _count_nonzero(
    recorder: Recorder, a: Any, axis: _MANY = None, *, keepdims: bool = False
) -> Node:
    there = recorder.cast(recorder.node(a), np.dtype(bool))
    return total(recorder, there, axis, None, keepdims)


# --- views ----------------------------------------------------------------------------------------


def _transpose(recorder: Recorder, a: Any, axes: Any = None) -> Symbol:
    node = recorder.node(a)
    order = tuple(reversed(range(node.rank))) if axes is None else _axes(tuple(axes), node.rank)
    if len(order) != node.rank:
        raise TraceError("axes don't match array", here())
    return _view(recorder, a, recorder.transpose(node, order))


def _swapaxes(recorder: Recorder, a: Any, axis1: int, axis2: int) -> Symbol:
    rank = recorder.node(a).rank
    order = list(range(rank))
    (first,), (second,) = _axes(axis1, rank), _axes(axis2, rank)
    order[first], order[second] = second, first
    return _transpose(recorder, a, order)


def _matrix_transpose(recorder: Recorder, x: Any) -> Symbol:
    return _swapaxes(recorder, x, -1, -2)


def _moveaxis(recorder: Recorder, a: Any, source: _MANY, destination: _MANY) -> Symbol:
    rank = recorder.node(a).rank
    sources, places = _axes(source, rank), _axes(destination, rank)
    order = [axis for axis in range(rank) if axis not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return _transpose(recorder, a, order)


def _expand_dims(recorder: Recorder, a: Any, axis: _MANY) -> Symbol:
    node = recorder.node(a)
    given = axis if isinstance(axis, tuple | list) else (axis,)
    rank = node.rank + len(given)
    return _view(recorder, a, _kept(recorder, node, _axes(tuple(given), rank), rank))


def _squeeze(recorder: Recorder, a: Any, axis: _MANY = None) -> Symbol:
    node = recorder.node(a)
    shape = recorder.shape(node)
    if axis is None:
        axes = tuple(n for n, extent in enumerate(shape) if extent == 1)  # each becomes a guard
    else:
        axes = _axes(axis, node.rank)
    kept = [extent for n, extent in enumerate(shape) if n not in axes]
    return _view(recorder, a, recorder.reshape(node, kept))


def _reshape(
    recorder: Recorder, a: Any, /, shape: Any, order: str = "C", *, copy: bool | None = None
) -> Symbol:
    node = recorder.node(a)
    if order != "C" and not (order == "A"):
        raise TraceError(f"reshape with order={order!r} is not traced", here())
    given = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    return _view(recorder, a, recorder.reshape(node, tuple(map(_size, given))))


def _size(value: Any) -> Size:
    if not is_integer(value):
        raise TraceError(f"a size must be an integer, not {value!r}", here())
    return value if isinstance(value, Number) else int(value)


def _ravel(recorder: Recorder, a: Any, order: str = "C") -> Symbol:
    return _reshape(recorder, a, (-1,), order)


def _broadcast_to(recorder: Recorder, array: Any, shape: Any) -> Symbol:
    given = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    node = recorder.broadcast(recorder.node(array), tuple(map(_size, given)))
    return _view(recorder, array, node)


def _diagonal(
    recorder: Recorder, a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1
) -> Symbol:
    node = recorder.node(a)
    first, second = _axes((axis1, axis2), node.rank)
    operation = Diagonal(int(offset), first, second)
    return _view(recorder, a, recorder.add(operation, (node,), node.dtype, node.rank - 1))


def _diag(recorder: Recorder, v: Any, k: int = 0) -> Symbol:
    if recorder.node(v).rank != 2:
        raise TraceError("np.diag is traced for the diagonal of a matrix alone", here())
    return _diagonal(recorder, v, k)


def _trace(
    recorder: Recorder,
    a: Any,
    offset: int = 0,
    axis1: int = 0,
    axis2: int = 1,
    dtype: Any = None,
) -> Node:
    return total(recorder, _diagonal(recorder, a, offset, axis1, axis2), -1, dtype)


def _flip(recorder: Recorder, m: Any, axis: _MANY = None) -> Symbol:
    node = recorder.node(m)
    axes = _axes(axis, node.rank)
    back = Slice(None, None, -1)
    items = tuple(back if n in axes else _ALL for n in range(node.rank))
    return _view(recorder, m, recorder.add(Index(items), (node,), node.dtype, node.rank))


def _at_least(rank: int) -> Callable[..., Any]:
    def record(recorder: Recorder, *arrays: Any) -> Any:
        made = []
        for array in arrays:
            node = recorder.node(array)
            missing = max(rank - node.rank, 0)
            places = range(missing) if rank < 3 or node.rank < 2 else (node.rank,) * missing
            axes = (0, 2)[:missing] if rank == 3 and node.rank == 1 else tuple(places)
            made.append(_expand_dims(recorder, array, axes) if missing else array)
        return made[0] if len(made) == 1 else tuple(made)

    return record


def index(symbol: Symbol, key: Any) -> Symbol:
    """`symbol[key]`: positions, slices, None and an ellipsis."""
    recorder, node = symbol._recorder, symbol._traced_node
    items = list(key) if isinstance(key, tuple) else [key]
    for item in items:
        if isinstance(item, bool | np.bool_) or not (
            item is None or item is ... or isinstance(item, slice) or is_integer(item)
        ):
            kind = type(item).__name__
            raise TraceError(f"indexing with {kind} is not traced: only views are", here())
    used = sum(item is not None and item is not ... for item in items)
    dots = [place for place, item in enumerate(items) if item is ...]
    if used > node.rank or len(dots) > 1:
        raise TraceError(f"too many indices for an array of {node.rank} axes", here())
    place = dots[0] if dots else len(items)
    items[place : place + 1] = [slice(None)] * (node.rank - used)
    parts = tuple(
        Slice(item.start, item.stop, item.step)
        if isinstance(item, slice)
        else item
        if item is None or isinstance(item, Number)
        else int(item)
        for item in items
    )
    rank = sum(part is None or isinstance(part, Slice) for part in parts)
    return _view(recorder, symbol, recorder.add(Index(parts), (node,), node.dtype, rank))


# --- others ---------------------------------------------------------------------------------------


def _einsum(
    recorder: Recorder,
    *operands: Any,
    optimize: Any = True,
    dtype: Any = None,
    order: str = "K",
    casting: Any = "safe",
) -> Node:
    return _contracted(recorder, *from_call(operands), dtype, casting)


def _contracted(
    recorder: Recorder,
    subscripts: Subscripts,
    operands: Sequence[Any],
    dtype: Any,
    casting: Any,
    sizes: Given = (),
) -> Node:
    if dtype is not None:
        for each in operands:
            if not np.can_cast(recorder.node(each).dtype, dtype, casting):
                raise TraceError(f"casting={casting!r} forbids einsum in {dtype}", here())
    return recorder.contract(subscripts, operands, dtype, sizes=sizes)


def _where(recorder: Recorder, condition: Any, x: Any, y: Any, /) -> Node:
    return recorder.apply("where", condition, x, y)


def _clip(recorder: Recorder, a: Any, a_min: Any = None, a_max: Any = None, **named: Any) -> Node:
    low, high = named.pop("min", a_min), named.pop("max", a_max)
    if named:
        raise TypeError(f"unexpected {', '.join(named)}")
    node = recorder.node(a)
    if low is not None:
        node = recorder.apply("maximum", node, low)
    return node if high is None else recorder.apply("minimum", node, high)


def _astype(
    recorder: Recorder, a: Any, dtype: Any, order: str = "K", casting: Any = "unsafe", **_: Any
) -> Node:
    node, dtype = recorder.node(a), np.dtype(dtype)
    if not np.can_cast(node.dtype, dtype, casting):
        raise TraceError(f"cannot cast {node.dtype} to {dtype} with casting={casting!r}", here())
    return recorder.cast(node, dtype)


def _copy(recorder: Recorder, a: Any, order: str = "K", subok: bool = False) -> Node:
    return recorder.node(a)


def _full_like(recorder: Recorder, a: Any, fill_value: Any, dtype: Any = None) -> Node:
    node = recorder.node(a)
    value = recorder.cast(recorder.node(fill_value), np.dtype(dtype or node.dtype))
    return recorder.broadcast(value, recorder.shape(node))


def _multi_dot(recorder: Recorder, arrays: Sequence[Any]) -> Node:
    product = recorder.node(arrays[0])
    for array in arrays[1:]:
        product = dot(recorder, product, array)
    return product


def _method_transpose(recorder: Recorder, a: Any, *axes: Any) -> Symbol:
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], tuple | list)):
        return _transpose(recorder, a, axes[0])
    return _transpose(recorder, a, axes or None)


def _method_reshape(recorder: Recorder, a: Any, *shape: Any, order: str = "C") -> Symbol:
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    return _reshape(recorder, a, given, order)


def _conjugate(recorder: Recorder, a: Any) -> Node:
    return record_ufunc(recorder, np.conjugate, "__call__", (a,), {})


_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.einsum: _einsum,
    np.tensordot: tensordot,
    np.dot: dot,
    np.inner: inner,
    np.outer: outer,
    np.vdot: vdot,
    np.linalg.multi_dot: _multi_dot,
    np.linalg.norm: _norm,
    np.sum: total,
    np.mean: _mean,
    np.var: _var,
    np.std: _std,
    np.any: _any,
    np.all: _all,
    np.count_nonzero: _count_nonzero,
    np.trace: _trace,
    np.lib.stride_tricks.sliding_window_view: sliding_windows,
    np.pad: pad,
    np.where: _where,
    np.clip: _clip,
    np.transpose: _transpose,
    np.matrix_transpose: _matrix_transpose,
    np.swapaxes: _swapaxes,
    np.moveaxis: _moveaxis,
    np.expand_dims: _expand_dims,
    np.squeeze: _squeeze,
    np.reshape: _reshape,
    np.ravel: _ravel,
    np.broadcast_to: _broadcast_to,
    np.diagonal: _diagonal,
    np.diag: _diag,
    np.flip: _flip,
    np.atleast_1d: _at_least(1),
    np.atleast_2d: _at_least(2),
    np.atleast_3d: _at_least(3),
    np.copy: _copy,
    np.zeros_like: lambda recorder, a, dtype=None: _full_like(recorder, a, 0, dtype),
    np.ones_like: lambda recorder, a, dtype=None: _full_like(recorder, a, 1, dtype),
    np.full_like: _full_like,
    np.shape: lambda recorder, a: a.shape,
    np.ndim: lambda recorder, a: a.ndim,
    np.size: lambda recorder, a, axis=None: a.size if axis is None else a.shape[axis],
    np.result_type: lambda recorder, *given: np.result_type(
        *(each.dtype if isinstance(each, Symbol) else each for each in given)
    ),
}


def _method(record: Callable[..., Any]) -> Callable[..., Any]:
    def call(symbol: Symbol, *args: Any, **options: Any) -> Any:
        return _wrapped(symbol._recorder, record(symbol._recorder, symbol, *args, **options))

    return call


METHODS: dict[str, Callable[..., Any]] = {
    name: _method(cast("Callable[..., Any]", record))
    for name, record in {
        "all": _all,
        "any": _any,
        "astype": _astype,
        "clip": _clip,
        "conj": _conjugate,
        "conjugate": _conjugate,
        "copy": _copy,
        "diagonal": _diagonal,
        "dot": dot,
        "flatten": lambda recorder, a, order="C": _ravel(recorder, a, order)._traced_node,
        "mean": _mean,
        "ravel": _ravel,
        "reshape": _method_reshape,
        "squeeze": _squeeze,
        "std": _std,
        "sum": total,
        "swapaxes": _swapaxes,
        "trace": _trace,
        "transpose": _method_transpose,
        "var": _var,
    }.items()
}
"""Methods of arrays: functions of the traced array and of the method's arguments."""
