"""EfficientNet-Lite."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# The stages in the notation of the original code: repeats, kernel, strides, expansion, inputs, outputs.
_STAGES = (
    "r1_k3_s1_e1_i32_o16",
    "r2_k3_s2_e6_i16_o24",
    "r2_k5_s2_e6_i24_o40",
    "r3_k3_s2_e6_i40_o80",
    "r3_k5_s1_e6_i80_o112",
    "r4_k5_s2_e6_i112_o192",
    "r1_k3_s1_e6_i192_o320",
)


class _SameConv(nn.Conv2d):
    """Padded as TensorFlow pads: the outputs are a `stride`-th of the inputs, and odd zeros lie at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = []
        for side, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            missing = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            around += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(x, around))


class _Block(nn.Module):
    """A wider convolution of each channel alone; `expansion` says how much wider."""

    def __init__(self, a: int, b: int, kernel: int, strides: int, expansion: int) -> None:
        super().__init__()
        wide = a * expansion
        self.expands, self.adds = expansion != 1, strides == 1 and a == b
        if self.expands:
            self._expand_conv, self._bn0 = _SameConv(a, wide, 1, bias=False), _norm(wide)
        self._depthwise_conv = _SameConv(wide, wide, kernel, strides, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = _SameConv(wide, b, 1, bias=False), _norm(b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = x
        if self.expands:
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + before if self.adds else x


class _EfficientNetLite(nn.Module):
    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        width, depth = options["width"], options["depth"]
        stem = _SameConv(options["input_shape"][2], 32, 3, 2, bias=False)
        self._conv_stem, self._bn0 = stem, _norm(32)
        self._blocks = nn.ModuleList()
        for stage, text in enumerate(_STAGES):
            repeats, kernel, strides, expansion, a, b = (int(part[1:]) for part in text.split("_"))
            inner = stage not in (0, len(_STAGES) - 1)
            a = _filters(a, width) if stage else a
            b = _filters(b, width)
            for _ in range(math.ceil(repeats * depth) if inner else repeats):
                self._blocks.append(_Block(a, b, kernel, strides, expansion))
                a, strides = b, 1
        self._conv_head, self._bn1 = _SameConv(a, 1280, 1, bias=False), _norm(1280)
        self._fc = nn.Linear(1280, options["num_classes"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


def _norm(filters: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(filters, eps=1e-3)


def _filters(filters: int, width: float) -> int:
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def efficientnet_lite0(options: Mapping[str, Any]) -> nn.Module:
    return _EfficientNetLite(options)
