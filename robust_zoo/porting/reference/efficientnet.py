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


class _EfficientNetLite(nn.Module):
    def __init__(self, channels: int, classes: int, width: float, depth: float) -> None:
        super().__init__()
        self._add("stem", channels, 32, 3, 2)
        self.blocks: list[
            tuple[bool, bool]
        ] = []  # whether a block expands, and is added to its input
        for stage, text in enumerate(_STAGES):
            repeats, kernel, strides, expansion, a, b = (int(part[1:]) for part in text.split("_"))
            inner = stage not in (0, len(_STAGES) - 1)
            a = self._filters(a, width) if stage else a
            b = self._filters(b, width)
            for _ in range(math.ceil(repeats * depth) if inner else repeats):
                name, wide = f"block{len(self.blocks)}", a * expansion
                if expansion != 1:
                    self._add(f"{name}_expand", a, wide, 1, 1)
                self._add(f"{name}_depthwise", wide, wide, kernel, strides, groups=wide)
                self._add(f"{name}_project", wide, b, 1, 1)
                self.blocks.append((expansion != 1, strides == 1 and a == b))
                a, strides = b, 1
        self._add("head", a, 1280, 1, 1)
        self.logits = nn.Linear(1280, classes)

    @staticmethod
    def _filters(filters: int, width: float) -> int:
        scaled = filters * width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * scaled else rounded + 8

    def _add(self, name: str, a: int, b: int, kernel: int, strides: int, groups: int = 1) -> None:
        self.add_module(name, _SameConv(a, b, kernel, strides, groups=groups, bias=False))
        self.add_module(f"{name}_norm", nn.BatchNorm2d(b, eps=1e-3))

    def _conv(self, name: str, x: torch.Tensor, *, rectified: bool = True) -> torch.Tensor:
        x = getattr(self, f"{name}_norm")(getattr(self, name)(x))
        return functional.relu6(x) if rectified else x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._conv("stem", x)
        for number, (expands, adds) in enumerate(self.blocks):
            name, before = f"block{number}", x
            x = self._conv(f"{name}_expand", x) if expands else x
            x = self._conv(f"{name}_depthwise", x)
            x = self._conv(f"{name}_project", x, rectified=False)
            x = x + before if adds else x
        return self.logits(self._conv("head", x).mean((2, 3)))


def efficientnet_lite0(options: Mapping[str, Any]) -> nn.Module:
    return _EfficientNetLite(
        options["input_shape"][2], options["num_classes"], options["width"], options["depth"]
    )
