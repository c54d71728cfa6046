"""What PyTorch's files call the layers of the zoo's architectures."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BLOCK = re.compile(r"(?:stage(\d+)_)?block(\d+)_(.+)")


@dataclass(frozen=True)
class Layout:
    """The names of one family of files.

    Attributes:
        name: of whoever wrote them.
        parts: the module of each layer, by the layer's name; in a block by what comes behind its number.
        block: the module of a block, with {stage} and {block} from 0, {stage1} from 1; "" where there are none. Blocks
            without stages are numbered through.
        dropped: patterns of tensors that the network does not use.
        implied: options of the architecture that whoever writes these names always has.
    """

    name: str
    parts: Mapping[str, str]
    block: str = ""
    dropped: tuple[str, ...] = field(default=())
    implied: Mapping[str, Any] = field(default_factory=dict)

    def module(self, layer: str) -> str | None:
        """Of a layer, as a path; None if files of this layout do not have it."""
        found = _BLOCK.fullmatch(layer)
        if found is None:
            return self.parts.get(layer)
        stage, block = int(found[1] or 0), int(found[2])
        part = self.parts.get(found[3])
        if part is None or not self.block:
            return None
        return f"{self.block.format(stage=stage, stage1=stage + 1, block=block)}.{part}"

    def drops(self, tensor: str) -> bool:
        return any(re.fullmatch(pattern, tensor) for pattern in self.dropped)

    def knows(self, tensor: str) -> bool:
        """Whether a network of this layout, of whatever depth, may have a tensor of that name."""
        module, _, _ = tensor.rpartition(".")
        if not self.block:
            return module in self.parts.values()
        number = re.escape(re.sub(r"\{\w+\}", "#", self.block)).replace(r"\#", r"\d+")
        inner = re.fullmatch(rf"(?:{number}\.)?(.+)", module)
        return inner is not None and inner[1] in self.parts.values()


# Of images, which the architecture's mean and deviation say; whatever wrapper they are in, see `read_file`.
_NORMALISATION = ("mean", "std")
# Its convolutions with strides pad as TensorFlow's do.
_DEEPMIND = {"border": "end"}
_TRADES = {
    "stem": "conv1", "norm0": "bn1", "conv0": "conv1", "norm1": "bn2", "conv1": "conv2", "shortcut": "convShortcut",
    "norm": "bn1", "logits": "fc",
}  # fmt: skip
_RESNET = {
    "stem": "conv1", "stem_norm": "bn1", "conv0": "conv1", "conv0_norm": "bn1", "conv1": "conv2", "conv1_norm": "bn2",
    "conv2": "conv3", "conv2_norm": "bn3", "shortcut": "shortcut.0", "shortcut_norm": "shortcut.1", "logits": "linear",
}  # fmt: skip

# Of torchvision's Inception v3: the branches of a block, by its kind.
_BLOCK_35 = ("1x1", "5x5_1", "5x5_2", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3", "_pool")
_BLOCK_17 = (
    "1x1",
    *(f"7x7_{i}" for i in (1, 2, 3)),
    *(f"7x7dbl_{i}" for i in range(1, 6)),
    "_pool",
)
_BLOCK_8 = (
    "1x1", "3x3_1", "3x3_2a", "3x3_2b", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3a", "3x3dbl_3b", "_pool",
)  # fmt: skip
_INCEPTION = {
    **dict.fromkeys(("5b", "5c", "5d"), _BLOCK_35),
    "6a": ("3x3", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3"),
    **dict.fromkeys(("6b", "6c", "6d", "6e"), _BLOCK_17),
    "7a": ("3x3_1", "3x3_2", *(f"7x7x3_{i}" for i in range(1, 5))),
    **dict.fromkeys(("7b", "7c"), _BLOCK_8),
}


def _inception() -> dict[str, str]:
    convolutions = {
        f"conv_{place}": f"Conv2d_{place}_{size}x{size}"
        for place, size in (("1a", 3), ("2a", 3), ("2b", 3), ("3b", 1), ("4a", 3))
    } | {
        f"mixed_{block}_{branch.lstrip('_')}": f"Mixed_{block}.branch{branch}"
        for block, branches in _INCEPTION.items()
        for branch in branches
    }
    parts: dict[str, str] = {}
    for layer, module in convolutions.items():
        parts |= {layer: f"{module}.conv", f"{layer}_norm": f"{module}.bn"}
    return {**parts, "logits": "fc"}


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "wide_resnet": (
        # The class of TRADES makes its first stage twice, and never calls the second.
        Layout("TRADES", _TRADES, "block{stage1}.layer.{block}", (r"sub_block1\..*", *_NORMALISATION)),
        Layout(
            "DeepMind",
            {
                "stem": "init_conv", "norm0": "batchnorm_0", "conv0": "conv_0", "norm1": "batchnorm_1",
                "conv1": "conv_1", "shortcut": "shortcut", "norm": "batchnorm", "logits": "logits",
            },
            "layer.{stage}.block.{block}",
            _NORMALISATION,
            _DEEPMIND,
        ),
        Layout("Huang", {**_TRADES, "stem": "stem_conv"}, "blocks.{stage}.layer.{block}"),
    ),
    "preact_resnet": (
        Layout(
            "Rice",
            {
                "stem": "conv1", "norm0": "bn1", "conv0": "conv1", "norm1": "bn2", "conv1": "conv2",
                "shortcut": "shortcut.0", "norm": "bn", "logits": "linear",
            },
            "layer{stage1}.{block}",
            (*_NORMALISATION, r"model_preact_hl1.*"),  # other names of early layers
        ),
        Layout(
            "DeepMind",
            {
                "stem": "conv_2d", "norm0": "batchnorm_0", "conv0": "conv_2d_1", "norm1": "batchnorm_1",
                "conv1": "conv_2d_2", "shortcut": "shortcut", "norm": "batchnorm", "logits": "logits",
            },
            "layer_{stage}.{block}",
            _NORMALISATION,
            _DEEPMIND,
        ),
    ),
    "resnet": (
        Layout("CIFAR-10", _RESNET, "layer{stage1}.{block}", _NORMALISATION),
        Layout(
            "torchvision",
            {**_RESNET, "shortcut": "downsample.0", "shortcut_norm": "downsample.1", "logits": "fc"},
            "layer{stage1}.{block}",
            _NORMALISATION,
        ),
    ),
    "vnn_resnet": (
        Layout(
            "VNN-COMP",
            {
                "stem": "conv1", "conv0": "conv1", "conv1": "conv2", "shortcut": "shortcut.0", "dense": "linear1",
                "logits": "linear2",
            },
            "layer{stage1}.{block}",
        ),
    ),
    "lenet": (
        Layout("DeepRobust", {"conv0": "conv1", "conv1": "conv2", "dense": "fc1", "logits": "fc2"}),
    ),
    "strided_cnn": (
        Layout("convex_adversarial", {"conv0": "0", "conv1": "2", "dense": "5", "logits": "7"}),
    ),
    "alexnet": (
        Layout(
            "torchvision",
            {
                **{f"conv{i}": f"features.{place}" for i, place in enumerate((0, 3, 6, 8, 10))},
                "dense0": "classifier.1", "dense1": "classifier.4", "logits": "classifier.6",
            },
        ),
    ),
    "inception_v3": (Layout("torchvision", _inception(), dropped=(r"AuxLogits\..*",)),),
    "efficientnet_lite0": (
        Layout(
            "EfficientNet-PyTorch",
            {
                "stem": "_conv_stem", "stem_norm": "_bn0", "expand": "_expand_conv", "expand_norm": "_bn0",
                "depthwise": "_depthwise_conv", "depthwise_norm": "_bn1", "project": "_project_conv",
                "project_norm": "_bn2", "head": "_conv_head", "head_norm": "_bn1", "logits": "_fc",
            },
            "_blocks.{block}",
        ),
    ),
    "small_cnn": (
        Layout(
            "TRADES",
            {
                **{f"conv{number}": f"feature_extractor.conv{number}" for number in range(1, 5)},
                "fc1": "classifier.fc1", "fc2": "classifier.fc2", "logits": "classifier.fc3",
            },
        ),
    ),
}  # fmt: skip
"""By architecture; the names of `robust_zoo.architectures` are the layers'."""
