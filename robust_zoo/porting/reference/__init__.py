"""The networks of the layouts in PyTorch, written on their own, which ported models are compared with.

Their modules have the names of the zoo's layers, "stages.0.1.conv0" being "stage0_block1_conv0"; `load` gives them a
file's tensors as they are, neither transposed nor padded otherwise.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from robust_zoo.porting.reference.efficientnet import efficientnet_lite0
from robust_zoo.porting.reference.inception import inception_v3
from robust_zoo.porting.reference.plain import alexnet, lenet, small_cnn, strided_cnn
from robust_zoo.porting.reference.residual import preact_resnet, resnet, vnn_resnet, wide_resnet

_NETWORKS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    make.__name__: make
    for make in (
        *(wide_resnet, preact_resnet, resnet, vnn_resnet, inception_v3, efficientnet_lite0),
        *(alexnet, small_cnn, lenet, strided_cnn),
    )
}


class Reference:
    """The network of an architecture and its options.

    Args:
        architecture: with a layout.
        options: of the architecture, all of them.

    Raises:
        ValueError: an option that only the zoo's network has.
    """

    def __init__(self, architecture: str, options: Mapping[str, Any]) -> None:
        self.options = options
        self.module = _NETWORKS[architecture](options).eval().to("cpu")

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
