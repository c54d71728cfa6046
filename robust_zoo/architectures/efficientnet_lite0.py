"""EfficientNet-Lite for ImageNet."""

import math
from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.residual import normalised

# Repeats, kernel, strides, expansion and filters of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_DIVISOR = 8  # of a layer's filters


def _scaled(filters: int, width: float) -> int:
    """Filters times the width, rounded to a multiple of the divisor, and not down by more than a tenth."""
    wanted = filters * width
    found = max(_DIVISOR, int(wanted + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return found + _DIVISOR if found < 0.9 * wanted else found


def efficientnet_lite0(
    input_shape: Sequence[int | None] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    dropout: float = 0.2,
    drop_connect: float = 0.2,
    mean: float | Sequence[float] | None = 127 / 255,
    deviation: float | Sequence[float] | None = 128 / 255,
    synchronized: bool = False,
) -> keras.Model:
    """EfficientNet-Lite0 (Tan and Le, arXiv:1905.11946; Liu 2020): without squeeze and excitation, with relu6.

    4,652,008 parameters besides moving statistics. Lite1 is `depth=1.1` on 240 x 240 pixels, Lite2 `width=1.1, depth=1.2`
    on 260 x 260.

    Args:
        input_shape: image shape (height, width, channels), at least 32 x 32.
        num_classes: number of logits.
        width: multiplies the filters of all but the first and the last convolution, > 0; default 1.
        depth: multiplies the blocks of all but the first and the last stage, > 0; default 1.
        dropout: rate before the logits; default 0.2.
        drop_connect: rate at which the last block is left out for an image in training, and those before it less;
            default 0.2.
        mean: of all channels or of each, subtracted inside; default 127 / 255.
        deviation: of all channels or of each, that it is divided by; default 128 / 255. Both None for pixels as they are.
        synchronized: see `preact_resnet`.

    Raises:
        ValueError: a width or depth that is not above 0, or a normalisation that there is not.
    """
    for name, value in (("width", width), ("depth", depth)):
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value!r}.")

    def norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.BatchNormalization(
            epsilon=1e-3, synchronized=synchronized, name=f"{name}_norm"
        )(x)

    def conv(
        x: keras.KerasTensor, filters: int, size: int, strides: int, name: str
    ) -> keras.KerasTensor:
        x = layers.Conv2D(filters, size, strides, "same", use_bias=False, name=name)(x)
        return norm(x, name)

    def relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.Activation("relu6", name=f"{name}_activation")(x)

    last = len(_STAGES) - 1
    repeats = [
        count if stage in (0, last) else math.ceil(count * depth)
        for stage, (count, *_) in enumerate(_STAGES)
    ]
    inputs = keras.Input(input_shape)
    x = relu6(conv(normalised(inputs, mean, deviation), 32, 3, 2, "stem"), "stem")
    number = 0
    for count, (_, kernel, first_strides, expansion, unscaled) in zip(
        repeats, _STAGES, strict=True
    ):
        filters = _scaled(unscaled, width)
        for repeat in range(count):
            name, strides, before = f"block{number}", 1 if repeat else first_strides, x
            if expansion > 1:
                x = relu6(
                    conv(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand"), f"{name}_expand"
                )
            x = layers.DepthwiseConv2D(
                kernel, strides, "same", use_bias=False, name=f"{name}_depthwise"
            )(x)
            x = relu6(norm(x, f"{name}_depthwise"), f"{name}_depthwise")
            x = conv(x, filters, 1, 1, f"{name}_project")
            if strides == 1 and before.shape[-1] == filters:
                rate = drop_connect * number / sum(repeats)
                if rate:
                    x = layers.Dropout(rate, (None, 1, 1, 1), name=f"{name}_drop")(x)
                x = layers.Add(name=f"{name}_sum")([x, before])
            number += 1
    x = relu6(conv(x, 1280, 1, 1, "head"), "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="efficientnet_lite0")
