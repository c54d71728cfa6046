"""The networks of the layouts in PyTorch, written on their own, which ported models are compared with.

Their modules have the names of the zoo's layers, "stages.0.1.conv0" being "stage0_block1_conv0"; `load` gives them a
file's tensors as they are, neither transposed nor padded otherwise.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
}
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


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

    def __init__(self, a: int, inside: int, b: int, strides: int, bottleneck: bool) -> None:
        super().__init__()
        shapes = [(a, inside, 3, strides), (inside, b, 3, 1)]
        if bottleneck:
            shapes = [(a, inside, 1, 1), (inside, inside, 3, strides), (inside, b, 1, 1)]
        self.count = len(shapes)
        for number, shape in enumerate(shapes):
            self.add_module(f"conv{number}", _conv(*shape))
            self.add_module(f"conv{number}_norm", nn.BatchNorm2d(shape[1]))
        self.projects = strides > 1 or a != b
        if self.projects:
            self.shortcut, self.shortcut_norm = _conv(a, b, 1, strides), nn.BatchNorm2d(b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beside = self.shortcut_norm(self.shortcut(x)) if self.projects else x
        for number in range(self.count):
            x = getattr(self, f"conv{number}_norm")(getattr(self, f"conv{number}")(x))
            x = x.relu() if number < self.count - 1 else x
        return (x + beside).relu()


class _ResNet(nn.Module):
    def __init__(self, depth: int, width: int, classes: int, *, large: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False) if large else _conv(3, width, 3)
        self.stem_norm, self.large, a = nn.BatchNorm2d(width), large, width
        self.stages, bottleneck = nn.ModuleList(), depth >= 50
        for stage, count in enumerate(_BLOCKS[depth]):
            inside, made = width * 2**stage, nn.ModuleList()
            b = inside * (4 if bottleneck else 1)
            for block in range(count):
                made.append(_Block(a, inside, b, 2 if stage and not block else 1, bottleneck))
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


class Reference:
    """The network of an architecture and its options.

    Args:
        architecture: with a layout.
        options: of the architecture, all of them.
    """

    def __init__(self, architecture: str, options: Mapping[str, Any]) -> None:
        self.options = options
        make = {
            "wide_resnet": self._wide,
            "preact_resnet": self._preact,
            "resnet": self._resnet,
            "small_cnn": self._small_cnn,
        }
        self.module = make[architecture]().eval().to("cpu")

    def _wide(self) -> nn.Module:
        options = self.options
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

    def _preact(self) -> nn.Module:
        options = self.options
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

    def _resnet(self) -> nn.Module:
        options = self.options
        large = options["stem"] == "large"
        return _ResNet(options["depth"], options["width"], options["num_classes"], large=large)

    def _small_cnn(self) -> nn.Module:
        return _SmallCNN(tuple(self.options["input_shape"]), self.options["num_classes"])

    def load(self, tensors: Mapping[str, np.ndarray], names: Mapping[str, tuple[str, ...]]) -> None:
        """Takes a file's tensors; `names` are those of each layer, see `expected_names`."""
        state = self.module.state_dict()
        given = {}
        for layer, found in names.items():
            stage, block, part = (
                layer.split("_", 2) if layer.startswith("stage") else (layer, "", "")
            )
            module = f"stages.{stage[5:]}.{block[5:]}.{part}" if part else layer
            for name in found:
                given[f"{module}.{name.rpartition('.')[2]}"] = torch.from_numpy(
                    tensors[name].copy()
                )
        counters = {name: value for name, value in state.items() if name.endswith("tracked")}
        self.module.load_state_dict({**given, **counters})

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Of images (n, height, width, channels) in [0, 1]."""
        mean, deviation = self.options.get("mean"), self.options.get("deviation")
        if mean is not None:
            images = (images - np.asarray(mean, "float32")) / np.asarray(deviation, "float32")
        with torch.no_grad():
            tensor = torch.from_numpy(images.astype("float32")).permute(0, 3, 1, 2)
            return self.module(tensor).numpy()
