"""Per-example gradient norms, clipping and dot products, for the layers that people train.

A layer's record holds what it saw in one batch: its inputs, and the gradients of the loss at its
outputs. From that follow, without a gradient of a parameter being formed unless that is cheapest,

* `squared_norms`, `norms`, `squared_norms_by_layer`: of each example's gradient,
* `clip_coefficients`, `clipped_sums`: differentially private training (DP-SGD) but for the noise,
* `dot_products`: of examples' gradients (neural tangent kernels, data attribution).

>>> import numpy as np
>>> from einsumc import gradnorms
>>> rng = np.random.default_rng(0)
>>> x, g = rng.normal(size=(8, 5, 3)), rng.normal(size=(8, 5, 4))
>>> layers = {"linear": gradnorms.Linear(g, x), "norm": gradnorms.LayerNorm(x, x)}
>>> gradnorms.norms(layers).shape
(8,)
>>> {name: sums["weight"].shape for name, sums in gradnorms.clipped_sums(layers, 1.0).items()}
{'linear': (4, 3), 'norm': (3,)}

Every function is one program that einsumc traces; the formulas stand with the layers. Arrays may be
PyTorch's tensors in the CPU's memory: they are read where they are, and results are tensors.
"""

from .convolutions import Convolution, TransposedConvolution
from .embeddings import Embedding, TiedEmbedding, tied
from .layer import Layer
from .layers import LSTM, Bilinear, GroupNorm, LayerNorm, Linear, LoRA, Projection, RMSNorm
from .steps import (
    clip_coefficients,
    clipped_sums,
    dot_products,
    norms,
    squared_norms,
    squared_norms_by_layer,
    squared_norms_per_head,
)

__all__ = [
    "LSTM",
    "Bilinear",
    "Convolution",
    "Embedding",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "Linear",
    "LoRA",
    "Projection",
    "RMSNorm",
    "TiedEmbedding",
    "TransposedConvolution",
    "clip_coefficients",
    "clipped_sums",
    "dot_products",
    "norms",
    "squared_norms",
    "squared_norms_by_layer",
    "squared_norms_per_head",
    "tied",
]
