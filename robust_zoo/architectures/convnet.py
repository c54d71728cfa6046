"""ConvNet of the MatConvNet CIFAR example."""

from collections.abc import Sequence

import keras
from keras import layers


def convnet(input_shape: Sequence[int | None] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """ConvNet of DeepDefense (arXiv:1803.00404, supplement Table 3), with 2 x 2 pooling.

    Args:
        input_shape: image shape (height, width, channels), at least 32 x 32.
        num_classes: number of logits.
    """
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(32, 5, padding="same")(inputs)
    x = layers.Activation("relu")(layers.MaxPooling2D(2)(x))
    for filters in (32, 64):
        x = layers.Conv2D(filters, 5, padding="same", activation="relu")(x)
        x = layers.AveragePooling2D(2)(x)
    x = layers.Conv2D(64, 4, activation="relu")(x)
    x = layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(x)
    outputs = layers.GlobalAveragePooling2D(dtype="float32")(x)
    return keras.Model(inputs, outputs, name="convnet")
