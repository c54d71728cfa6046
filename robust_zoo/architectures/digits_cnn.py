"""A small convolutional network for 8 x 8 digits."""

from collections.abc import Sequence

import keras
from keras import layers


def digits_cnn(input_shape: Sequence[int] = (8, 8, 1), num_classes: int = 10) -> keras.Model:
    """Two convolutions and a dense layer: trains on "digits" in seconds. Not from a paper.

    Args:
        input_shape: image shape (height, width, channels).
        num_classes: number of logits.
    """
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="digits_cnn")
