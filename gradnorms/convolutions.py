"""Convolutions: their weights' gradients are convolutions too, of images that nobody unfolds.

In every formula `n` counts examples, `p` are the positions of one, `k` the taps of the kernel, in
one dimension or several; `q` counts groups of channels. Along each axis, with the stride s, the
dilation d and the padding P, an output at `p` meets the input at `s*p + d*k - P`, which is zero
outside.

Squared norms of such gradients can be computed in three ways, of which the compiler takes the one
that it predicts to be fastest for the sizes at hand:

* instantiated: the gradient of each example, and the sum of its squares;
* Gram ("ghost") on windows: `sum_{p,r} (g[n,p] . g[n,r]) (X[n,p] . X[n,r])`, where `X[n,p]` is the
  window of an output (Bu et al., "Scalable and efficient training of large convolutional neural
  networks with differential privacy", 2022, arXiv:2205.10683);
* Gram of pixels: windows overlap, so the products of all pairs of pixels are formed once, and those
  of windows are sums along their diagonals, `X[n,p] . X[n,r] = sum_k Q[n, s*p+d*k-P, s*r+d*k-P]`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.decorator import einsum
from .layer import Array, Layer

__all__ = ["Convolution", "TransposedConvolution"]

Several = int | tuple[int, ...]
"""A number for each axis of a picture, or one for all."""

_POSITIONS, _TAPS = "xyzuvw", "klmrst"


@dataclass(frozen=True, eq=False)
class Convolution(Layer):
    """A convolution of any number of dimensions, as `torch.nn.Conv1d`, `Conv2d` and `Conv3d` are.

        y[q,o,p] = sum_{c,k} weight[q,o,c,k] x[q,c,s*p+d*k-P] + bias[q,o]

        weight[n,q,o,c,k] = sum_p g[n,q,o,p] x[n,q,c,s*p+d*k-P]
        bias[n,q,o] = sum_p g[n,q,o,p]

    With as many groups as channels it is a depthwise one. Rochette, Manoel, Tramel, "Efficient
    per-example gradient computations in convolutional neural networks", 2019, arXiv:1912.06015.

    Attributes:
        outputs: gradients at the outputs, `[n, channels, *positions]`.
        inputs: `[n, channels, *pixels]`.
        kernel: taps along each axis.
        stride: along each axis.
        padding: zeros in front of each axis and behind it; or "valid", none; or "same", as many as
            make the outputs as large as the inputs, which takes a stride of 1.
        dilation: pixels from one tap to the next, along each axis.
        groups: how many groups the channels are in, which have nothing to do with each other.
        bias: whether there is one.

    >>> import numpy as np
    >>> from einsumc import gradnorms
    >>> x, g = np.ones((2, 3, 8, 8)), np.ones((2, 4, 4, 4))
    >>> layer = gradnorms.Convolution(g, x, kernel=3, stride=2, padding=1)
    >>> {name: gradient.shape for name, gradient in layer.gradients().items()}
    {'weight': (2, 4, 3, 3, 3), 'bias': (2, 4)}
    >>> gradnorms.squared_norms(layer)
    array([20812., 20812.])
    """

    outputs: Array
    inputs: Array
    kernel: Several
    stride: Several = 1
    padding: Several | str = 0
    dilation: Several = 1
    groups: int = 1
    bias: bool = True

    def gradients(self) -> dict[str, Array]:
        """The gradients of `weight`, `[n, o, c / groups, *taps]`, and of `bias`, `[n, o]`."""
        found = {"weight": self._geometry().weight(self.outputs, self.inputs)}
        if self.bias:
            found["bias"] = _sum_of_positions(self.outputs)
        return found

    def check(self, name: str) -> None:
        """Raise ValueError unless the arrays fit each other and the options."""
        super().check(name)
        self._geometry().check(f"Convolution {name!r}", self.inputs, self.outputs)

    def _geometry(self) -> _Geometry:
        return _geometry(self, self.inputs.ndim - 2, self.padding)


@dataclass(frozen=True, eq=False)
class TransposedConvolution(Layer):
    """A transposed convolution, as `torch.nn.ConvTranspose1d`, `2d` and `3d` are.

        y[q,o,s*p+d*k-P] = sum_{c,p,k: the same place} weight[q,c,o,k] x[q,c,p] + bias[q,o]

        weight[n,q,c,o,k] = sum_p x[n,q,c,p] g[n,q,o,s*p+d*k-P]
        bias[n,q,o] = sum_p g[n,q,o,p]

    It is the gradient of a convolution: inputs and outputs have changed places. Dumoulin, Visin, "A
    guide to convolution arithmetic for deep learning", 2016, arXiv:1603.07285.

    Attributes:
        outputs: gradients at the outputs, `[n, channels, *positions]`. Their extents are what they
            are: whatever was chosen as `output_padding` is in them.
        inputs: `[n, channels, *pixels]`.
        kernel: taps along each axis.
        stride: along each axis.
        padding: what is cut off at both ends of each axis.
        dilation: positions from one tap to the next, along each axis.
        groups: how many groups the channels are in.
        bias: whether there is one.
    """

    outputs: Array
    inputs: Array
    kernel: Several
    stride: Several = 1
    padding: Several = 0
    dilation: Several = 1
    groups: int = 1
    bias: bool = True

    def gradients(self) -> dict[str, Array]:
        """The gradients of `weight`, `[n, c, o / groups, *taps]`, and of `bias`, `[n, o]`."""
        found = {"weight": self._geometry().weight(self.inputs, self.outputs)}
        if self.bias:
            found["bias"] = _sum_of_positions(self.outputs)
        return found

    def check(self, name: str) -> None:
        """Raise ValueError unless the arrays fit each other and the options."""
        super().check(name)
        kind = f"TransposedConvolution {name!r}"
        self._geometry().check(kind, self.outputs, self.inputs, whole=False)

    def _geometry(self) -> _Geometry:
        return _geometry(self, self.inputs.ndim - 2, self.padding)


# --- what both have in common ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Geometry:
    """Where windows are, for each axis: `before` and `after` are zeros at its ends."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def weight(self, windows: Array, image: Array) -> Array:
        """Each example's sum over all windows of their products with the image under them.

        Of `windows`, `[n, a, *positions]`, and `image`, `[n, b, *pixels]`, it is
        `[n, a, b / groups, *taps]`.
        """
        axes = list(zip(_POSITIONS, _TAPS, self.stride, self.dilation, self.before, strict=False))
        read = " ".join(f"{s}*{p}+{d}*{k}{-pad:+d}" for p, k, s, d, pad in axes)
        positions = " ".join(_POSITIONS[: len(axes)])
        taps = " ".join(_TAPS[: len(axes)])
        sizes = dict(zip(_TAPS, self.kernel, strict=False))
        if self.groups == 1:
            text = f"n a {positions}, n b {read} -> n a b {taps}"
            single: Array = einsum(text, windows, image, sizes=sizes)
            return single
        text = f"n q a {positions}, n q b {read} -> n q a b {taps}"
        parts = _grouped(windows, self.groups), _grouped(image, self.groups)
        found: Array = einsum(text, *parts, sizes=sizes)
        examples, groups, own, others, *rest = found.shape
        return found.reshape(examples, groups * own, others, *rest)

    def check(self, kind: str, image: Array, windows: Array, whole: bool = True) -> None:
        """Raise ValueError unless windows fit an image, all that there is room for if `whole`."""
        if image.ndim != windows.ndim or not 1 <= image.ndim - 2 <= len(_TAPS):
            raise ValueError(
                f"{kind}: inputs and outputs are [n, channels, ...] with as many axes each, but "
                f"have the shapes {windows.shape} and {image.shape}"
            )
        for array in (image, windows):
            if array.shape[1] % self.groups:
                raise ValueError(
                    f"{kind}: {array.shape[1]} channels are not in {self.groups} groups"
                )
        for axis, (have, there) in enumerate(zip(windows.shape[2:], image.shape[2:], strict=True)):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            room = there + self.before[axis] + self.after[axis] - reach
            fit = max(room // self.stride[axis] + 1, 0)
            if have > fit or (whole and have != fit):
                raise ValueError(
                    f"{kind}: axis {axis + 2} has {have} windows, but {fit} of {reach} fit in "
                    f"{there} with a stride of {self.stride[axis]} and padding of "
                    f"{self.before[axis]} and {self.after[axis]}"
                )


def _geometry(
    layer: Convolution | TransposedConvolution, axes: int, padding: Several | str
) -> _Geometry:
    kernel, stride, dilation = (
        _of_all_axes(each, axes, name)
        for name, each in (
            ("kernel", layer.kernel),
            ("stride", layer.stride),
            ("dilation", layer.dilation),
        )
    )
    if padding == "same":
        if any(step != 1 for step in stride):
            raise ValueError("padding='same' takes a stride of 1")
        both = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        before = tuple(each // 2 for each in both)
        after = tuple(each - each // 2 for each in both)
    elif padding == "valid":
        before = after = (0,) * axes
    elif isinstance(padding, str):
        raise ValueError(f"padding must be numbers, 'same' or 'valid', not {padding!r}")
    else:
        before = after = _of_all_axes(padding, axes, "padding")
    return _Geometry(kernel, stride, before, after, dilation, layer.groups)


def _of_all_axes(value: Several, axes: int, name: str) -> tuple[int, ...]:
    """One number for each axis."""
    found = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(found) != axes:
        raise ValueError(f"{name} has {len(found)} numbers for {axes} axes")
    return found


def _grouped(array: Array, groups: int) -> Array:
    """The same with an axis of groups in front of that of channels."""
    examples, channels, *rest = array.shape
    return array.reshape(examples, groups, channels // groups, *rest)


def _sum_of_positions(array: Array) -> Array:
    """What is left of examples and channels."""
    total: Array = array.sum(axis=tuple(range(2, array.ndim)))
    return total
