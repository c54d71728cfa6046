"""The CIFAR-10 residual network of Madry et al."""

from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.residual import more_channels


def _convolution(x: keras.KerasTensor, filters: int, strides: int = 1) -> keras.KerasTensor:
    initializer = keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_out", distribution="untruncated_normal"
    )
    return layers.Conv2D(
        filters, 3, strides, padding="same", use_bias=False, kernel_initializer=initializer
    )(x)


def _shortcut(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
    """Average pooling and zeros in the new channels: a shortcut without weights."""
    if strides > 1:
        x = layers.AveragePooling2D(strides)(x)
    return more_channels(x, filters)


def madry_resnet(
    input_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int = 10,
    *,
    width: int = 1,
    units: int = 5,
    synchronized: bool = False,
) -> keras.Model:
    """Pre-activation ResNet of Madry et al. for CIFAR-10 (arXiv:1706.06083; challenge code).

    Three stages of `units` residual units with 16, 32 and 64 times `width` filters; each image is
    standardised inside the model.

    Args:
        input_shape: image shape (height, width, channels), sides divisible by 4.
        num_classes: number of logits.
        width: width multiplier, >= 1: 1 (default) is the paper's "simple" network, 10 its "wide" one.
        units: residual units in each stage, >= 1; default 5.
        synchronized: see `preact_resnet`.
    """
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width!r}.")

    def normalised(x: keras.KerasTensor) -> keras.KerasTensor:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3, synchronized=synchronized)(x)
        return layers.LeakyReLU(0.1)(x)

    inputs = keras.Input(input_shape)
    # Standardising an image is layer normalisation over all its axes without weights.
    x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, epsilon=1e-8)(inputs)
    x = _convolution(x, 16)
    for stage, filters in enumerate((16 * width, 32 * width, 64 * width)):
        for unit in range(units):
            strides = 2 if stage > 0 and unit == 0 else 1
            residual = normalised(x)
            # The very first unit shares its pre-activation with the shortcut.
            skip = residual if stage == unit == 0 else x
            residual = normalised(_convolution(residual, filters, strides))
            residual = _convolution(residual, filters)
            x = layers.Add()([_shortcut(skip, filters, strides), residual])
    x = layers.GlobalAveragePooling2D()(normalised(x))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="madry_resnet")
