"""Layers of real networks: the convolutions that `conv_layers` measures, of many kinds.

Extents are those of the published networks; of examples there are as many as take torch up to a
tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["LAYERS", "Layer"]


@dataclass(frozen=True)
class Layer:
    """A convolution of `image` positions along each axis, square in all of them.

    Attributes:
        groups: as PyTorch counts them; as many as channels make it depthwise.
        last: whether channels are the last axis of image and output.
    """

    name: str
    batch: int
    channels: int
    filters: int
    image: int
    taps: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    axes: int = 2
    last: bool = False

    @property
    def output(self) -> int:
        """Positions of the output along each axis."""
        reach = self.dilation * (self.taps - 1) + 1
        return (self.image + 2 * self.padding - reach) // self.stride + 1

    @property
    def depthwise(self) -> bool:
        """Whether no sum goes over channels."""
        return self.groups == self.channels == self.filters

    def equation(self) -> str:
        """The layer in affine notation."""
        positions, taps = "zyx"[-self.axes :], "mkl"[-self.axes :]
        if self.taps == 1:
            taps = ""
        space = [self._axis(y, k) for y, k in zip(positions, taps or positions, strict=True)]
        group = ["g"] if self.groups > 1 and not self.depthwise else []
        channel, filters = [["c"], ["o"]] if not self.depthwise else [["c"], ["c"]]
        weight = [*group, *dict.fromkeys([*filters, *channel]), *taps]
        image = [*group, *channel, *space] if not self.last else [*space, *group, *channel]
        out = [*group, *filters, *positions] if not self.last else [*positions, *group, *filters]
        if self.last:
            weight = [*group, *taps, *dict.fromkeys([*channel, *filters])]
        return f"n {' '.join(image)}, {' '.join(weight)} -> n {' '.join(out)}"

    def _axis(self, position: str, tap: str) -> str:
        text = f"{self.stride}*{position}" if self.stride > 1 else position
        if self.taps > 1:
            text += f"+{self.dilation}*{tap}" if self.dilation > 1 else f"+{tap}"
        return text + (f"-{self.padding}" if self.padding else "")

    def extents(self) -> dict[str, int]:
        """The extent of every index."""
        groups = 1 if self.depthwise else self.groups
        found = {"n": self.batch, "c": self.channels // groups, "o": self.filters // groups}
        found |= {"g": groups} | dict.fromkeys("zyx"[-self.axes :], self.output)
        found |= dict.fromkeys("mkl"[-self.axes :], self.taps)
        used = self.equation().replace("->", " ").replace(",", " ")
        return {index: extent for index, extent in found.items() if index in used}


def _layers() -> Iterator[Layer]:
    yield Layer("VGG 64, 112", 2, 64, 64, 112, 3, padding=1)
    yield Layer("VGG 256, 56", 1, 256, 256, 56, 3, padding=1)
    yield Layer("ResNet 64, 56", 8, 64, 64, 56, 3, padding=1)
    yield Layer("ResNet 128, 28", 8, 128, 128, 28, 3, padding=1)
    yield Layer("ResNet 256, 14", 8, 256, 256, 14, 3, padding=1)
    yield Layer("ResNet 512, 7", 8, 512, 512, 7, 3, padding=1)
    yield Layer("ResNet stem 7x7, stride 2", 4, 3, 64, 224, 7, stride=2, padding=3)
    yield Layer("ResNet 64 to 128, stride 2", 8, 64, 128, 56, 3, stride=2, padding=1)
    yield Layer("ResNet 256 to 512, stride 2", 8, 256, 512, 14, 3, stride=2, padding=1)
    yield Layer("ResNet 1x1, 256 to 1024, 14", 8, 256, 1024, 14, 1)
    yield Layer("ResNet 1x1, stride 2", 8, 256, 512, 28, 1, stride=2)
    yield Layer("DeepLab 256, dilation 2", 2, 256, 256, 28, 3, padding=2, dilation=2)
    yield Layer("DeepLab 64, dilation 6", 4, 64, 64, 33, 3, padding=6, dilation=6)
    yield Layer("ResNeXt 32 groups, 28", 4, 256, 256, 28, 3, padding=1, groups=32)
    yield Layer("ResNeXt 32 groups, stride 2", 4, 512, 512, 28, 3, stride=2, padding=1, groups=32)
    yield Layer("ShuffleNet 1x1, 3 groups", 8, 240, 240, 28, 1, groups=3)
    yield Layer("MobileNet depthwise 32, 112", 4, 32, 32, 112, 3, padding=1, groups=32)
    yield Layer("MobileNet depthwise 64, stride 2", 4, 64, 64, 112, 3, 2, 1, groups=64)
    yield Layer("MobileNet depthwise 256, stride 2", 8, 256, 256, 28, 3, 2, 1, groups=256)
    yield Layer("MobileNet depthwise 512, 14", 8, 512, 512, 14, 3, padding=1, groups=512)
    yield Layer("EfficientNet depthwise 5x5, 14", 8, 240, 240, 14, 5, padding=2, groups=240)
    yield Layer("ConvNeXt depthwise 7x7, 28", 4, 192, 192, 28, 7, padding=3, groups=192)
    yield Layer("LeNet 5x5, 14", 64, 6, 16, 14, 5)
    yield Layer("AlexNet 11x11, stride 4", 4, 3, 64, 224, 11, stride=4, padding=2)
    yield Layer("Inception 5x5, 28", 8, 32, 96, 28, 5, padding=2)
    yield Layer("U-Net 64, 96, valid", 2, 64, 64, 96, 3)
    yield Layer("CIFAR 32, 32", 16, 32, 32, 32, 3, padding=1)
    yield Layer("CIFAR 16, 32, channels last", 16, 16, 16, 32, 3, padding=1, last=True)
    yield Layer("ResNet 128, 28, channels last", 8, 128, 128, 28, 3, padding=1, last=True)
    yield Layer(
        "MobileNet depthwise, channels last", 8, 256, 256, 28, 3, 1, 1, groups=256, last=True
    )
    yield Layer("WaveNet 1-D, dilation 4", 8, 64, 64, 2048, 2, dilation=4, axes=1)
    yield Layer("speech 1-D 11 taps, stride 2", 8, 64, 128, 1024, 11, stride=2, padding=5, axes=1)
    yield Layer("C3D 64, 16", 2, 64, 64, 16, 3, padding=1, axes=3)
    yield Layer("V-Net 5x5x5, 16", 1, 16, 16, 24, 5, padding=2, axes=3)
    yield Layer("R3D stride 2", 2, 64, 128, 16, 3, stride=2, padding=1, axes=3)


LAYERS = tuple(_layers())
"""Every layer that is measured."""
