"""Layers that look rows of a table up: no one-hot vectors, and no gradient of the whole table.

The gradient of a row is the sum of what came back to the places that hold its number. So two
gradients have a product that only pairs of places with the same number contribute to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from ..runtime.decorator import compile_einsum
from .layer import Array, Layer, flat, merged, takes_tensors

__all__ = ["Embedding", "TiedEmbedding", "tied"]

OFTEN = 16
"""One place in so many has to repeat a number for places to be put in order."""


@dataclass(frozen=True, eq=False)
class Embedding(Layer):
    """A table of vectors, `y[t] = weight[ids[t]]`.

        weight[n,v] = sum_{t: ids[n,t] = v} g[n,t]
        |weight[n]|^2 = sum_{t,s: ids[n,t] = ids[n,s]} g[n,t] . g[n,s]

    Attributes:
        ids: which rows were looked up, integers, `[n, ...]`.
        outputs: gradients at what was looked up, `[n, ..., d]`.
        rows: how many rows the table has; only for sums of gradients.
    """

    shapes: ClassVar[Mapping[str, str]] = {"ids": "n...", "outputs": "n...d"}
    reorders: ClassVar[bool] = True

    ids: Array
    outputs: Array
    rows: int | None = None

    def prepared(self) -> Self:
        """The same with each example's places in the order of their numbers, if many are equal.

        Products of places with different numbers are left out where a whole register tile has no
        others: so equal numbers had better be neighbours.
        """
        ids, g = _places(self.ids, self.outputs)
        ordered = np.sort(ids, axis=1)
        repeated = np.count_nonzero(ordered[:, 1:] == ordered[:, :-1])
        if repeated * OFTEN <= ids.size:
            return self
        order = ids.argsort(axis=1)
        rows = (order + np.arange(len(ids))[:, None] * ids.shape[1]).reshape(-1)
        g = merged(g, 0, 2)[rows].reshape(g.shape)
        return replace(
            self,
            ids=np.take_along_axis(ids, order, axis=1).reshape(self.ids.shape),
            outputs=g.reshape(self.outputs.shape),
        )

    def squared_norms(self) -> Array:
        """The squared norm of each example's gradient of the table, `[n]`."""
        ids, g = _places(self.ids, self.outputs)
        same = ids[:, :, None] == ids[:, None, :]
        products = np.einsum("ntd,nsd->nts", g, g)
        norms: Array = np.where(same, products, 0).sum((1, 2))
        return norms

    def dot_products(self, other: Self) -> Array:
        """Dot products of all examples' gradients here with all of another batch, `[n, m]`."""
        (ids, g), (others, h) = _places(self.ids, self.outputs), _places(other.ids, other.outputs)
        same = ids[:, None, :, None] == others[None, :, None, :]
        products: Array = np.einsum("nmts,ntd,msd->nm", same, g, h)
        return products

    def weighted_sums(self, weights: Array) -> dict[str, Array]:
        """The gradients at what was looked up, each times its example's weight."""
        return {"scaled": np.einsum("n,ntd->ntd", weights, flat(self.outputs))}

    def finished(self, sums: dict[str, Array]) -> dict[str, Array]:
        """The sum of all gradients of the table, `weight`: `[rows, d]`.

        Raises:
            ValueError: the number of rows is not known.
        """
        if self.rows is None:
            raise ValueError("a sum of an embedding's gradients needs rows=, the table's length")
        table = np.zeros((self.rows, sums["scaled"].shape[-1]), sums["scaled"].dtype)
        return {"weight": _add_rows(table, self.ids, sums["scaled"])}


