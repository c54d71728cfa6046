"""ConvNet of the MatConvNet CIFAR example."""

from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.whitening import ZCAWhitening


def convnet(
    input_shape: Sequence[int | None] = (32, 32, 3), num_classes: int = 10, *, whitening: int = 0
) -> keras.Model:
    """ConvNet of DeepDefense (arXiv:1803.00404, supplement Table 3), with 2 x 2 pooling.

    Args:
        input_shape: image shape (height, width, channels), at least 32 x 32.
        num_classes: number of logits.
        whitening: principal components of a `ZCAWhitening`, named "whitening", in front of all else, which waits for
            its `adapt`; 0 (default) for none. 1,120 are enough to be exact on CIFAR-10.
    """
    inputs = keras.Input(input_shape)
    x = ZCAWhitening(whitening, name="whitening")(inputs) if whitening else inputs
    x = layers.Conv2D(32, 5, padding="same")(x)
    x = layers.Activation("relu")(layers.MaxPooling2D(2)(x))
    for filters in (32, 64):
        x = layers.Conv2D(filters, 5, padding="same", activation="relu")(x)
        x = layers.AveragePooling2D(2)(x)
    x = layers.Conv2D(64, 4, activation="relu")(x)
    x = layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(x)
    outputs = layers.GlobalAveragePooling2D(dtype="float32")(x)
    return keras.Model(inputs, outputs, name="convnet")
