"""Networks that are a row of layers."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from robust_zoo.porting.reference.parts import Function, activation


class _SmallCNN(nn.Module):
    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        height, width, channels = shape
        parts = OrderedDict[str, nn.Module]()
        for number, (a, b) in enumerate(((channels, 32), (32, 32), (32, 64), (64, 64)), start=1):
            parts[f"conv{number}"], parts[f"relu{number}"] = nn.Conv2d(a, b, 3), nn.ReLU()
            if number % 2 == 0:
                parts[f"pool{number}"] = nn.MaxPool2d(2)
        self.feature_extractor = nn.Sequential(parts)
        sides = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(64 * sides[0] * sides[1], 200),
                relu1=nn.ReLU(),
                fc2=nn.Linear(200, 200),
                relu2=nn.ReLU(),
                fc3=nn.Linear(200, classes),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.feature_extractor(x).flatten(1))


class _LeNet(nn.Module):
    def __init__(
        self, shape: tuple[int, ...], classes: int, convolved: Function, dense: Function
    ) -> None:
        super().__init__()
        height, width, channels = shape
        self.conv1, self.conv2 = nn.Conv2d(channels, 20, 5), nn.Conv2d(20, 50, 5)
        sides = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
        self.fc1, self.fc2 = nn.Linear(50 * sides[0] * sides[1], 500), nn.Linear(500, classes)
        self.pool, self.convolved, self.dense = nn.MaxPool2d(2), convolved, dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.convolved(self.conv1(x)))
        x = self.pool(self.convolved(self.conv2(x)))
        return self.fc2(self.dense(self.fc1(x.flatten(1))))


def small_cnn(options: Mapping[str, Any]) -> nn.Module:
    return _SmallCNN(tuple(options["input_shape"]), options["num_classes"])


def lenet(options: Mapping[str, Any]) -> nn.Module:
    linear = options["convolution_activation"] is None
    return _LeNet(
        tuple(options["input_shape"]),
        options["num_classes"],
        nn.Identity() if linear else activation(options, "convolution_activation"),
        activation(options),
    )


def strided_cnn(options: Mapping[str, Any]) -> nn.Module:
    height, width, channels = options["input_shape"]
    parts: list[nn.Module] = []
    for filters in options["filters"]:
        parts += [nn.Conv2d(channels, filters, 4, 2, 1), nn.ReLU()]
        channels, height, width = filters, height // 2, width // 2
    hidden = nn.Linear(channels * height * width, options["dense"])
    last = nn.Linear(options["dense"], options["num_classes"])
    return nn.Sequential(*parts, nn.Flatten(), hidden, nn.ReLU(), last)


class _AlexNet(nn.Module):
    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(shape[2], 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        places = 1
        for side in shape[:2]:
            side = ((side - 7) // 4 + 1 - 3) // 2 + 1
            places *= (((side - 3) // 2 + 1) - 3) // 2 + 1
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(256 * places, 4096), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()),
            nn.Linear(4096, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def alexnet(options: Mapping[str, Any]) -> nn.Module:
    return _AlexNet(tuple(options["input_shape"]), options["num_classes"])
