"""The all-convolutional network of the PGN paper."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers


def allconv(
    input_shape: Sequence[int | None] = (32, 32, 3), num_classes: int = 10, *, filters: int = 64
) -> keras.Model:
    """ConvPool-CNN of perturbation generator networks (2020, section 5.1): no batch normalisation.

    Leaky ReLU (0.2) follows every convolution, the one that makes a map for each class included;
    the logits are the mean of each map. 2,334,730 parameters at 64 filters and 10 classes. The first convolution is in
    float32 under any dtype policy: bfloat16 rounds a pixel near 1 by up to 1/512, as much as small L2 budgets change it.

    Args:
        input_shape: image shape (height, width, channels), sides divisible by 8.
        num_classes: number of logits.
        filters: filters of the first convolution; later ones have 2, 4 and 8 times as many.
    """

    def convolution(x: keras.KerasTensor, filters: int, **kwargs: Any) -> keras.KerasTensor:
        initializer = keras.initializers.VarianceScaling(
            scale=2.0, mode="fan_in", distribution="untruncated_normal"
        )
        x = layers.Conv2D(filters, 3, padding="same", kernel_initializer=initializer, **kwargs)(x)
        return layers.LeakyReLU(0.2, dtype=kwargs.get("dtype"))(x)

    inputs = keras.Input(input_shape)
    x = inputs
    for factor in (1, 2, 4):
        x = convolution(x, factor * filters, dtype="float32" if factor == 1 else None)
        x = convolution(x, 2 * factor * filters)
        x = layers.AveragePooling2D(2)(x)
    x = convolution(x, num_classes, dtype="float32", name="logits")
    outputs = layers.GlobalAveragePooling2D(dtype="float32")(x)
    return keras.Model(inputs, outputs, name="allconv")
