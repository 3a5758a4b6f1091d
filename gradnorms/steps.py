"""Norms, clipping and dot products of per-example gradients, for one layer or for many.

Every function is one traced program, whatever the number of layers: what is common is computed once
and nothing but results is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..runtime.decorator import compile_einsum
from ..runtime.tensors import mapped, tensors_among
from .layer import Array, Layer, takes_tensors, total

if TYPE_CHECKING:
    from ..runtime.signatures import Signature

__all__ = [
    "FUNCTIONS",
    "Form",
    "Function",
    "clip_coefficients",
    "clipped_sums",
    "dot_products",
    "norms",
    "program",
    "squared_norms",
    "squared_norms_by_layer",
    "squared_norms_per_head",
]

Layers = Layer | Mapping[str, Layer]
"""One layer, or several by their names."""


def squared_norms(layers: Layers) -> Array:
    """The squared norm of each example's gradient of all parameters of all layers, `[n]`.

    >>> from einsumc import gradnorms
    >>> x, g = np.ones((2, 3)), np.ones((2, 4))
    >>> gradnorms.squared_norms(gradnorms.Linear(outputs=g, inputs=x))
    array([16., 16.])
    """
    return cast("Array", _Operands(layers).computed(_squared_norms))


def squared_norms_by_layer(layers: Mapping[str, Layer]) -> dict[str, Array]:
    """The squared norm of each example's gradient of each layer, `[n]`, by the layers' names."""
    return cast("dict[str, Array]", _Operands(layers).computed(_squared_by_layer))


def squared_norms_per_head(layer: Layer) -> Array:
    """The squared norm of each example's gradient of each head's weight, `[n, h]`.

    Args:
        layer: a `Projection`, whose gradients of `weight` are `[n, h, ...]`.
    """
    return cast("Array", _Operands(layer).computed(_squared_per_head))


def norms(layers: Layers) -> Array:
    """The norm of each example's gradient of all parameters of all layers, `[n]`."""
    return cast("Array", _Operands(layers).computed(_norms))


def clip_coefficients(layers: Layers, max_norm: float) -> Array:
    """What to multiply each example's gradient with so that no norm exceeds `max_norm`, `[n]`.

    That is `min(1, max_norm / norm)`: Abadi et al., "Deep learning with differential privacy",
    2016, arXiv:1607.00133.
    """
    return cast("Array", _Operands(layers, max_norm=max_norm).computed(_coefficients))


def clipped_sums(layers: Layers, max_norm: float, weights: Array | None = None) -> dict[str, Any]:
    """The sum of all examples' gradients, each clipped to `max_norm`, in one pass over the layers.

    This is the step of training with differential privacy but for the noise.

    Args:
        layers: one layer, or several by their names; norms are over all of them.
        max_norm: the largest norm that a gradient may have.
        weights: what each example counts, `[n]`; 1 if left out. It does not change the clipping.

    Returns:
        The sum for each parameter by its name; for several layers a dict of such dicts by the
        layers' names.

    >>> from einsumc import gradnorms
    >>> x, g = np.ones((2, 1)), np.array([[3.0], [0.5]])
    >>> layer = gradnorms.Linear(outputs=g, inputs=x, bias=False)
    >>> gradnorms.clipped_sums(layer, max_norm=1.0)
    {'weight': array([[1.5]])}
    """
    more = {} if weights is None else {"weights": weights}
    operands = _Operands(layers, max_norm=max_norm, **more)
    sums = operands.run(_clipped)
    finished = {name: layer.finished(sums[name]) for name, layer in operands.layers()}
    returned: dict[str, Any] = operands.returned(
        finished if isinstance(layers, Mapping) else finished[_ONLY]
    )
    return returned


def dot_products(layers: Layers, others: Layers | None = None) -> Array:
    """Dot products of examples' gradients, `[n, m]`: the empirical neural tangent kernel.

    Args:
        layers: one layer, or several by their names.
        others: the same layers on another batch of `m` examples; the same batch if left out. With
            training examples here and test examples there, this is a term of TracIn (Pruthi et al.,
            "Estimating training data influence by tracing gradient descent", 2020,
            arXiv:2002.08484).
    """
    if any(layer.gathers for layer in _named(layers).values()):
        return _gathered_products(layers, others)
    if others is None:
        return cast("Array", _Operands(layers).computed(_own_products))
    return cast("Array", _Operands(layers, others).computed(_dot_products))


