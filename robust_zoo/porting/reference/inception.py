"""Inception v3."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_ACTIVATIONS = {
    "relu": torch.relu,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "elu": functional.elu,
}


class _InceptionV3(nn.Module):
    """Its convolutions are made where `forward` first meets them, on a meta tensor, under the zoo's names."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options, self.made = options, False
        height, width, channels = options["input_shape"]
        with torch.device("meta"), torch.no_grad():
            pooled = self._features(torch.zeros(1, channels, height, width))
        self.to_empty(device="cpu")
        self.logits = nn.Linear(pooled.shape[1], options["num_classes"])
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
            self.add_module(name, nn.Conv2d(x.shape[1], filters, size, strides, around, bias=False))
            norm = nn.BatchNorm2d(filters, eps=1e-3)
            if not self.options["scale"]:
                norm.weight = None
            self.add_module(f"{name}_norm", norm.eval())
        x = getattr(self, f"{name}_norm")(getattr(self, name)(x))
        return _ACTIVATIONS[self.options["activation"]](x)

    def _average(self, x: torch.Tensor) -> torch.Tensor:
        counted = self.options["pool_border"] == "counted"
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=counted)

    def _row(self, x: torch.Tensor, block: str, *convolutions: tuple[Any, ...]) -> torch.Tensor:
        for branch, *arguments in convolutions:
            x = self._conv(x, f"{block}_{branch}", *arguments)
        return x

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        none = (0, 0)
        x = self._conv(x, "conv_1a", 32, (3, 3), 2, none)
        x = self._conv(x, "conv_2a", 32, (3, 3), 1, none)
        x = functional.max_pool2d(self._conv(x, "conv_2b", 64, (3, 3)), 3, 2)
        x = self._conv(x, "conv_3b", 80, (1, 1))
        x = functional.max_pool2d(self._conv(x, "conv_4a", 192, (3, 3), 1, none), 3, 2)
        for block, pooled in (("mixed_5b", 32), ("mixed_5c", 64), ("mixed_5d", 64)):
            x = torch.cat(
                [
                    self._row(x, block, ("1x1", 64, (1, 1))),
                    self._row(x, block, ("5x5_1", 48, (1, 1)), ("5x5_2", 64, (5, 5))),
                    self._row(
                        x,
                        block,
                        ("3x3dbl_1", 64, (1, 1)),
                        ("3x3dbl_2", 96, (3, 3)),
                        ("3x3dbl_3", 96, (3, 3)),
                    ),
                    self._row(self._average(x), block, ("pool", pooled, (1, 1))),
                ],
                1,
            )
        x = torch.cat(
            [
                self._row(x, "mixed_6a", ("3x3", 384, (3, 3), 2, none)),
                self._row(
                    x,
                    "mixed_6a",
                    ("3x3dbl_1", 64, (1, 1)),
                    ("3x3dbl_2", 96, (3, 3)),
                    ("3x3dbl_3", 96, (3, 3), 2, none),
                ),
                functional.max_pool2d(x, 3, 2),
            ],
            1,
        )
        blocks = [("b", 128), ("c", 160), ("d", 160), ("e", 192), ("f", 192), ("g", 192)]
        for letter, c in blocks[: 4 + self.options["extra_blocks"]]:
            block = f"mixed_6{letter}"
            x = torch.cat(
                [
                    self._row(x, block, ("1x1", 192, (1, 1))),
                    self._row(
                        x,
                        block,
                        ("7x7_1", c, (1, 1)),
                        ("7x7_2", c, (1, 7)),
                        ("7x7_3", 192, (7, 1)),
                    ),
                    self._row(
                        x,
                        block,
                        ("7x7dbl_1", c, (1, 1)),
                        ("7x7dbl_2", c, (7, 1)),
                        ("7x7dbl_3", c, (1, 7)),
                        ("7x7dbl_4", c, (7, 1)),
                        ("7x7dbl_5", 192, (1, 7)),
                    ),
                    self._row(self._average(x), block, ("pool", 192, (1, 1))),
                ],
                1,
            )
        x = torch.cat(
            [
                self._row(x, "mixed_7a", ("3x3_1", 192, (1, 1)), ("3x3_2", 320, (3, 3), 2, none)),
                self._row(
                    x,
                    "mixed_7a",
                    ("7x7x3_1", 192, (1, 1)),
                    ("7x7x3_2", 192, (1, 7)),
                    ("7x7x3_3", 192, (7, 1)),
                    ("7x7x3_4", 192, (3, 3), 2, none),
                ),
                functional.max_pool2d(x, 3, 2),
            ],
            1,
        )
        for block in ("mixed_7b", "mixed_7c"):
            middle = self._row(x, block, ("3x3_1", 384, (1, 1)))
            double = self._row(x, block, ("3x3dbl_1", 448, (1, 1)), ("3x3dbl_2", 384, (3, 3)))
            x = torch.cat(
                [
                    self._row(x, block, ("1x1", 320, (1, 1))),
                    self._row(middle, block, ("3x3_2a", 384, (1, 3))),
                    self._row(middle, block, ("3x3_2b", 384, (3, 1))),
                    self._row(double, block, ("3x3dbl_3a", 384, (1, 3))),
                    self._row(double, block, ("3x3dbl_3b", 384, (3, 1))),
                    self._row(self._average(x), block, ("pool", 192, (1, 1))),
                ],
                1,
            )
        return x.mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(self._features(x))


def inception_v3(options: Mapping[str, Any]) -> nn.Module:
    if options["activation"] not in _ACTIVATIONS:
        raise ValueError(
            f"activation of a ported inception_v3 must be one of {tuple(_ACTIVATIONS)}, got {options['activation']!r}."
        )
    return _InceptionV3(options)
