"""AlexNet for ImageNet."""

from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.residual import normalised

_SMALLEST = 63  # side of an image that the last pooling has a pixel of


def alexnet(
    input_shape: Sequence[int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    dropout: float = 0.5,
    mean: float | Sequence[float] | None = None,
    deviation: float | Sequence[float] | None = None,
) -> keras.Model:
    """AlexNet in one column (Krizhevsky, arXiv:1404.5997), as torchvision has it; 61,100,840 parameters.

    Without the local response normalisation and the groups of the network of 2012.

    Args:
        input_shape: image shape (height, width, channels), at least 63 x 63; torchvision's weights are for 224 x 224.
        num_classes: number of logits.
        dropout: rate before both hidden dense layers; default 0.5.
        mean: of all channels or of each, subtracted inside; None (default) for pixels as they are.
        deviation: of all channels or of each, that it is divided by; with `mean`.

    Raises:
        ValueError: sides that are too small, or a normalisation that there is not.
    """
    if any(side < _SMALLEST for side in input_shape[:2]):
        raise ValueError(
            f"input_shape must be at least {_SMALLEST} x {_SMALLEST}, got {tuple(input_shape)}."
        )
    inputs = keras.Input(input_shape)
    x = layers.ZeroPadding2D(2)(normalised(inputs, mean, deviation))
    x = layers.Conv2D(64, 11, 4, activation="relu", name="conv0")(x)
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Conv2D(192, 5, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(3, 2)(x)
    for number, filters in enumerate((384, 256, 256), start=2):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Flatten()(layers.Dropout(dropout)(x))
    x = layers.Dense(4096, activation="relu", name="dense0")(x)
    x = layers.Dense(4096, activation="relu", name="dense1")(layers.Dropout(dropout)(x))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="alexnet")
