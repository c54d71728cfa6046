"""Wide ResNets, the largest networks of most CIFAR-10 comparisons of robustness."""

import functools
from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.activations import ReluDecay
from robust_zoo.architectures.residual import (
    BORDERS,
    activated,
    convolution,
    normalised,
)

_STAGES = 3


def wide_resnet(
    input_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 28,
    width: int = 10,
    stages: Sequence[int] | None = None,
    activation: str | ReluDecay = "relu",
    border: str = "all",
    mean: float | Sequence[float] | None = None,
    deviation: float | Sequence[float] | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """Wide ResNet (Zagoruyko and Komodakis, arXiv:1605.07146), without dropout.

    Pre-activation blocks in three stages; where a block changes the number of channels its shortcut is a 1 x 1
    convolution of what the block's first activation gives. With the defaults these are the networks of TRADES
    (arXiv:1901.08573) and most of its successors; with activation="silu", border="end" and a normalised input those
    of Gowal et al. (arXiv:2010.03593), Rebuffi et al. (arXiv:2103.01946) and Wang et al. (arXiv:2302.04638).
    36,479,194 parameters besides moving statistics at depth 28, width 10 and 10 classes.

    Args:
        input_shape: image shape (height, width, channels), sides divisible by 4.
        num_classes: number of logits.
        depth: layers, 6 n + 4 with n >= 1 blocks in each stage; default 28.
        width: filters of the first stage in sixteens, >= 1; each further stage has twice as many. Default 10.
        stages: filters of the three stages, in place of `width`; by default None.
        activation: "relu" (default), "relu6", "silu", "gelu", "tanh", "elu" or a `ReluDecay`.
        border: "all" (default) or "end", where convolutions with strides are padded: as PyTorch's padding=1 does, or
            below and to the right only, as TensorFlow's "same".
        mean: of all channels or of each, subtracted inside; None (default) for pixels as they are.
        deviation: of all channels or of each, that it is divided by; with `mean`.
        synchronized: see `preact_resnet`.

    Raises:
        ValueError: a depth, width, border, activation or normalisation that there is not.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth must be 6 n + 4, 10 or more, got {depth!r}.")
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width!r}.")
    if border not in BORDERS:
        raise ValueError(f"border must be one of {BORDERS}, got {border!r}.")
    if stages is None:
        stages = [16 * width * 2**stage for stage in range(_STAGES)]
    if len(stages) != _STAGES:
        raise ValueError(f"stages must be {_STAGES} numbers of filters, got {stages!r}.")

    norm = functools.partial(activated, activation=activation, synchronized=synchronized)

    inputs = keras.Input(input_shape)
    x = normalised(inputs, mean, deviation)
    x = convolution(x, 16, 3, name="stem")
    for stage, filters in enumerate(stages):
        for block in range((depth - 4) // 6):
            name, strides = f"stage{stage}_block{block}", 2 if stage > 0 and block == 0 else 1
            before = norm(x, name=f"{name}_norm0")
            shortcut = x
            if x.shape[-1] != filters:
                shortcut = convolution(before, filters, 1, strides, name=f"{name}_shortcut")
            residual = convolution(before, filters, 3, strides, border=border, name=f"{name}_conv0")
            residual = norm(residual, name=f"{name}_norm1")
            residual = convolution(residual, filters, 3, name=f"{name}_conv1")
            x = layers.Add(name=f"{name}_sum")([shortcut, residual])
    x = layers.GlobalAveragePooling2D(name="pool")(norm(x, name="norm"))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="wide_resnet")
