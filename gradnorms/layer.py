"""What a layer is to per-example gradients: the gradients of its parameters, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce, wraps
from math import prod
from operator import add, attrgetter
from typing import Any, ClassVar, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..runtime.tensors import mapped, tensors_among

__all__ = ["Array", "Layer", "Parts", "flat", "merged", "takes_tensors", "total"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

Array = NDArray[Any]


class Parts(NamedTuple):
    """What a layer's record is made of.

    Attributes:
        names: of the fields that are arrays.
        arrays: these arrays.
        options: the other fields and what they are: they make two layers different kinds.
    """

    names: tuple[str, ...]
    arrays: list[Any]
    options: tuple[tuple[str, object], ...]


@dataclass(frozen=True, eq=False)
class Layer:
    """What a layer saw in one batch, from which its parameters' gradients follow.

    A kind of layer is a dataclass of arrays and options that says, in `gradients`, what the
    gradient of each parameter is for each example, as an einsum. Nobody computes it so: sums of
    squares, weighted sums and dot products of the gradients are einsums of that einsum, and the
    compiler finds out which of them need a gradient at all.

    The first axis of every array counts examples, but for those named in `shared`. Arrays may be
    PyTorch's tensors.
    """

    shapes: ClassVar[Mapping[str, str]] = {}  # of arrays, by field: "n...o"; dots are any axes
    shared: ClassVar[tuple[str, ...]] = ()
    gathers: ClassVar[bool] = False  # whether dot products look elements up by number
    reorders: ClassVar[bool] = False  # whether `prepared` may change anything

    def gradients(self) -> Mapping[str, Array]:
        """For each parameter its gradient for each example, `[n, *shape of the parameter]`."""
        raise NotImplementedError

    def squared_norms(self) -> Array:
        """The squared norm of each example's gradient of all parameters, `[n]`."""
        return total(_dot("n", "n", "n", g, g) for g in self.gradients().values())

    def weighted_sums(self, weights: Array) -> dict[str, Array]:
        """For each parameter the sum of all examples' gradients, each times its weight."""
        return {
            name: np.einsum("n,n...->...", weights, gradient)
            for name, gradient in self.gradients().items()
        }

    def dot_products(self, other: Self) -> Array:
        """Dot products of all examples' gradients here with all of another batch, `[n, m]`."""
        mine, theirs = self.gradients(), other.gradients()
        return total(_dot("n", "m", "nm", mine[name], theirs[name]) for name in mine)

    def parts(self) -> Parts:
        """The fields, by whether they are arrays."""
        names, read = _fields(type(self))
        values = read(self)
        key = names, tuple(map(type, values))
        split = _SPLITS.get(key)
        if split is None:
            split = _split(names, values)
            if tuple not in key[1]:  # which may be of arrays or of options
                _SPLITS[key] = split
        arrays, options = split
        return Parts(
            arrays.names,
            [values[place] for place in arrays.places],
            tuple([(names[place], values[place]) for place in options.places]),
        )

    def arrays(self) -> dict[str, Array]:
        """The fields that are arrays, by their names."""
        names, arrays, _ = self.parts()
        return dict(zip(names, arrays, strict=True))

    def converted(self, convert: Callable[[Any], Any]) -> Self:
        """The same layer with every array converted."""
        return replace(self, **{name: convert(array) for name, array in self.arrays().items()})

    def prepared(self) -> Self:
        """The same with places in another order, if sums over them are computed faster then.

        Only kinds with `reorders` are asked.
        """
        return self

    def finished(self, sums: dict[str, Array]) -> dict[str, Array]:
        """The sums by parameter, from what `weighted_sums` gave: most kinds leave it as it is."""
        return sums

    def check(self, name: str) -> None:
        """Raise ValueError unless the arrays have the same number of examples, and fit together."""
        counts = {
            field: array.shape[0] if array.ndim else None
            for field, array in self.arrays().items()
            if field not in self.shared
        }
        if len({*counts.values()}) > 1:
            listed = ", ".join(f"{field} has {count}" for field, count in counts.items())
            kind = type(self).__name__
            raise ValueError(f"the first axis of {kind} {name!r} counts examples, but {listed}")
        known: dict[str, tuple[str, object]] = {}
        for field, term in self.shapes.items():
            shape = getattr(self, field).shape
            for axis, extent in self._axes(name, field, term, shape):
                first, expected = known.setdefault(axis, (field, extent))
                if extent != expected:
                    before = getattr(self, first).shape
                    raise ValueError(
                        f"{type(self).__name__} {name!r}: {first} is {_listed(self.shapes[first])} "
                        f"and {field} is {_listed(term)}, but their shapes are {before} and {shape}"
                    )

    def _axes(
        self, name: str, field: str, term: str, shape: tuple[int, ...]
    ) -> Iterable[tuple[str, object]]:
        """The axes of an array by name, and their extents; all that dots stand for are one."""
        head, dots, tail = term.partition("...")
        between = len(shape) - len(head) - len(tail)
        if between < 0 or (between and not dots):
            raise ValueError(
                f"{type(self).__name__} {name!r}: {field} is {_listed(term)}, "
                f"but its shape is {shape}"
            )
        yield from zip(head, shape, strict=False)
        if dots:
            yield "...", shape[len(head) : len(head) + between]
        yield from zip(tail, shape[len(head) + between :], strict=True)


