"""The MNIST network of Madry et al."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers


def madry_cnn(
    input_shape: Sequence[int] = (28, 28, 1),
    num_classes: int = 10,
    *,
    scale: int = 16,
    dense_base: int = 64,
    initial: str = "paper",
) -> keras.Model:
    """Network A of Madry et al. for MNIST (arXiv:1706.06083, section 5 and figure 4).

    Two 5 x 5 convolutions of 2 * scale and 4 * scale filters, each with 2 x 2 max pooling, and a dense
    layer of dense_base * scale units. Scale 16 is the published network (32, 64, 1024); scales 1, 2, 4
    and 8 are the smaller nets of the capacity study.

    Args:
        input_shape: image shape (height, width, channels).
        num_classes: number of logits.
        scale: width multiplier, >= 1; default 16.
        dense_base: dense units at scale 1; 64 (default) in arXiv version 2 and later, 8 in the workshop text.
        initial: "paper" (default) draws kernels from a truncated normal of standard deviation 0.1 and sets biases to
            0.1, as the authors' code does; "glorot" is Keras's default, from which adversarial training with few steps
            and a large learning rate makes progress earlier.
    """
    if initial not in ("paper", "glorot"):
        raise ValueError(f"initial must be 'paper' or 'glorot', got {initial!r}.")
    if scale < 1:
        raise ValueError(f"scale must be >= 1, got {scale!r}.")

    # Keras seeds an initializer once: each layer has its own.
    def starts() -> dict[str, Any]:
        if initial == "glorot":
            return {}
        return {
            "kernel_initializer": keras.initializers.TruncatedNormal(stddev=0.1),
            "bias_initializer": keras.initializers.Constant(0.1),
        }

    inputs = keras.Input(input_shape)
    x = inputs
    for filters in (2 * scale, 4 * scale):
        x = layers.Conv2D(filters, 5, padding="same", activation="relu", **starts())(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(dense_base * scale, activation="relu", **starts())(layers.Flatten()(x))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits", **starts())(x)
    base = "madry_cnn" if dense_base == 64 else f"madry_cnn_dense{dense_base}"
    name = base if base == "madry_cnn" and scale == 16 else f"{base}_scale{scale}"
    return keras.Model(inputs, outputs, name=name)
