"""Layers whose gradients are einsums of what came in and of the gradients at what came out.

In every formula `n` counts examples, `t` whatever lies between them and the last axis (time,
tokens, pixels, or nothing), `x` is a layer's input and `g` the gradient of the loss at its output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from .layer import Array, Layer, flat

__all__ = ["LSTM", "Bilinear", "GroupNorm", "LayerNorm", "Linear", "LoRA", "Projection", "RMSNorm"]


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """A linear layer, `y = x @ weight.T + bias`.

        weight[n,o,i] = sum_t g[n,t,o] x[n,t,i]        bias[n,o] = sum_t g[n,t,o]

    Without `t` the squared norm of the first is `|g[n]|^2 |x[n]|^2` (Goodfellow, "Efficient
    per-example gradient computations", 2015, arXiv:1510.01799). With few `t` it is cheaper through
    `sum_{t,s} (x[n,t] . x[n,s]) (g[n,t] . g[n,s])` (Li et al., "Large language models can be strong
    differentially private learners", 2022, arXiv:2110.05679, where it is called ghost clipping).

    Attributes:
        outputs: gradients at the outputs, `[n, ..., o]`.
        inputs: `[n, ..., i]`.
        bias: whether there is one.
        weight: whether the weight is trained.
    """

    shapes: ClassVar[Mapping[str, str]] = {"outputs": "n...o", "inputs": "n...i"}

    outputs: Array
    inputs: Array
    bias: bool = True
    weight: bool = True

    def gradients(self) -> dict[str, Array]:
        """The gradients of `weight`, `[n, o, i]`, and of `bias`, `[n, o]`."""
        found = {}
        if self.weight:
            found["weight"] = np.einsum("nto,nti->noi", flat(self.outputs), flat(self.inputs))
        if self.bias:
            found["bias"] = np.einsum("nto->no", flat(self.outputs))
        return found


@dataclass(frozen=True, eq=False)
class Projection(Layer):
    """A linear map into several heads, `y[t,h,d] = sum_i weight[h,d,i] x[t,i]`.

        weight[n,h,d,i] = sum_t g[n,t,h,d] x[n,t,i]

    Attributes:
        outputs: gradients at the outputs, `[n, ..., h, d]`.
        inputs: `[n, ..., i]`.
        bias: whether there is one, `[h, d]`.
    """

    shapes: ClassVar[Mapping[str, str]] = {"outputs": "n...hd", "inputs": "n...i"}

    outputs: Array
    inputs: Array
    bias: bool = False

    def gradients(self) -> dict[str, Array]:
        """The gradients of `weight`, `[n, h, d, i]`, and of `bias`, `[n, h, d]`."""
        found = {"weight": np.einsum("nthd,nti->nhdi", flat(self.outputs, 2), flat(self.inputs))}
        if self.bias:
            found["bias"] = np.einsum("nthd->nhd", flat(self.outputs, 2))
        return found

    def squared_norms_per_head(self) -> Array:
        """The squared norm of each example's gradient of each head's weight, `[n, h]`."""
        from .steps import squared_norms_per_head  # which imports the layers' base

        return squared_norms_per_head(self)


@dataclass(frozen=True, eq=False)
class Bilinear(Layer):
    """A bilinear layer, `y[o] = sum_{i,j} left[i] weight[o,i,j] right[j] + bias[o]`.

        weight[n,o,i,j] = sum_t g[n,t,o] left[n,t,i] right[n,t,j]

    Attributes:
        outputs: gradients at the outputs, `[n, ..., o]`.
        left: `[n, ..., i]`.
        right: `[n, ..., j]`.
        bias: whether there is one.
    """

    shapes: ClassVar[Mapping[str, str]] = {"outputs": "n...o", "left": "n...i", "right": "n...j"}

    outputs: Array
    left: Array
    right: Array
    bias: bool = True

    def gradients(self) -> dict[str, Array]:
        """The gradients of `weight`, `[n, o, i, j]`, and of `bias`, `[n, o]`."""
        outputs, left, right = (flat(each) for each in (self.outputs, self.left, self.right))
        found = {"weight": np.einsum("nto,nti,ntj->noij", outputs, left, right)}
        if self.bias:
            found["bias"] = np.einsum("nto->no", outputs)
        return found


@dataclass(frozen=True, eq=False)
class LoRA(Layer):
    """A pair of low rank beside a frozen layer, `y = scale * (x @ down.T) @ up.T`.

        down[n,r,i] = scale * sum_t (g[n,t] @ up)[r] x[n,t,i]
        up[n,o,r] = scale * sum_t g[n,t,o] (x[n,t] @ down.T)[r]

    Hu et al., "LoRA: low-rank adaptation of large language models", 2021, arXiv:2106.09685.

    Attributes:
        outputs: gradients at the outputs, `[n, ..., o]`.
        inputs: `[n, ..., i]`.
        down: the first factor, `[r, i]`, called A in the paper.
        up: the second factor, `[o, r]`, called B in the paper.
        scale: alpha / r in the paper.
    """

    shapes: ClassVar[Mapping[str, str]] = {
        "outputs": "n...o",
        "inputs": "n...i",
        "down": "ri",
        "up": "or",
    }
    shared: ClassVar[tuple[str, ...]] = ("down", "up")

    outputs: Array
    inputs: Array
    down: Array
    up: Array
    scale: float = 1.0

    def gradients(self) -> dict[str, Array]:
        """The gradients of `down`, `[n, r, i]`, and of `up`, `[n, o, r]`."""
        outputs, inputs = flat(self.outputs), flat(self.inputs)
        down = np.einsum("nto,or,nti->nri", outputs, self.up, inputs)
        up = np.einsum("nto,ri,nti->nor", outputs, self.down, inputs)
        if self.scale == 1:
            return {"down": down, "up": up}
        return {"down": self.scale * down, "up": self.scale * up}


@dataclass(frozen=True, eq=False)
class LSTM(Layer):
    """The linear maps into the gates of a recurrent layer, LSTM, GRU or other.

        weight_ih[n,k,i] = sum_t g[n,t,k] x[n,t,i]
        weight_hh[n,k,h] = sum_t g[n,t,k] state[n,t,h]
        bias_ih[n,k] = bias_hh[n,k] = sum_t g[n,t,k]

    Attributes:
        gates: gradients at the gates, before their sigmoids and tanh, `[n, t, k]`; `k` is four
            times the state's size for an LSTM.
        inputs: `[n, t, i]`.
        states: the hidden state that came into each step, `[n, t, h]`.
        biases: how many there are: PyTorch has 2, one beside each weight.
    """

    shapes: ClassVar[Mapping[str, str]] = {"gates": "ntk", "inputs": "nti", "states": "nth"}

    gates: Array
    inputs: Array
    states: Array
    biases: int = 2

    def gradients(self) -> dict[str, Array]:
        """The gradients of `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`."""
        found = {
            "weight_ih": np.einsum("ntk,nti->nki", self.gates, self.inputs),
            "weight_hh": np.einsum("ntk,nth->nkh", self.gates, self.states),
        }
        for name in ("bias_ih", "bias_hh")[: self.biases]:
            found[name] = np.einsum("ntk->nk", self.gates)
        return found


@dataclass(frozen=True, eq=False)
class LayerNorm(Layer):
    """Layer normalization over the last `axes` axes, `y = weight * z + bias`.

        z = (x - mean(x)) / sqrt(var(x) + eps)
        weight[n,d] = sum_t g[n,t,d] z[n,t,d]        bias[n,d] = sum_t g[n,t,d]

    Ba, Kiros, Hinton: "Layer normalization", 2016, arXiv:1607.06450.

    Attributes:
        outputs: gradients at the outputs, `[n, ..., *normalized]`.
        inputs: `[n, ..., *normalized]`.
        axes: how many axes are normalized together.
        eps: what is added to the variance.
        bias: whether there is one.
    """

    shapes: ClassVar[Mapping[str, str]] = {"outputs": "n...", "inputs": "n..."}

    outputs: Array
    inputs: Array
    axes: int = 1
    eps: float = 1e-5
    bias: bool = True

    def gradients(self) -> dict[str, Array]:
        """The gradients of `weight` and `bias`, `[n, *normalized]`."""
        over = tuple(range(-self.axes, 0))
        centred = self.inputs - self.inputs.mean(over, keepdims=True)
        variance = (centred * centred).mean(over, keepdims=True)
        scale = 1 / np.sqrt(variance + self.eps)
        return _affine(self.outputs, centred * scale, self.axes, self.bias)


@dataclass(frozen=True, eq=False)
class RMSNorm(Layer):
    """Normalization by the root of the mean square over the last axis, `y = weight * z`.

        z = x / sqrt(mean(x^2) + eps)        weight[n,d] = sum_t g[n,t,d] z[n,t,d]

    Zhang, Sennrich: "Root mean square layer normalization", 2019, arXiv:1910.07467.

    Attributes:
        outputs: gradients at the outputs, `[n, ..., d]`.
        inputs: `[n, ..., d]`.
        eps: what is added to the mean square.
    """

    shapes: ClassVar[Mapping[str, str]] = {"outputs": "n...d", "inputs": "n...d"}

    outputs: Array
    inputs: Array
    eps: float = 1e-6

    def gradients(self) -> dict[str, Array]:
        """The gradients of `weight`, `[n, d]`."""
        mean_square = (self.inputs * self.inputs).mean(-1, keepdims=True)
        scale = 1 / np.sqrt(mean_square + self.eps)
        return _affine(self.outputs, self.inputs * scale, 1, False)


@dataclass(frozen=True, eq=False)
class GroupNorm(Layer):
    """Normalization of groups of channels; instance normalization if every channel is a group.

        z = (x - mean(x)) / sqrt(var(x) + eps), over the channels of a group and all positions
        weight[n,c] = sum_t g[n,c,t] z[n,c,t]        bias[n,c] = sum_t g[n,c,t]

    Wu, He: "Group normalization", 2018, arXiv:1803.08494. Ulyanov, Vedaldi, Lempitsky: "Instance
    normalization", 2016, arXiv:1607.08022.

    Attributes:
        outputs: gradients at the outputs, `[n, c, ...]`.
        inputs: `[n, c, ...]`.
        groups: how many groups the channels are in; None for one a channel.
        eps: what is added to the variance.
        bias: whether there is one.
    """

    shapes: ClassVar[Mapping[str, str]] = {"outputs": "nc...", "inputs": "nc..."}

    outputs: Array
    inputs: Array
    groups: int | None
    eps: float = 1e-5
    bias: bool = True

    def gradients(self) -> dict[str, Array]:
        """The gradients of `weight` and `bias`, `[n, c]`."""
        examples, channels = self.inputs.shape[:2]
        groups = channels if self.groups is None else self.groups
        shape = (examples, groups, channels // groups, prod(self.inputs.shape[2:]))
        grouped = self.inputs.reshape(shape)
        centred = grouped - grouped.mean((2, 3), keepdims=True)
        variance = (centred * centred).mean((2, 3), keepdims=True)
        normalized = centred * (1 / np.sqrt(variance + self.eps))
        outputs = self.outputs.reshape(shape)
        found = {"weight": np.einsum("ngct,ngct->ngc", outputs, normalized)}
        if self.bias:
            found["bias"] = np.einsum("ngct->ngc", outputs)
        return {name: each.reshape(examples, channels) for name, each in found.items()}


def _affine(outputs: Array, normalized: Array, axes: int, bias: bool) -> dict[str, Array]:
    """The gradients of a weight and a bias that every position has in common."""
    outputs, normalized = flat(outputs, axes), flat(normalized, axes)
    shape = "abcdefgh"[:axes]
    found = {"weight": np.einsum(f"nt{shape},nt{shape}->n{shape}", outputs, normalized)}
    if bias:
        found["bias"] = np.einsum(f"nt{shape}->n{shape}", outputs)
    return found
