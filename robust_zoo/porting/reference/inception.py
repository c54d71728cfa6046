"""Inception v3."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from robust_zoo.porting.reference.parts import activation, place

_NOMINAL = 299  # side of an image that the convolutions are made on; any other gives the same ones


class _InceptionV3(nn.Module):
    """Its convolutions are made where `forward` first meets them, on a meta tensor, under torchvision's names."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options, self.made = options, False
        self.activation = activation(options)
        with torch.device("meta"), torch.no_grad():
            images = torch.zeros(1, options["input_shape"][2], _NOMINAL, _NOMINAL)
            self.fc = nn.Linear(self._features(images).shape[1], options["num_classes"])
        self.made = True

    def _conv(
        self,
        x: torch.Tensor,
        name: str,
        filters: int,
        size: tuple[int, int],
        strides: int = 1,
        padding: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        if not self.made:
            filters = max(1, round(self.options["width"] * filters))
            around = (size[0] // 2, size[1] // 2) if padding is None else padding
            norm = nn.BatchNorm2d(filters, eps=1e-3)
            if not self.options["scale"]:
                norm.weight = None
            convolution = nn.Conv2d(x.shape[1], filters, size, strides, around, bias=False)
            place(self, f"{name}.conv", convolution)
            place(self, f"{name}.bn", norm.eval())
        x = self.get_submodule(f"{name}.conv")(x)
        return self.activation(self.get_submodule(f"{name}.bn")(x))

    def _average(self, x: torch.Tensor) -> torch.Tensor:
        counted = self.options["pool_border"] == "counted"
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=counted)

    def _row(self, x: torch.Tensor, block: str, *convolutions: tuple[Any, ...]) -> torch.Tensor:
        for branch, *arguments in convolutions:
            x = self._conv(x, f"{block}.{branch}", *arguments)
        return x

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        none = (0, 0)
        x = self._conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2, none)
        x = self._conv(x, "Conv2d_2a_3x3", 32, (3, 3), 1, none)
        x = functional.max_pool2d(self._conv(x, "Conv2d_2b_3x3", 64, (3, 3)), 3, 2)
        x = self._conv(x, "Conv2d_3b_1x1", 80, (1, 1))
        x = functional.max_pool2d(self._conv(x, "Conv2d_4a_3x3", 192, (3, 3), 1, none), 3, 2)
        for block, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = torch.cat(
                [
                    self._row(x, block, ("branch1x1", 64, (1, 1))),
                    self._row(x, block, ("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
                    self._row(
                        x,
                        block,
                        ("branch3x3dbl_1", 64, (1, 1)),
                        ("branch3x3dbl_2", 96, (3, 3)),
                        ("branch3x3dbl_3", 96, (3, 3)),
                    ),
                    self._row(self._average(x), block, ("branch_pool", pooled, (1, 1))),
                ],
                1,
            )
        x = torch.cat(
            [
                self._row(x, "Mixed_6a", ("branch3x3", 384, (3, 3), 2, none)),
                self._row(
                    x,
                    "Mixed_6a",
                    ("branch3x3dbl_1", 64, (1, 1)),
                    ("branch3x3dbl_2", 96, (3, 3)),
                    ("branch3x3dbl_3", 96, (3, 3), 2, none),
                ),
                functional.max_pool2d(x, 3, 2),
            ],
            1,
        )
        blocks = [("b", 128), ("c", 160), ("d", 160), ("e", 192), ("f", 192), ("g", 192)]
        for letter, c in blocks[: 4 + self.options["extra_blocks"]]:
            block = f"Mixed_6{letter}"
            x = torch.cat(
                [
                    self._row(x, block, ("branch1x1", 192, (1, 1))),
                    self._row(
                        x,
                        block,
                        ("branch7x7_1", c, (1, 1)),
                        ("branch7x7_2", c, (1, 7)),
                        ("branch7x7_3", 192, (7, 1)),
                    ),
                    self._row(
                        x,
                        block,
                        ("branch7x7dbl_1", c, (1, 1)),
                        ("branch7x7dbl_2", c, (7, 1)),
                        ("branch7x7dbl_3", c, (1, 7)),
                        ("branch7x7dbl_4", c, (7, 1)),
                        ("branch7x7dbl_5", 192, (1, 7)),
                    ),
                    self._row(self._average(x), block, ("branch_pool", 192, (1, 1))),
                ],
                1,
            )
        x = torch.cat(
            [
                self._row(
                    x,
                    "Mixed_7a",
                    ("branch3x3_1", 192, (1, 1)),
                    ("branch3x3_2", 320, (3, 3), 2, none),
                ),
                self._row(
                    x,
                    "Mixed_7a",
                    ("branch7x7x3_1", 192, (1, 1)),
                    ("branch7x7x3_2", 192, (1, 7)),
                    ("branch7x7x3_3", 192, (7, 1)),
                    ("branch7x7x3_4", 192, (3, 3), 2, none),
                ),
                functional.max_pool2d(x, 3, 2),
            ],
            1,
        )
        for block in ("Mixed_7b", "Mixed_7c"):
            middle = self._row(x, block, ("branch3x3_1", 384, (1, 1)))
            double = self._row(
                x, block, ("branch3x3dbl_1", 448, (1, 1)), ("branch3x3dbl_2", 384, (3, 3))
            )
            x = torch.cat(
                [
                    self._row(x, block, ("branch1x1", 320, (1, 1))),
                    self._row(middle, block, ("branch3x3_2a", 384, (1, 3))),
                    self._row(middle, block, ("branch3x3_2b", 384, (3, 1))),
                    self._row(double, block, ("branch3x3dbl_3a", 384, (1, 3))),
                    self._row(double, block, ("branch3x3dbl_3b", 384, (3, 1))),
                    self._row(self._average(x), block, ("branch_pool", 192, (1, 1))),
                ],
                1,
            )
        return x.mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self._features(x))


def inception_v3(options: Mapping[str, Any]) -> nn.Module:
    return _InceptionV3(options)
