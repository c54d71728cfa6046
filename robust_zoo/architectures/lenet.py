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
    convolution_activation: str | ReluDecay | None = None,
) -> keras.Model:
    """LeNet of DeepDefense (arXiv:1803.00404, supplement Table 3); 431,080 parameters.

    The convolutions are linear followed by max pooling; the one activation comes after the dense layer. Other LeNets of
    these sizes, such as DeepRobust's, have one behind the convolutions, too.

    Args:
        input_shape: image shape (height, width, channels).
        num_classes: number of logits.
        activation: "relu" (default), "relu6", "silu", "gelu", "tanh", "elu" or a `ReluDecay`.
        convolution_activation: the same behind each convolution; None (default) for none.
    """
    inputs = keras.Input(input_shape)
    x = inputs
    for number, filters in enumerate((20, 50)):
        x = layers.Conv2D(filters, 5, name=f"conv{number}")(x)
        if convolution_activation is not None:
            x = activation_layer(convolution_activation)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(500, name="dense")(layers.Flatten()(x))
    x = activation_layer(activation)(x)
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="lenet")
