"""Residual networks of CIFAR-10 and ImageNet."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
}
_BLOCKS = {
    **{18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)},
    **{20: (3,) * 3, 32: (5,) * 3, 44: (7,) * 3, 56: (9,) * 3},
}


def _conv(a: int, b: int, size: int, strides: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, size, strides, size // 2, bias=False)


class _PreBlock(nn.Module):
    """Pre-activation; `shortcut` says what its projection sees, "raw 3x3" with a larger kernel."""

    def __init__(
        self,
        a: int,
        b: int,
        strides: int,
        activation: str,
        at_end: bool,
        shortcut: str,
        projects: bool,
    ) -> None:
        super().__init__()
        self.norm0, self.norm1 = nn.BatchNorm2d(a), nn.BatchNorm2d(b)
        self.conv0, self.conv1 = _conv(a, b, 3, strides), _conv(b, b, 3)
        self.shortcut = None
        if projects:
            self.shortcut = _conv(a, b, 3 if shortcut == "raw 3x3" else 1, strides)
        self.activation, self.kind = _ACTIVATIONS[activation], shortcut
        self.at_end = at_end and strides > 1
        if self.at_end:
            self.conv0.padding = (0, 0)
            if self.shortcut is not None:
                self.shortcut.padding = (0, 0)

    def _padded(self, x: torch.Tensor, kernel: int) -> torch.Tensor:
        return functional.pad(x, (0, 1, 0, 1)) if self.at_end and kernel > 1 else x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.activation(self.norm0(x))
        beside = x
        if self.shortcut is not None:
            seen = before if self.kind == "activated" else x
            beside = self.shortcut(self._padded(seen, self.shortcut.kernel_size[0]))
        after = self.conv0(self._padded(before, 3))
        return self.conv1(self.activation(self.norm1(after))) + beside


class _Pre(nn.Module):
    def __init__(
        self,
        filters: tuple[int, ...],
        blocks: tuple[int, ...],
        stem: int,
        classes: int,
        *,
        activation: str,
        at_end: bool,
        shortcut: str,
        final_norm: bool,
        projects_strides: bool,
    ) -> None:
        super().__init__()
        self.stem, self.activation = _conv(3, stem, 3), _ACTIVATIONS[activation]
        self.stages, a = nn.ModuleList(), stem
        for stage, (b, count) in enumerate(zip(filters, blocks, strict=True)):
            made = nn.ModuleList()
            for block in range(count):
                strides = 2 if stage and not block else 1
                projects = a != b or (projects_strides and strides > 1)
                made.append(_PreBlock(a, b, strides, activation, at_end, shortcut, projects))
                a = b
            self.stages.append(made)
        self.norm = nn.BatchNorm2d(a) if final_norm else None
        self.logits = nn.Linear(a, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
        x = x if self.norm is None else self.activation(self.norm(x))
        return self.logits(x.mean((2, 3)))


class _Block(nn.Module):
    """The activation after the sum; a bottleneck has three convolutions and its strides in the second."""

    def __init__(
        self, a: int, inside: int, b: int, strides: int, bottleneck: bool, *, weightless: bool
    ) -> None:
        super().__init__()
        shapes = [(a, inside, 3, strides), (inside, b, 3, 1)]
        if bottleneck:
            shapes = [(a, inside, 1, 1), (inside, inside, 3, strides), (inside, b, 1, 1)]
        self.count = len(shapes)
        for number, shape in enumerate(shapes):
            self.add_module(f"conv{number}", _conv(*shape))
            self.add_module(f"conv{number}_norm", nn.BatchNorm2d(shape[1]))
        self.strides, self.added = strides, b - a
        self.projects = (strides > 1 or a != b) and not weightless
        if self.projects:
            self.shortcut, self.shortcut_norm = _conv(a, b, 1, strides), nn.BatchNorm2d(b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.projects:
            beside = self.shortcut_norm(self.shortcut(x))
        else:
            half = self.added // 2
            beside = functional.pad(
                x[:, :, :: self.strides, :: self.strides], (0, 0, 0, 0, half, self.added - half)
            )
        for number in range(self.count):
            x = getattr(self, f"conv{number}_norm")(getattr(self, f"conv{number}")(x))
            x = x.relu() if number < self.count - 1 else x
        return (x + beside).relu()


class _ResNet(nn.Module):
    def __init__(self, depth: int, width: int | None, classes: int, *, large: bool) -> None:
        super().__init__()
        weightless = len(_BLOCKS[depth]) == 3
        width = width or (16 if weightless else 64)
        self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False) if large else _conv(3, width, 3)
        self.stem_norm, self.large, a = nn.BatchNorm2d(width), large, width
        self.stages, bottleneck = nn.ModuleList(), depth == 50
        for stage, count in enumerate(_BLOCKS[depth]):
            inside, made = width * 2**stage, nn.ModuleList()
            b = inside * (4 if bottleneck else 1)
            for block in range(count):
                strides = 2 if stage and not block else 1
                made.append(_Block(a, inside, b, strides, bottleneck, weightless=weightless))
                a = b
            self.stages.append(made)
        self.logits = nn.Linear(a, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem_norm(self.stem(x)).relu()
        x = functional.max_pool2d(x, 3, 2, 1) if self.large else x
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
        return self.logits(x.mean((2, 3)))


class _VnnBlock(nn.Module):
    """Without batch normalisation."""

    def __init__(self, a: int, b: int, strides: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(a, b, 3, strides, 1)
        self.conv1 = nn.Conv2d(b, b, 3, 1, 1)
        self.shortcut = nn.Conv2d(a, b, 1, strides) if strides > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beside = x if self.shortcut is None else self.shortcut(x)
        return (self.conv1(self.conv0(x).relu()) + beside).relu()


class _VnnResNet(nn.Module):
    def __init__(self, shape: Sequence[int], classes: int, width: int, blocks: int) -> None:
        super().__init__()
        height, channels_in = shape[0], shape[2]
        self.stem = nn.Conv2d(channels_in, width, 3, 2, 1)
        made = [
            _VnnBlock(width if not i else 2 * width, 2 * width, 1 if i else 2)
            for i in range(blocks)
        ]
        self.stages = nn.ModuleList([nn.ModuleList(made)])
        self.dense = nn.Linear(2 * width * (height // 4) * (shape[1] // 4), 100)
        self.logits = nn.Linear(100, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        for block in self.stages[0]:
            x = block(x)
        return self.logits(self.dense(x.flatten(1)).relu())


def wide_resnet(options: Mapping[str, Any]) -> nn.Module:
    stages = options["stages"] or [16 * options["width"] * 2**stage for stage in range(3)]
    return _Pre(
        tuple(stages),
        ((options["depth"] - 4) // 6,) * 3,
        16,
        options["num_classes"],
        activation=options["activation"],
        at_end=options["border"] == "end",
        shortcut="activated",
        final_norm=True,
        projects_strides=False,
    )


def preact_resnet(options: Mapping[str, Any]) -> nn.Module:
    return _Pre(
        tuple(options["width"] * 2**stage for stage in range(4)),
        _BLOCKS[options["depth"]],
        options["width"],
        options["num_classes"],
        activation=options["activation"],
        at_end=options["border"] == "end",
        shortcut=options["shortcut"],
        final_norm=options["final_norm"],
        projects_strides=True,
    )


def resnet(options: Mapping[str, Any]) -> nn.Module:
    large = options["stem"] == "large"
    return _ResNet(options["depth"], options["width"], options["num_classes"], large=large)


def vnn_resnet(options: Mapping[str, Any]) -> nn.Module:
    return _VnnResNet(
        options["input_shape"], options["num_classes"], options["width"], options["blocks"]
    )
