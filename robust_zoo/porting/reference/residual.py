"""ResNets with the activation after the sum."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from robust_zoo.porting.reference.parts import average


@dataclass(frozen=True)
class Names:
    """What the authors call the parts whose names differ, and how they pool.

    Attributes:
        shortcut: a convolution and its normalisation.
        logits: the dense layer.
        pool: side of the window of the average before it, behind four stages and the small stem; None for all pixels.
    """

    shortcut: str
    logits: str
    pool: int | None


CIFAR = Names("shortcut", "linear", 4)
TORCHVISION = Names("downsample", "fc", None)
_BLOCKS = {
    **{18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)},
    **{20: (3,) * 3, 32: (5,) * 3, 44: (7,) * 3, 56: (9,) * 3},
}


class _Block(nn.Module):
    """Of two 3 x 3 convolutions, or a bottleneck of three with the strides in the second.

    Where the shape changes, `shortcut` names a convolution beside them; None for every second pixel and channels of
    zeros.
    """

    def __init__(
        self, a: int, inside: int, b: int, strides: int, *, bottleneck: bool, shortcut: str | None
    ) -> None:
        super().__init__()
        shapes = [(a, inside, 3, strides), (inside, b, 3, 1)]
        if bottleneck:
            shapes = [(a, inside, 1, 1), (inside, inside, 3, strides), (inside, b, 1, 1)]
        self.count = len(shapes)
        for number, (c, d, size, step) in enumerate(shapes, start=1):
            self.add_module(f"conv{number}", nn.Conv2d(c, d, size, step, size // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(d))
        self.strides, self.added = strides, b - a
        self.shortcut_name = shortcut if strides > 1 or a != b else None
        if self.shortcut_name:
            projection = nn.Conv2d(a, b, 1, strides, bias=False)
            self.add_module(self.shortcut_name, nn.Sequential(projection, nn.BatchNorm2d(b)))

    def _beside(self, x: torch.Tensor) -> torch.Tensor:
        if self.shortcut_name:
            return self.get_submodule(self.shortcut_name)(x)
        half = self.added // 2
        x = x[:, :, :: self.strides, :: self.strides]
        return functional.pad(x, (0, 0, 0, 0, half, self.added - half))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beside = self._beside(x)
        for number in range(1, self.count + 1):
            x = self.get_submodule(f"conv{number}")(x)
            x = self.get_submodule(f"bn{number}")(x)
            x = x.relu() if number < self.count else x
        return (x + beside).relu()


class _ResNet(nn.Module):
    def __init__(self, names: Names, options: Mapping[str, Any]) -> None:
        super().__init__()
        blocks, bottleneck = _BLOCKS[options["depth"]], options["depth"] == 50
        large, few = options["stem"] == "large", len(blocks) == 3
        shape, a = options["input_shape"], options["width"] or (16 if few else 64)
        size, strides = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(shape[2], a, size, strides, size // 2, bias=False)
        self.bn1, self.large = nn.BatchNorm2d(a), large
        inside, self.stages = a, [f"layer{stage + 1}" for stage in range(len(blocks))]
        for name, count in zip(self.stages, blocks, strict=True):
            made, b = list[nn.Module](), inside * (4 if bottleneck else 1)
            for block in range(count):
                strides = 2 if name != "layer1" and not block else 1
                shortcut = None if few else names.shortcut
                made.append(_Block(a, inside, b, strides, bottleneck=bottleneck, shortcut=shortcut))
                a = b
            self.add_module(name, nn.Sequential(*made))
            inside *= 2
        self.average = average(shape, None if large or few else names.pool, 8)
        self.logits_name = names.logits
        self.add_module(names.logits, nn.Linear(a, options["num_classes"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = functional.max_pool2d(x, 3, 2, 1) if self.large else x
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.get_submodule(self.logits_name)(self.average(x).flatten(1))


class _VnnBlock(nn.Module):
    """Without batch normalisation."""

    def __init__(self, a: int, b: int, strides: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, strides, 1)
        self.conv2 = nn.Conv2d(b, b, 3, 1, 1)
        self.shortcut = nn.Sequential()
        if strides > 1:
            self.shortcut.append(nn.Conv2d(a, b, 1, strides))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.conv2(self.conv1(x).relu()) + self.shortcut(x)).relu()


class _VnnResNet(nn.Module):
    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        (height, width, channels), a = options["input_shape"], options["width"]
        b = 2 * a
        self.conv1 = nn.Conv2d(channels, a, 3, 2, 1)
        more = [_VnnBlock(b, b, 1) for _ in range(options["blocks"] - 1)]
        self.layer1 = nn.Sequential(_VnnBlock(a, b, 2), *more)
        self.linear1 = nn.Linear(b * (height // 4) * (width // 4), 100)
        self.linear2 = nn.Linear(100, options["num_classes"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer1(self.conv1(x).relu())
        return self.linear2(self.linear1(x.flatten(1)).relu())


def resnet(options: Mapping[str, Any], names: Names) -> nn.Module:
    return _ResNet(names, options)


def vnn_resnet(options: Mapping[str, Any]) -> nn.Module:
    return _VnnResNet(options)
