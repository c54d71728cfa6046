"""The generator of perturbation generator networks. It is no classifier."""

from collections.abc import Sequence

import keras
from keras import layers


def perturbation_generator(
    input_shape: Sequence[int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    filters: int = 128,
    hidden: int = 1024,
) -> keras.Model:
    """Generator of PGN (2020, as in the authors' code): 8,966,147 parameters for CIFAR-10.

    Args:
        input_shape: image shape; height and width divisible by 4.
        num_classes: of the classifier.
        filters: of its convolutions.
        hidden: width of its first dense layer.

    Returns:
        Functional `keras.Model` of [one-hot labels (batch, num_classes), gradients (batch, *input_shape),
        images as 2x - 1 (batch, *input_shape)] to perturbations (batch, *input_shape) before the tanh.

    Raises:
        ValueError: a height or width that 4 does not divide.
    """
    height, width, channels = input_shape
    if height % 4 or width % 4:
        raise ValueError(f"input_shape must have sides divisible by 4, got {input_shape}.")
    options = {
        "kernel_initializer": keras.initializers.VarianceScaling(
            2.0, distribution="untruncated_normal"
        )
    }

    def active(layer: keras.layers.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.LeakyReLU(0.2)(layer(x))

    def with_label(x: keras.KerasTensor) -> keras.KerasTensor:
        side = x.shape[1] * x.shape[2]
        tiled = layers.Reshape((x.shape[1], x.shape[2], num_classes))(
            layers.RepeatVector(side)(label)
        )
        return layers.Concatenate()([x, tiled])

    label = keras.Input((num_classes,), name="label")
    gradient = keras.Input(input_shape, name="gradient")
    image = keras.Input(input_shape, name="image")
    x = active(layers.Dense(hidden, **options), label)
    x = layers.Concatenate()([x, label])
    x = active(layers.Dense(height * width // 16 * filters, **options), x)
    x = layers.Reshape((height // 4, width // 4, filters))(x)
    for _ in range(2):
        up = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", **options)
        x = active(up, with_label(x))
    x = layers.Concatenate()([x, gradient, image])
    x = active(layers.Conv2D(filters, 3, padding="same", **options), x)
    last = layers.Conv2D(
        channels, 3, padding="same", dtype="float32", name="perturbation", **options
    )
    return keras.Model([label, gradient, image], last(x), name="perturbation_generator")
