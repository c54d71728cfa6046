"""Networks that are a row of layers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class _SmallCNN(nn.Module):
    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        height, width, channels = shape
        for number, (a, b) in enumerate(((channels, 32), (32, 32), (32, 64), (64, 64)), start=1):
            self.add_module(f"conv{number}", nn.Conv2d(a, b, 3))
        sides = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
        self.fc1, self.fc2 = nn.Linear(64 * sides[0] * sides[1], 200), nn.Linear(200, 200)
        self.logits = nn.Linear(200, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in range(1, 5):
            x = getattr(self, f"conv{number}")(x).relu()
            x = functional.max_pool2d(x, 2) if number % 2 == 0 else x
        return self.logits(self.fc2(self.fc1(x.flatten(1)).relu()).relu())


class _LeNet(nn.Module):
    def __init__(self, shape: tuple[int, ...], classes: int, *, rectified: bool) -> None:
        super().__init__()
        height, width, channels = shape
        self.conv0, self.conv1 = nn.Conv2d(channels, 20, 5), nn.Conv2d(20, 50, 5)
        sides = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
        self.dense = nn.Linear(50 * sides[0] * sides[1], 500)
        self.logits, self.rectified = nn.Linear(500, classes), rectified

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.conv0, self.conv1):
            x = layer(x).relu() if self.rectified else layer(x)
            x = functional.max_pool2d(x, 2)
        return self.logits(self.dense(x.flatten(1)).relu())


class _StridedCNN(nn.Module):
    def __init__(
        self, shape: tuple[int, ...], classes: int, filters: tuple[int, ...], dense: int
    ) -> None:
        super().__init__()
        height, width, channels = shape
        self.count = len(filters)
        for number, count in enumerate(filters):
            self.add_module(f"conv{number}", nn.Conv2d(channels, count, 4, 2, 1))
            channels, height, width = count, height // 2, width // 2
        self.dense, self.logits = (
            nn.Linear(channels * height * width, dense),
            nn.Linear(dense, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in range(self.count):
            x = getattr(self, f"conv{number}")(x).relu()
        return self.logits(self.dense(x.flatten(1)).relu())


class _AlexNet(nn.Module):
    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(shape[2], 64, 11, 4, 2)
        self.conv1 = nn.Conv2d(64, 192, 5, 1, 2)
        self.conv2 = nn.Conv2d(192, 384, 3, 1, 1)
        self.conv3 = nn.Conv2d(384, 256, 3, 1, 1)
        self.conv4 = nn.Conv2d(256, 256, 3, 1, 1)
        places = 1
        for side in shape[:2]:
            side = ((side - 7) // 4 + 1 - 3) // 2 + 1
            places *= (((side - 3) // 2 + 1) - 3) // 2 + 1
        self.dense0, self.dense1 = nn.Linear(256 * places, 4096), nn.Linear(4096, 4096)
        self.logits = nn.Linear(4096, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in range(5):
            x = getattr(self, f"conv{number}")(x).relu()
            if number in (0, 1, 4):
                x = functional.max_pool2d(x, 3, 2)
        return self.logits(self.dense1(self.dense0(x.flatten(1)).relu()).relu())


def small_cnn(options: Mapping[str, Any]) -> nn.Module:
    return _SmallCNN(tuple(options["input_shape"]), options["num_classes"])


def lenet(options: Mapping[str, Any]) -> nn.Module:
    for name, allowed in (("activation", ("relu",)), ("convolution_activation", (None, "relu"))):
        if options[name] not in allowed:
            raise ValueError(
                f"{name} of a ported lenet must be one of {allowed}, got {options[name]!r}."
            )
    return _LeNet(
        tuple(options["input_shape"]),
        options["num_classes"],
        rectified=options["convolution_activation"] == "relu",
    )


def strided_cnn(options: Mapping[str, Any]) -> nn.Module:
    return _StridedCNN(
        tuple(options["input_shape"]),
        options["num_classes"],
        tuple(options["filters"]),
        options["dense"],
    )


def alexnet(options: Mapping[str, Any]) -> nn.Module:
    return _AlexNet(tuple(options["input_shape"]), options["num_classes"])