@takes_tensors
def _gathered_products(layers: Layers, others: Layers | None) -> Array:
    """The same where some layers look elements up by number, which no kernel does."""
    named = _named(layers)
    other = named if others is None else _named(others)
    for name, layer in (*named.items(), *other.items()):
        layer.check(name)
    terms = [named[name].dot_products(other[name]) for name in named if named[name].gathers]
    mine, theirs = (
        {name: layer for name, layer in each.items() if not layer.gathers}
        for each in (named, other)
    )
    if mine and other is named:
        terms.append(_Operands(mine).computed(_own_products))
    elif mine:
        terms.append(_Operands(mine, theirs).computed(_dot_products))
    return total(terms)


# --- what is traced -------------------------------------------------------------------------------


def _squared(layer: Layer) -> Array:
    """The squared norms of one layer. What rounding leaves of a zero may be negative elsewhere."""
    return np.maximum(layer.squared_norms(), 0)


def _squared_norms(layers: Mapping[str, Layer]) -> Array:
    return total(map(_squared, layers.values()))


def _squared_by_layer(layers: Mapping[str, Layer]) -> dict[str, Array]:
    return {name: _squared(layer) for name, layer in layers.items()}


def _squared_per_head(layers: Mapping[str, Layer]) -> Array:
    gradient = layers[_ONLY].gradients()["weight"]
    squares: Array = (gradient * gradient).sum(tuple(range(2, gradient.ndim)))
    return squares


def _norms(layers: Mapping[str, Layer]) -> Array:
    return np.sqrt(_squared_norms(layers))


def _coefficients(layers: Mapping[str, Layer], max_norm: Array) -> Array:
    return np.minimum(1, max_norm / _norms(layers))


def _clipped(
    layers: Mapping[str, Layer], max_norm: Array, weights: Array | None = None
) -> dict[str, dict[str, Array]]:
    coefficients = _coefficients(layers, max_norm)
    if weights is not None:
        coefficients = coefficients * weights
    return {name: layer.weighted_sums(coefficients) for name, layer in layers.items()}


def _dot_products(layers: Mapping[str, Layer], others: Mapping[str, Layer]) -> Array:
    return total(layers[name].dot_products(others[name]) for name in layers)


def _own_products(layers: Mapping[str, Layer]) -> Array:
    return _dot_products(layers, layers)


@dataclass(frozen=True, slots=True)
class Function:
    """What stands behind a function of this module.

    Attributes:
        body: of layers and numbers; it is traced.
        numbers: its parameters that are numbers.
        another: the same for two batches.
    """

    body: Callable[..., Any]
    numbers: tuple[str, ...] = ()
    another: Callable[..., Any] | None = None


FUNCTIONS = {
    "norms": Function(_norms),
    "squared_norms": Function(_squared_norms),
    "squared_norms_by_layer": Function(_squared_by_layer),
    "squared_norms_per_head": Function(_squared_per_head),
    "clip_coefficients": Function(_coefficients, ("max_norm",)),
    "clipped_sums": Function(_clipped, ("max_norm",)),
    "dot_products": Function(_own_products, another=_dot_products),
}
"""The functions that can be compiled ahead of time by their names."""


# --- tracing it -----------------------------------------------------------------------------------

_ONLY = "layer"
"""What a layer without a name is called."""

Form = tuple[tuple[str, type[Layer], tuple[tuple[str, object], ...], tuple[str, ...]], ...]
"""For each layer its name, its kind, its options, and the names of its arrays."""


def _named(layers: Layers) -> Mapping[str, Layer]:
    """Layers by their names."""
    named = {_ONLY: layers} if isinstance(layers, Layer) else layers
    if not named:
        raise ValueError("there are no layers: norms are over one layer or more")
    return named


_CHECKED: set[Any] = set()
"""Forms of layers, with the shapes of their arrays, that were found to fit together."""

