"""Network in network."""

from collections.abc import Sequence

import keras
from keras import layers


def nin(
    input_shape: Sequence[int | None] = (32, 32, 3), num_classes: int = 10, *, dropout: float = 0.5
) -> keras.Model:
    """NIN of DeepDefense (arXiv:1803.00404, supplement Table 3).

    Args:
        input_shape: image shape (height, width, channels), at least 32 x 32.
        num_classes: number of logits.
        dropout: rate after each of the two poolings.
    """
    inputs = keras.Input(input_shape)
    x = inputs
    blocks = (
        ((192, 5), (160, 1), (96, 1), layers.MaxPooling2D(2)),
        ((192, 5), (192, 1), (192, 1), layers.AveragePooling2D(2)),
    )
    for *convolutions, pooling in blocks:
        for filters, size in convolutions:
            x = layers.Conv2D(filters, size, padding="same", activation="relu")(x)
        x = layers.Dropout(dropout)(pooling(x))
    for filters, size in ((192, 3), (192, 1)):
        x = layers.Conv2D(filters, size, padding="same", activation="relu")(x)
    x = layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(x)
    outputs = layers.GlobalAveragePooling2D(dtype="float32")(x)
    return keras.Model(inputs, outputs, name="nin")
