"""Norms of gradients of convolutions, with programs on windows that are laid out beforehand.

Peers get the unfolded image `U` ready made, as contiguous memory, and are not charged for it;
einsumc gets the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["NORM_CONVOLUTIONS", "ConvolutionNorm"]

_POSITIONS, _OTHERS, _TAPS = "yzw", "abd", "klm"


class ConvolutionNorm(NamedTuple):
    """Squared norms of the gradients of a convolution's weight, one for each example.

    `channels` are those of the image and of the output; `image` its extents; `kernel`, `stride`,
    `padding` and `dilation` are the same along all axes.
    """

    name: str
    examples: int
    channels: tuple[int, int]
    image: tuple[int, ...]
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> ConvolutionNorm:
        """A row of `norm_cases.json`."""
        (n, inputs, *image), (_, outputs, *_) = (row["shapes"][name] for name in "XB")
        names = ("kernel", "stride", "padding", "dilation", "groups")
        options = (row["conv"][name] for name in names)
        return cls(row["layer"], n, (inputs, outputs), tuple(image), *options)

    @property
    def extents(self) -> dict[str, int]:
        """Of every index; `g` are groups."""
        reach = self.dilation * (self.kernel - 1) + 1
        found = {"n": self.examples, "g": self.groups}
        found |= dict(zip("co", (each // self.groups for each in self.channels), strict=True))
        for axis, extent in enumerate(self.image):
            count = (extent + 2 * self.padding - reach) // self.stride + 1
            found |= {_POSITIONS[axis]: count, _OTHERS[axis]: count, _TAPS[axis]: self.kernel}
        return found if self.groups > 1 else {i: n for i, n in found.items() if i != "g"}

    @property
    def equation(self) -> str:
        """Of the gradient at the output, twice, and of the image, twice."""
        batch = "n g" if self.groups > 1 else "n"
        terms = [f"{batch} o {' '.join(each[: self.axes])}" for each in (_POSITIONS, _OTHERS)]
        for positions in (_POSITIONS, _OTHERS):
            pad = f"-{self.padding}" if self.padding else ""
            read = (
                f"{_times(self.stride, position)}+{_times(self.dilation, tap)}{pad}"
                for position, tap in zip(positions, _TAPS[: self.axes], strict=False)
            )
            terms.append(f"{batch} c {' '.join(read)}")
        return f"{', '.join(terms)} -> n"

    @property
    def axes(self) -> int:
        """Of the image."""
        return len(self.image)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of `B`, the gradient at the output, and of `X`, the image."""
        of = self.extents
        batch = (of["n"], of["g"]) if self.groups > 1 else (of["n"],)
        positions = tuple(of[i] for i in _POSITIONS[: self.axes])
        return {"B": (*batch, of["o"], *positions), "X": (*batch, of["c"], *self.image)}

    @property
    def unfolded(self) -> str:
        """The axes of `U`: a row for each channel and tap, with all positions."""
        batch = "ng" if self.groups > 1 else "n"
        return f"{batch}c{_TAPS[: self.axes]}{_POSITIONS[: self.axes]}"

    @property
    def programs(self) -> dict[str, tuple[tuple[str, str, str], ...]]:
        """Steps, each a result, an equation and its operands."""
        batch, axes = "ng" if self.groups > 1 else "n", self.axes
        y, a, taps = _POSITIONS[:axes], _OTHERS[:axes], _TAPS[:axes]
        gradient, pairs = f"{batch}oc{taps}", f"{batch}{y}{a}"
        windows = f"{batch}c{taps}{y},{batch}c{taps}{a}->{pairs}"
        return {
            "instantiate": (
                ("G", f"{batch}o{y},{batch}c{taps}{y}->{gradient}", "BU"),
                ("r", f"{gradient},{gradient}->n", "GG"),
            ),
            "ghost": (
                ("p", f"{batch}o{y},{batch}o{a}->{pairs}", "BB"),
                ("q", windows, "UU"),
                ("r", f"{pairs},{pairs}->n", "pq"),
            ),
        }


def _times(factor: int, name: str) -> str:
    return name if factor == 1 else f"{factor}*{name}"


NORM_CONVOLUTIONS = (
    ConvolutionNorm("VGG16 conv5 512->512 k3 14x14", 8, (512, 512), (14, 14), 3, 1, 1),
    ConvolutionNorm("ResNet18 layer2 128->128 k3 28x28", 8, (128, 128), (28, 28), 3, 1, 1),
    ConvolutionNorm("grouped, 128->128 g32 k3 28x28", 8, (128, 128), (28, 28), 3, 1, 1, 1, 32),
    ConvolutionNorm("grouped, 64->128 g4 k3 s2 32x32", 16, (64, 128), (32, 32), 3, 2, 1, 1, 4),
    ConvolutionNorm("depthwise, 128 k3 28x28", 16, (128, 128), (28, 28), 3, 1, 1, 1, 128),
    ConvolutionNorm("depthwise, ConvNeXt 96 k7 56x56", 4, (96, 96), (56, 56), 7, 1, 3, 1, 96),
    ConvolutionNorm("dilated, 64->64 k3 d4 32x32", 16, (64, 64), (32, 32), 3, 1, 4, 4),
    ConvolutionNorm("patches, ViT 3->192 k16 s16 224", 8, (3, 192), (224, 224), 16, 16),
    ConvolutionNorm("WaveNet conv1d 64->128 k2 d16 2000", 8, (64, 128), (2000,), 2, 1, 0, 16),
    ConvolutionNorm("wav2vec conv1d 256->256 k3 s2 800", 8, (256, 256), (800,), 3, 2),
    ConvolutionNorm("R3D stem 3->45 k3 s2 16x56x56", 4, (3, 45), (16, 56, 56), 3, 2, 1),
)
"""Eleven that `norm_cases.json` has not."""
