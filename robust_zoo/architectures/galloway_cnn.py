"""The small CIFAR-10 network of Galloway et al."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers


def galloway_cnn(
    input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, weight_decay: float = 0.0
) -> keras.Model:
    """CNN of Galloway et al. for CIFAR-10 (arXiv:1804.03308, Table 1): no biases, 184,832 parameters.

    Every output filter starts at unit L2 norm.

    Args:
        input_shape: image shape (height, width, channels).
        num_classes: number of logits.
        weight_decay: lambda of the penalty lambda * sum(w ** 2) / 2 on every kernel; CNN-L2 uses 1e-3.
    """

    def options(initializer: keras.initializers.Initializer) -> dict[str, Any]:
        # Keras's L2 has no factor of one half.
        regularizer = keras.regularizers.L2(weight_decay / 2) if weight_decay else None
        return {
            "use_bias": False,
            "kernel_initializer": initializer,
            "kernel_regularizer": regularizer,
        }

    inputs = keras.Input(input_shape)
    x = inputs
    for filters, size, strides, padding in (
        (32, 8, 2, "same"),
        (64, 6, 2, "valid"),
        (64, 5, 1, "valid"),
    ):
        start = options(keras.initializers.TruncatedNormal(stddev=0.1))
        x = layers.Conv2D(filters, size, strides, padding, activation="relu", **start)(x)
    start = options(keras.initializers.RandomNormal(stddev=1.0))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits", **start)(
        layers.Flatten()(x)
    )
    model = keras.Model(inputs, outputs, name="galloway_cnn")
    for variable in model.trainable_variables:
        kernel = keras.ops.convert_to_numpy(variable)
        axes = tuple(range(kernel.ndim - 1))
        variable.assign(kernel / np.sqrt(np.sum(kernel**2, axis=axes, keepdims=True)))
    return model