def takes_tensors(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """The same function for layers and arrays that are PyTorch's tensors: results are tensors too.

    They are read where they are; see `runtime/tensors.py`.
    """

    @wraps(function)
    def call(*args: _Parameters.args, **named: _Parameters.kwargs) -> _Result:
        found: dict[str, Any] = {}

        def collect(value: Any, name: str) -> None:
            if isinstance(value, Mapping):
                for key, each in value.items():
                    collect(each, str(key))
            elif isinstance(value, Layer):
                for field, array in value.arrays().items():
                    found[f"{name}.{field}" if name else field] = array
            else:
                found[name] = value

        for number, value in enumerate(args):
            collect(value, "" if isinstance(value, Layer | Mapping) else f"argument {number}")
        for name, value in named.items():
            collect(value, name)
        tensors = tensors_among(found.values())
        if tensors is None:
            return function(*args, **named)
        names, values = [*found], [*found.values()]
        arrays = {
            id(value): array
            for value, array in zip(values, tensors.arrays(values, names.__getitem__), strict=True)
        }

        def convert(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {key: convert(each) for key, each in value.items()}
            if isinstance(value, Layer):
                return value.converted(convert)
            return arrays[id(value)]

        def back(value: Any) -> Any:
            return value.converted(back) if isinstance(value, Layer) else tensors.result(value)

        result: Any = function(
            *map(convert, args), **{name: convert(each) for name, each in named.items()}
        )
        made: _Result = mapped(result, back)
        return made

    return call


def _listed(term: str) -> str:
    """`[n, ..., o]` for `n...o`."""
    return f"[{', '.join(term.replace('...', '.')).replace('.', '...')}]"


_Fields = tuple[tuple[str, ...], Callable[[Layer], tuple[Any, ...]]]
"""The names of a kind's fields, and what reads them all."""

_FIELDS: dict[type[Layer], _Fields] = {}
"""Those of kinds of layers that were seen."""


def _fields(kind: type[Layer]) -> _Fields:
    if kind not in _FIELDS:
        names = tuple(field.name for field in fields(kind))
        several = len(names) > 1  # or `attrgetter` gives no tuple

        def read_one(layer: Layer) -> tuple[Any, ...]:
            return tuple(getattr(layer, name) for name in names)

        _FIELDS[kind] = names, attrgetter(*names) if several else read_one
    return _FIELDS[kind]


class _Places(NamedTuple):
    """Some of a layer's fields: their names, and which ones they are."""

    names: tuple[str, ...]
    places: tuple[int, ...]


_SPLITS: dict[tuple[tuple[str, ...], tuple[type, ...]], tuple[_Places, _Places]] = {}
"""Which fields are arrays and which are options, by their names and the types of their values."""


def _split(names: tuple[str, ...], values: tuple[Any, ...]) -> tuple[_Places, _Places]:
    kinds = [_is_option(value) for value in values]
    arrays, options = (
        tuple(place for place, kind in enumerate(kinds) if kind == wanted)
        for wanted in (False, True)
    )
    return (
        _Places(tuple(names[place] for place in arrays), arrays),
        _Places(tuple(names[place] for place in options), options),
    )


_OPTIONS = (bool, int, float, str, type(None))


def _is_option(value: object) -> bool:
    if type(value) is np.ndarray:
        return False
    if isinstance(value, tuple):
        return all(map(_is_option, value))
    return isinstance(value, _OPTIONS)


def _dot(first: str, second: str, output: str, a: Array, b: Array) -> Array:
    axes = "abcdefgh"[: a.ndim - 1]
    total: Array = np.einsum(f"{first}{axes},{second}{axes}->{output}", a, b)
    return total


def total(terms: Iterable[Array]) -> Array:
    """The sum of one or more arrays."""
    return reduce(add, terms)


def flat(array: Array, axes: int = 1) -> Array:
    """The same with one axis between the examples and the last `axes` axes, `[n, t, ...]`."""
    between = array.ndim - 1 - axes
    if between == 1:
        return array
    if between == 0:
        return array[:, None]
    return merged(array, 1, 1 + between)


def merged(array: Array, begin: int, end: int) -> Array:
    """The same with one axis in place of some, also where there are no elements to count."""
    shape = array.shape
    return array.reshape(*shape[:begin], prod(shape[begin:end]), *shape[end:])
