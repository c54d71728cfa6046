"""The small network with strides that verifiers of MNIST models measure themselves by."""

from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.residual import check_sides


def strided_cnn(
    input_shape: Sequence[int] = (28, 28, 1),
    num_classes: int = 10,
    *,
    filters: Sequence[int] = (16, 32),
    dense: int = 100,
) -> keras.Model:
    """The convolutional network of Wong and Kolter (arXiv:1711.00851): strides instead of pooling; 166,406 parameters.

    Args:
        input_shape: image shape (height, width, channels), sides divisible by 2 for each convolution.
        num_classes: number of logits.
        filters: of the 4 x 4 convolutions with strides of 2; default (16, 32).
        dense: units of the dense layer behind them; default 100.

    Raises:
        ValueError: sides that the strides do not divide.
    """
    check_sides(input_shape, 2 ** len(filters))
    inputs = x = keras.Input(input_shape)
    for number, count in enumerate(filters):
        x = layers.ZeroPadding2D(1)(x)
        x = layers.Conv2D(count, 4, 2, activation="relu", name=f"conv{number}")(x)
    x = layers.Dense(dense, activation="relu", name="dense")(layers.Flatten()(x))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="strided_cnn")
