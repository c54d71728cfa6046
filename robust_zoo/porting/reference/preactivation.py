"""Wide and pre-activation ResNets of CIFAR-10."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from robust_zoo.porting.reference.parts import activation, average, place


@dataclass(frozen=True)
class Names:
    """What the authors call the parts, and how they pool.

    Attributes:
        stem: the first convolution.
        block: of the number of a stage and that of a block in it.
        first: number of the first stage.
        norms: a block's, in the order in which images pass them.
        convolutions: a block's, in that order.
        shortcut: the convolution beside them.
        norm: behind the blocks.
        logits: the dense layer.
        pool: side of the window of the average before it; None for all pixels.
    """

    stem: str
    block: str
    first: int
    norms: tuple[str, str]
    convolutions: tuple[str, str]
    shortcut: str
    norm: str
    logits: str
    pool: int | None


WIDE_TRADES = Names(
    "conv1", "block{}.layer.{}", 1, ("bn1", "bn2"), ("conv1", "conv2"), "convShortcut", "bn1", "fc", 8
)  # fmt: skip
WIDE_HUANG = Names(
    "stem_conv", "blocks.{}.layer.{}", 0, ("bn1", "bn2"), ("conv1", "conv2"), "convShortcut", "bn1", "fc", None
)  # fmt: skip
WIDE_DEEPMIND = Names(
    "init_conv", "layer.{}.block.{}", 0, ("batchnorm_0", "batchnorm_1"), ("conv_0", "conv_1"), "shortcut", "batchnorm",
    "logits", 8,
)  # fmt: skip
PREACT_RICE = Names(
    "conv1", "layer{}.{}", 1, ("bn1", "bn2"), ("conv1", "conv2"), "shortcut.0", "bn", "linear", 4
)  # fmt: skip
PREACT_DEEPMIND = Names(
    "conv_2d", "layer_{}.{}", 0, ("batchnorm_0", "batchnorm_1"), ("conv_2d_1", "conv_2d_2"), "shortcut", "batchnorm",
    "logits", 4,
)  # fmt: skip
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class _Convolution(nn.Conv2d):
    """Without bias; where it has strides, a `border` of "end" is zeros below and to the right only."""

    def __init__(self, a: int, b: int, size: int, strides: int = 1, border: str = "all") -> None:
        end = size // 2 if strides > 1 and border == "end" else 0
        super().__init__(a, b, size, strides, 0 if end else size // 2, bias=False)
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(x, (0, self.end, 0, self.end)))


class _Block(nn.Module):
    """Its shortcut's convolution sees the activated input, or the raw one ("raw", "raw 3x3")."""

    def __init__(
        self, names: Names, a: int, b: int, strides: int, options: Mapping[str, Any], shortcut: str
    ) -> None:
        super().__init__()
        self.names, self.shortcut_kind = names, shortcut
        self.activation, border = activation(options), options["border"]
        self.add_module(names.norms[0], nn.BatchNorm2d(a))
        self.add_module(names.convolutions[0], _Convolution(a, b, 3, strides, border))
        self.add_module(names.norms[1], nn.BatchNorm2d(b))
        self.add_module(names.convolutions[1], _Convolution(b, b, 3))
        self.projects = a != b
        if self.projects:
            size = 3 if shortcut == "raw 3x3" else 1
            place(self, names.shortcut, _Convolution(a, b, size, strides, border))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = (self.get_submodule(name) for name in self.names.norms)
        narrow, last = (self.get_submodule(name) for name in self.names.convolutions)
        before = self.activation(first(x))
        beside = x
        if self.projects:
            shortcut = self.get_submodule(self.names.shortcut)
            beside = shortcut(before if self.shortcut_kind == "activated" else x)
        return last(self.activation(second(narrow(before)))) + beside


class _PreActivation(nn.Module):
    def __init__(
        self,
        names: Names,
        options: Mapping[str, Any],
        stem: int,
        stages: Sequence[tuple[int, int]],
        *,
        shortcut: str,
        final_norm: bool,
    ) -> None:
        """`stages` are filters and blocks."""
        super().__init__()
        self.names, self.final_norm, self.block_paths = names, final_norm, list[str]()
        self.activation = activation(options)
        shape = options["input_shape"]
        self.add_module(names.stem, _Convolution(shape[2], stem, 3))
        a = stem
        for stage, (filters, count) in enumerate(stages):
            for block in range(count):
                self.block_paths.append(names.block.format(names.first + stage, block))
                strides = 2 if stage and not block else 1
                made = _Block(names, a, filters, strides, options, shortcut)
                place(self, self.block_paths[-1], made)
                a = filters
        if final_norm:
            self.add_module(names.norm, nn.BatchNorm2d(a))
        self.average = average(shape, names.pool, 2 ** (len(stages) - 1))
        self.add_module(names.logits, nn.Linear(a, options["num_classes"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in (self.names.stem, *self.block_paths):
            x = self.get_submodule(name)(x)
        if self.final_norm:
            x = self.activation(self.get_submodule(self.names.norm)(x))
        return self.get_submodule(self.names.logits)(self.average(x).flatten(1))


def wide_resnet(options: Mapping[str, Any], names: Names) -> nn.Module:
    filters = options["stages"] or [16 * options["width"] * 2**stage for stage in range(3)]
    stages = [(number, (options["depth"] - 4) // 6) for number in filters]
    return _PreActivation(names, options, 16, stages, shortcut="activated", final_norm=True)


def preact_resnet(options: Mapping[str, Any], names: Names) -> nn.Module:
    width = options["width"]
    stages = [(width * 2**stage, count) for stage, count in enumerate(_BLOCKS[options["depth"]])]
    return _PreActivation(
        names,
        options,
        width,
        stages,
        shortcut=options["shortcut"],
        final_norm=options["final_norm"],
    )
