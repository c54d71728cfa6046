"""What the networks have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Function = Callable[[torch.Tensor], torch.Tensor]

_ACTIVATIONS: dict[str, Function] = {
    "relu": torch.relu,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "elu": functional.elu,
}


def activation(options: Mapping[str, Any], option: str = "activation") -> Function:
    """The activation that an option names.

    Raises:
        ValueError: one that only the zoo's network has.
    """
    if options[option] not in _ACTIVATIONS:
        raise ValueError(
            f"{option} of a ported network must be one of {tuple(_ACTIVATIONS)}, got {options[option]!r}."
        )
    return _ACTIVATIONS[options[option]]


def average(shape: Sequence[int | None], kernel: int | None, strides: int) -> nn.Module:
    """The pooling at the end.

    Args:
        shape: of the images (height, width, channels).
        kernel: side of a window that is as large as what it sees, of images of one size; None for all there is, of
            images of any size.
        strides: of all layers before it.

    Raises:
        ValueError: images of another size.
    """
    if kernel is None:
        return nn.AdaptiveAvgPool2d(1)
    side = kernel * strides
    if tuple(shape[:2]) != (side, side):
        raise ValueError(
            f"input_shape must be ({side}, {side}, {shape[2]}), since the network averages {kernel} x {kernel} pixels at "
            f"its end, got {tuple(shape)}."
        )
    return nn.AvgPool2d(kernel)


def place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Adds a module at a path such as "layer.0.conv1", and what it is in where that is missing."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in dict(root.named_children()):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, module)
