"""The small residual network of the competition of neural network verifiers."""

from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.residual import check_sides, convolution, normalised


def vnn_resnet(
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    width: int = 8,
    blocks: int = 2,
    mean: float | Sequence[float] | None = None,
    deviation: float | Sequence[float] | None = None,
) -> keras.Model:
    """ResNet-2B of VNN-COMP 2021 (Zhang et al., alpha-beta-CROWN): one stage of blocks without batch normalisation.

    112,006 parameters with 10 classes.

    Args:
        input_shape: image shape (height, width, channels), sides divisible by 4.
        num_classes: number of logits.
        width: filters of the first convolution, half of the blocks', >= 1; default 8.
        blocks: residual blocks, >= 1; default 2.
        mean: of all channels or of each, subtracted inside; None (default) for pixels as they are.
        deviation: of all channels or of each, that it is divided by; with `mean`.

    Raises:
        ValueError: a width or number of blocks below 1, sides that the strides do not divide, or a normalisation that there is not.
    """
    for name, value in (("width", width), ("blocks", blocks)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value!r}.")
    check_sides(input_shape, 4)
    inputs = keras.Input(input_shape)
    x = convolution(normalised(inputs, mean, deviation), width, 3, 2, bias=True, name="stem")
    x = layers.ReLU(name="stem_activation")(x)
    for block in range(blocks):
        name, strides = f"stage0_block{block}", 1 if block else 2
        shortcut = x
        if strides > 1:
            shortcut = convolution(x, 2 * width, 1, 2, bias=True, name=f"{name}_shortcut")
        x = convolution(x, 2 * width, 3, strides, bias=True, name=f"{name}_conv0")
        x = layers.ReLU(name=f"{name}_conv0_activation")(x)
        x = convolution(x, 2 * width, 3, bias=True, name=f"{name}_conv1")
        x = layers.Add(name=f"{name}_sum")([x, shortcut])
        x = layers.ReLU(name=f"{name}_activation")(x)
    x = layers.Dense(100, activation="relu", name="dense")(layers.Flatten()(x))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="vnn_resnet")
