"""The networks of the layouts in PyTorch, written on their own, which ported models are compared with.

Their modules have the names of their authors' files, whatever `robust_zoo.porting.layouts` says of them: a file's
tensors are loaded as they are, so that a layout that takes one for another is found out by other logits.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from robust_zoo.porting.reference import preactivation, residual
from robust_zoo.porting.reference.efficientnet import efficientnet_lite0
from robust_zoo.porting.reference.inception import inception_v3
from robust_zoo.porting.reference.plain import alexnet, lenet, small_cnn, strided_cnn
from robust_zoo.porting.reference.preactivation import preact_resnet, wide_resnet
from robust_zoo.porting.reference.residual import resnet, vnn_resnet

_NETWORKS: dict[tuple[str, str], Callable[[Mapping[str, Any]], nn.Module]] = {
    ("wide_resnet", "TRADES"): partial(wide_resnet, names=preactivation.WIDE_TRADES),
    ("wide_resnet", "DeepMind"): partial(wide_resnet, names=preactivation.WIDE_DEEPMIND),
    ("wide_resnet", "Huang"): partial(wide_resnet, names=preactivation.WIDE_HUANG),
    ("preact_resnet", "Rice"): partial(preact_resnet, names=preactivation.PREACT_RICE),
    ("preact_resnet", "DeepMind"): partial(preact_resnet, names=preactivation.PREACT_DEEPMIND),
    ("resnet", "CIFAR-10"): partial(resnet, names=residual.CIFAR),
    ("resnet", "torchvision"): partial(resnet, names=residual.TORCHVISION),
    ("vnn_resnet", "VNN-COMP"): vnn_resnet,
    ("inception_v3", "torchvision"): inception_v3,
    ("efficientnet_lite0", "EfficientNet-PyTorch"): efficientnet_lite0,
    ("alexnet", "torchvision"): alexnet,
    ("small_cnn", "TRADES"): small_cnn,
    ("lenet", "DeepRobust"): lenet,
    ("strided_cnn", "convex_adversarial"): strided_cnn,
}


class Reference:
    """The network of an architecture and its options, without weights until `load`.

    Args:
        architecture: with a layout.
        options: of the architecture, all of them.
        layout: whose names the network has, the `name` of a `Layout`.

    Raises:
        ValueError: an option that only the zoo's network has, or images of a size that the original does not take.
    """

    def __init__(self, architecture: str, options: Mapping[str, Any], layout: str) -> None:
        self.options = options
        with torch.device("meta"):
            self.module = _NETWORKS[architecture, layout](options).eval()

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Takes a file's tensors, exactly those that the network has, by the file's names.

        Raises:
            RuntimeError: other names or shapes than the network's.
        """
        counters = [name for name in self.module.state_dict() if name.endswith("tracked")]
        given = {name: torch.tensor(value) for name, value in tensors.items()}
        given |= {name: torch.tensor(0) for name in counters}
        self.module.load_state_dict(given, strict=True, assign=True)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Of images (n, height, width, channels) in [0, 1]."""
        mean, deviation = self.options.get("mean"), self.options.get("deviation")
        if mean is not None:
            images = (images - np.asarray(mean, "float32")) / np.asarray(deviation, "float32")
        with torch.no_grad():
            tensor = torch.from_numpy(images.astype("float32")).permute(0, 3, 1, 2)
            return self.module(tensor).numpy()
