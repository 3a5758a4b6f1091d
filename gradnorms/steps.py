"""Norms, clipping and dot products of per-example gradients, for one layer or for many.

Every function is one traced program, whatever the number of layers: what is common is computed once
and nothing but results is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..runtime.decorator import compile_einsum
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


@takes_tensors
def squared_norms(layers: Layers) -> Array:
    """The squared norm of each example's gradient of all parameters of all layers, `[n]`.

    >>> from einsumc import gradnorms
    >>> x, g = np.ones((2, 3)), np.ones((2, 4))
    >>> gradnorms.squared_norms(gradnorms.Linear(outputs=g, inputs=x))
    array([16., 16.])
    """
    return cast("Array", _run(_squared_norms, _named(layers)))


@takes_tensors
def squared_norms_by_layer(layers: Mapping[str, Layer]) -> dict[str, Array]:
    """The squared norm of each example's gradient of each layer, `[n]`, by the layers' names."""
    return cast("dict[str, Array]", _run(_squared_by_layer, _named(layers)))


@takes_tensors
def squared_norms_per_head(layer: Layer) -> Array:
    """The squared norm of each example's gradient of each head's weight, `[n, h]`.

    Args:
        layer: a `Projection`, whose gradients of `weight` are `[n, h, ...]`.
    """
    return cast("Array", _run(_squared_per_head, _named(layer)))


@takes_tensors
def norms(layers: Layers) -> Array:
    """The norm of each example's gradient of all parameters of all layers, `[n]`."""
    return cast("Array", _run(_norms, _named(layers)))


@takes_tensors
def clip_coefficients(layers: Layers, max_norm: float) -> Array:
    """What to multiply each example's gradient with so that no norm exceeds `max_norm`, `[n]`.

    That is `min(1, max_norm / norm)`: Abadi et al., "Deep learning with differential privacy",
    2016, arXiv:1607.00133.
    """
    return cast("Array", _run(_coefficients, _named(layers), max_norm=max_norm))


@takes_tensors
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
    named = _named(layers)
    sums = _run(_clipped, named, max_norm=max_norm, **more)
    finished = {name: named[name].finished(each) for name, each in sums.items()}
    return finished if isinstance(layers, Mapping) else finished[_ONLY]


@takes_tensors
def dot_products(layers: Layers, others: Layers | None = None) -> Array:
    """Dot products of examples' gradients, `[n, m]`: the empirical neural tangent kernel.

    Args:
        layers: one layer, or several by their names.
        others: the same layers on another batch of `m` examples; the same batch if left out. With
            training examples here and test examples there, this is a term of TracIn (Pruthi et al.,
            "Estimating training data influence by tracing gradient descent", 2020,
            arXiv:2002.08484).
    """
    named = _named(layers)
    other = named if others is None else _named(others)
    terms = [named[name].dot_products(other[name]) for name in named if named[name].gathers]
    mine, theirs = (
        {name: layer for name, layer in each.items() if not layer.gathers}
        for each in (named, other)
    )
    if mine and other is named:
        terms.append(_run(_own_products, mine))
    elif mine:
        terms.append(_run(_dot_products, mine, theirs))
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
    """Layers by their names, checked."""
    named = layers if isinstance(layers, Mapping) else {_ONLY: layers}
    if not named:
        raise ValueError("there are no layers: norms are over one layer or more")
    for name, layer in named.items():
        layer.check(name)
    return named


def _run(what: Callable[..., Any], *groups: Mapping[str, Layer], **arrays: Any) -> Any:
    """Run a function of layers and of further arrays as one compiled program."""
    forms = tuple(
        tuple((name, type(each), each.options(), tuple(each.arrays())) for name, each in g.items())
        for g in groups
    )
    operands = [array for g in groups for each in g.values() for array in each.arrays().values()]
    dtype = np.result_type(*(o.dtype for o in operands if np.issubdtype(o.dtype, np.inexact)))
    further = [np.asarray(array, dtype) for array in arrays.values()]
    return program(what, forms, tuple(arrays))(*operands, *further)


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
