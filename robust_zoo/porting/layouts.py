"""What PyTorch's files call the layers of the zoo's architectures."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(.+)")


@dataclass(frozen=True)
class Layout:
    """The names of one family of files.

    Attributes:
        name: of whoever wrote them.
        parts: the module of each layer, by the layer's name; in a block by what comes behind its number.
        block: the module of a block, with {stage} and {block} from 0, {stage1} from 1; "" where there are none.
        dropped: patterns of tensors that the network does not use.
    """

    name: str
    parts: Mapping[str, str]
    block: str = ""
    dropped: tuple[str, ...] = field(default=())

    def module(self, layer: str) -> str | None:
        """Of a layer, as a path; None if files of this layout do not have it."""
        found = _BLOCK.fullmatch(layer)
        if found is None:
            return self.parts.get(layer)
        stage, block = int(found[1]), int(found[2])
        part = self.parts.get(found[3])
        if part is None or not self.block:
            return None
        return f"{self.block.format(stage=stage, stage1=stage + 1, block=block)}.{part}"

    def drops(self, tensor: str) -> bool:
        return any(re.fullmatch(pattern, tensor) for pattern in self.dropped)


# Of images, which the architecture's mean and deviation say.
_NORMALISATION = ("mean", "std", "mu", "sigma")
_TRADES = {
    "stem": "conv1", "norm0": "bn1", "conv0": "conv1", "norm1": "bn2", "conv1": "conv2", "shortcut": "convShortcut",
    "norm": "bn1", "logits": "fc",
}  # fmt: skip
_RESNET = {
    "stem": "conv1", "stem_norm": "bn1", "conv0": "conv1", "conv0_norm": "bn1", "conv1": "conv2", "conv1_norm": "bn2",
    "conv2": "conv3", "conv2_norm": "bn3", "shortcut": "shortcut.0", "shortcut_norm": "shortcut.1", "logits": "linear",
}  # fmt: skip

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
        ),
    ),
    "resnet": (
        Layout("CIFAR-10", _RESNET, "layer{stage1}.{block}", _NORMALISATION),
        Layout(
            "torchvision",
            {**_RESNET, "shortcut": "downsample.0", "shortcut_norm": "downsample.1", "logits": "fc"},
            "layer{stage1}.{block}",
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
