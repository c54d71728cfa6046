"""Model B of Tramer et al., the other architecture of Madry's black-box rows."""

from collections.abc import Sequence

import keras
from keras import layers


def tramer_b(input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10) -> keras.Model:
    """Model B of Tramer et al. (arXiv:1705.07204, Table 5).

    Args:
        input_shape: image shape (height, width, channels), at least 28 x 28.
        num_classes: number of logits.
    """
    inputs = keras.Input(input_shape)
    x = layers.Dropout(0.2)(inputs)
    x = layers.Conv2D(64, 8, 2, "same", activation="relu")(x)
    x = layers.Conv2D(128, 6, 2, "valid", activation="relu")(x)
    x = layers.Conv2D(128, 5, 1, "valid", activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(layers.Flatten()(x))
    return keras.Model(inputs, outputs, name="tramer_b")