@dataclass(frozen=True, eq=False)
class TiedEmbedding(Layer):
    """A table that is looked up at the bottom of a network and multiplied with at its top.

        y[t] = weight[ids[t]]        logits[t] = weight @ x[t]

    The gradient is that of an embedding plus that of a linear layer; so the squared norm has both
    and twice their product, `sum_{t,s} logits[n,t,ids[n,s]] x[n,t] . g[n,s]`. Made by `tied`.

    Attributes:
        ids: which rows were looked up, integers, `[n, s]`.
        outputs: gradients at what was looked up, `[n, s, d]`.
        inputs: what came into the top, `[n, t, d]`.
        logits: gradients at the logits, `[n, t, v]`.
        chosen: of the last, the columns of the rows that were looked up, `[n, t, s]`.
    """

    shapes: ClassVar[Mapping[str, str]] = {
        "ids": "ns",
        "outputs": "nsd",
        "inputs": "ntd",
        "logits": "ntv",
        "chosen": "nts",
    }
    gathers: ClassVar[bool] = True

    ids: Array
    outputs: Array
    inputs: Array
    logits: Array
    chosen: Array

    def squared_norms(self) -> Array:
        """The squared norm of each example's gradient of the table, `[n]`."""
        head = np.einsum("ntv,ntd->nvd", self.logits, self.inputs)
        product = np.einsum("nts,ntd,nsd->n", self.chosen, self.inputs, self.outputs)
        bottom = Embedding(self.ids, self.outputs).squared_norms()
        norms: Array = bottom + np.einsum("nvd,nvd->n", head, head) + 2 * product
        return norms

    def dot_products(self, other: Self) -> Array:
        """Dot products of all examples' gradients here with all of another batch, `[n, m]`."""
        products: Array = _tied_products(
            (self.ids, self.outputs, self.inputs, self.logits, self.logits[:, :, other.ids]),
            (other.ids, other.outputs, other.inputs, other.logits, other.logits[:, :, self.ids]),
        )
        return products

    def weighted_sums(self, weights: Array) -> dict[str, Array]:
        """The sum of the top's gradients, and the scaled gradients at what was looked up."""
        return {
            "head": np.einsum("n,ntv,ntd->vd", weights, self.logits, self.inputs),
            "scaled": np.einsum("n,nsd->nsd", weights, self.outputs),
        }

    def finished(self, sums: dict[str, Array]) -> dict[str, Array]:
        """The sum of all gradients of the table, `weight`: `[v, d]`."""
        return {"weight": _add_rows(sums["head"], self.ids, sums["scaled"])}


@takes_tensors
def tied(ids: Array, outputs: Array, inputs: Array, logits: Array) -> TiedEmbedding:
    """The record of a table that is used at both ends of a network. See `TiedEmbedding`."""
    ids, outputs = _places(np.asarray(ids), np.asarray(outputs))
    inputs, logits = (flat(np.asarray(each)) for each in (inputs, logits))
    chosen = np.take_along_axis(logits, ids[:, None, :], axis=2)
    return TiedEmbedding(ids, outputs, inputs, logits, chosen)


@compile_einsum
def _tied_products(mine: tuple[Array, ...], theirs: tuple[Array, ...]) -> Array:
    """Dot products of gradients; the last of each are the logits at the others' rows."""
    ids, outputs, inputs, logits, chosen = mine
    other_ids, other_outputs, other_inputs, other_logits, other_chosen = theirs
    same = ids[:, None, :, None] == other_ids[None, :, None, :]
    products: Array = (
        np.einsum("nmts,ntd,msd->nm", same, outputs, other_outputs)
        + np.einsum("ntv,ntd,msv,msd->nm", logits, inputs, other_logits, other_inputs)
        + np.einsum("ntms,ntd,msd->nm", chosen, inputs, other_outputs)
        + np.einsum("msnt,msd,ntd->nm", other_chosen, other_inputs, outputs)
    )
    return products


def _places(ids: Array, outputs: Array) -> tuple[Array, Array]:
    """The same with one axis of places, `[n, t]` and `[n, t, d]`."""
    return merged(ids, 1, ids.ndim), flat(outputs)


def _add_rows(table: Array, ids: Array, vectors: Array) -> Array:
    """Add each vector to the row of its number, in place."""
    np.add.at(table, ids.reshape(-1), merged(vectors, 0, vectors.ndim - 1))
    return table
