"""The network that certified training is compared on."""

from collections.abc import Sequence

import keras
from keras import layers


def cnn7(
    input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10, *, width: float = 1.0
) -> keras.Model:
    """CNN7: the large network of Gowal et al. (arXiv:1810.12715) with batch normalisation (Shi et al., arXiv:2103.17268).

    Five 3 x 3 convolutions of 64, 64, 128, 128 and 128 filters, the third with strides of 2, and a dense layer of 512,
    each with batch normalisation and ReLU.

    Args:
        input_shape: image shape (height, width, channels).
        num_classes: number of logits.
        width: factor of all numbers of filters and units, > 0; default 1.

    Raises:
        ValueError: a `width` that leaves a layer nothing.
    """
    if not width * 64 >= 1:
        raise ValueError(f"width must be at least 1/64, got {width!r}.")

    def activated(x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))

    inputs = keras.Input(input_shape)
    x = inputs
    for filters, strides in ((64, 1), (64, 1), (128, 2), (128, 1), (128, 1)):
        x = activated(layers.Conv2D(int(filters * width), 3, strides, "same")(x))
    x = activated(layers.Dense(int(512 * width))(layers.Flatten()(x)))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="cnn7")