_MOST_CHECKED = 4096


class _Operands:
    """What a program is called with.

    Args:
        *batches: groups of layers, each of one batch.
        **further: arrays and numbers beside them.

    Raises:
        ValueError: there are no layers, or arrays do not fit each other.
    """

    def __init__(self, *batches: Layers, **further: Any) -> None:
        self._batches = [_named(each) for each in batches]
        self._further = tuple(further)
        forms: list[Any] = []
        arrays: list[Any] = []
        spans: list[slice] = []
        for batch in self._batches:
            form = []
            for name, layer in batch.items():
                fields, given, options = layer.parts()
                form.append((name, type(layer), options, fields))
                spans.append(slice(len(arrays), len(arrays) + len(given)))
                arrays += given
            forms.append(tuple(form))
        self._forms: tuple[Form, ...] = tuple(forms)
        self._tensors = tensors_among((*arrays, *further.values()))
        if self._tensors is not None:
            count = len(arrays)
            arrays = self._tensors.arrays((*arrays, *further.values()), self._called)
            further = dict(zip(further, arrays[count:], strict=True))
            del arrays[count:]
        self._spans, self._arrays = spans, arrays
        shapes = tuple([array.shape for array in arrays])
        if (self._forms, shapes) not in _CHECKED:
            self._check()
            if len(_CHECKED) >= _MOST_CHECKED:
                _CHECKED.clear()
            _CHECKED.add((self._forms, shapes))
        self._prepare()
        arrays = self._arrays
        if further:
            kinds = {array.dtype for array in arrays if array.dtype.kind in "fc"}
            dtype = kinds.pop() if len(kinds) == 1 else np.result_type(*kinds)
            self._arrays = [*arrays, *(np.asarray(each, dtype) for each in further.values())]

    def layers(self) -> Iterator[tuple[str, Layer]]:
        """All layers with arrays in place of tensors."""
        named = [item for batch in self._batches for item in batch.items()]
        forms = [form for batch in self._forms for form in batch]
        for (name, layer), (*_, fields), span in zip(named, forms, self._spans, strict=True):
            if self._tensors is not None or layer.reorders:
                layer = replace(layer, **dict(zip(fields, self._arrays[span], strict=True)))
            yield name, layer

    def _called(self, number: int) -> str:
        """What an array is called, or what is given beside them, counted from the first one on."""
        names = [f"{name}.{field}" for form in self._forms for name, *_, of in form for field in of]
        return [*names, *self._further][number]

    def _check(self) -> None:
        for name, layer in self.layers():
            layer.check(name)

    def _prepare(self) -> None:
        """Bring what is looked up in order, which takes data and is not traced."""
        if any(kind.reorders for forms in self._forms for _, kind, *_ in forms):
            for (_, layer), span in zip([*self.layers()], self._spans, strict=True):
                self._arrays[span] = layer.prepared().parts().arrays

    def run(self, what: Callable[..., Any]) -> Any:
        """What a function of these layers returns, computed by one compiled program."""
        return program(what, self._forms, self._further)(*self._arrays)

    def computed(self, what: Callable[..., Any]) -> Any:
        """The same as the caller wants it."""
        return self.returned(self.run(what))

    def returned(self, results: Any) -> Any:
        """Results as the caller wants them: tensors, where layers have tensors."""
        return results if self._tensors is None else mapped(results, self._tensors.result)


@lru_cache(maxsize=256)
def program(
    what: Callable[..., Any], forms: tuple[Form, ...], further: tuple[str, ...]
) -> Callable[..., Any]:
    """The compiled program of a function of layers of these forms."""

    def body(*arrays: Array) -> Any:
        rest = iter(arrays)
        groups = [
            {
                name: kind(**dict(options), **{array: next(rest) for array in names})
                for name, kind, options, names in form
            }
            for form in forms
        ]
        return what(*groups, **{name: next(rest) for name in further})

    def written(signature: Signature) -> str:
        from .entries import write_entry

        return write_entry(what, forms, further, signature)

    compiled = compile_einsum(body)
    compiled.written = written
    return compiled
