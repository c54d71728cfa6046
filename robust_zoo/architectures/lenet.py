"""LeNet of the MatConvNet examples."""

from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.activations import ReluDecay, activation_layer


def lenet(
    input_shape: Sequence[int] = (28, 28, 1),
    num_classes: int = 10,
    *,
    activation: str | ReluDecay = "relu",
) -> keras.Model:
    """LeNet of DeepDefense (arXiv:1803.00404, supplement Table 3).

    The convolutions are linear followed by max pooling; the one activation comes after the dense layer.

    Args:
        input_shape: image shape (height, width, channels).
        num_classes: number of logits.
        activation: "relu" (default), "relu6", "silu", "gelu", "tanh", "elu" or a `ReluDecay`.
    """
    inputs = keras.Input(input_shape)
    x = inputs
    for filters in (20, 50):
        x = layers.MaxPooling2D(2)(layers.Conv2D(filters, 5)(x))
    x = activation_layer(activation)(layers.Dense(500)(layers.Flatten()(x)))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="lenet")
