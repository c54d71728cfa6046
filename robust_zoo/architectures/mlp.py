"""Multilayer perceptron."""

from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.activations import ReluDecay, activation_layer


def mlp(
    input_shape: Sequence[int] = (28, 28, 1),
    num_classes: int = 10,
    *,
    hidden: Sequence[int] = (500, 150),
    activation: str | ReluDecay = "relu",
) -> keras.Model:
    """The MLP of DeepDefense, 784-500-150-10 (arXiv:1803.00404, supplement Table 3).

    Args:
        input_shape: image shape (height, width, channels).
        num_classes: number of logits.
        hidden: width of each hidden layer.
        activation: "relu" (default), "relu6", "silu", "gelu", "tanh", "elu" or a `ReluDecay`.
    """
    inputs = keras.Input(input_shape)
    x = layers.Flatten()(inputs)
    for units in hidden:
        x = activation_layer(activation)(layers.Dense(units)(x))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="mlp")
