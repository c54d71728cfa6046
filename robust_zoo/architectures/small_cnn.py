"""The small network of TRADES on MNIST."""

from collections.abc import Sequence

import keras
from keras import layers


def small_cnn(
    input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10, *, dropout: float = 0.5
) -> keras.Model:
    """SmallCNN of TRADES on MNIST (Zhang et al., arXiv:1901.08573; the network of Carlini and Wagner).

    Four 3 x 3 convolutions without padding and three dense layers; 312,202 parameters.

    Args:
        input_shape: image shape (height, width, channels), at least 16 x 16.
        num_classes: number of logits.
        dropout: rate after the first dense layer; default 0.5.
    """
    inputs = x = keras.Input(input_shape)
    for number, filters in enumerate((32, 32, 64, 64), start=1):
        x = layers.Conv2D(filters, 3, activation="relu", name=f"conv{number}")(x)
        if number % 2 == 0:
            x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(200, activation="relu", name="fc1")(layers.Flatten()(x))
    x = layers.Dense(200, activation="relu", name="fc2")(layers.Dropout(dropout)(x))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="small_cnn")
