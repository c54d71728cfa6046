"""Inception v3 for ImageNet, in any width."""

from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.activations import ReluDecay, activation_layer
from robust_zoo.architectures.residual import normalised

_SMALLEST = 75  # side of an image that the last blocks have a pixel of


def inception_v3(
    input_shape: Sequence[int | None] = (299, 299, 3),
    num_classes: int = 1000,
    *,
    width: float = 1.0,
    extra_blocks: int = 0,
    activation: str | ReluDecay = "relu",
    dropout: float = 0.0,
    scale: bool = False,
    pool_border: str = "left out",
    mean: float | Sequence[float] | None = 0.5,
    deviation: float | Sequence[float] | None = 0.5,
    synchronized: bool = False,
) -> keras.Model:
    """Inception v3 (Szegedy et al., arXiv:1512.00567), with the changes of Kurakin et al. (arXiv:1611.01236, section 4).

    Without auxiliary logits. It is not built on `keras.applications`, whose network has one width and one activation, and
    keras-hub has none. With the defaults it is `keras.applications.InceptionV3` with logits: 23,817,352
    parameters besides moving statistics.

    Args:
        input_shape: image shape (height, width, channels), at least 75 x 75.
        num_classes: number of logits.
        width: multiplies the filters of every convolution (the paper's rho, 0.5 to 2), > 0; default 1.
        extra_blocks: 0 (default), or 2 for the paper's deeper network. The paper does not say which blocks were added;
            here two more like the last one at 17 x 17.
        activation: "relu" (default), "relu6", "silu", "gelu", "tanh", "elu" or a `ReluDecay`.
        dropout: rate before the logits; default 0.
        scale: whether batch normalisation has a factor, which PyTorch's files have; default False.
        pool_border: whether the average of a border pixel's neighbours counts zeros outside the image ("counted", as in
            PyTorch) or not ("left out", the default, as in TensorFlow).
        mean: of all channels or of each, subtracted inside; default 0.5.
        deviation: of all channels or of each, that it is divided by; default 0.5. Both None for pixels as they are.
        synchronized: see `preact_resnet`.

    Raises:
        ValueError: a width that is not above 0, other numbers of extra blocks, another border, sides that are too small,
            or a normalisation that there is not.
    """
    if not width > 0:
        raise ValueError(f"width must be > 0, got {width!r}.")
    if extra_blocks not in (0, 2):
        raise ValueError(f"extra_blocks must be 0 or 2, got {extra_blocks!r}.")
    if pool_border not in ("counted", "left out"):
        raise ValueError(f"pool_border must be 'counted' or 'left out', got {pool_border!r}.")
    if any(side is not None and side < _SMALLEST for side in input_shape[:2]):
        raise ValueError(
            f"input_shape must be at least {_SMALLEST} x {_SMALLEST}, got {tuple(input_shape)}."
        )

    def conv(
        x: keras.KerasTensor,
        filters: int,
        size: int | tuple[int, int],
        name: str,
        *,
        strides: int = 1,
        padding: str = "same",
    ) -> keras.KerasTensor:
        filters = max(1, round(width * filters))
        x = layers.Conv2D(filters, size, strides, padding, use_bias=False, name=name)(x)
        x = layers.BatchNormalization(
            scale=scale, epsilon=1e-3, synchronized=synchronized, name=f"{name}_norm"
        )(x)
        return activation_layer(activation, name=f"{name}_activation")(x)

    def averaged(x: keras.KerasTensor) -> keras.KerasTensor:
        if pool_border == "counted":
            return layers.AveragePooling2D(3, 1)(layers.ZeroPadding2D(1)(x))
        return layers.AveragePooling2D(3, 1, "same")(x)

    def block_35(x: keras.KerasTensor, pooled: int, name: str) -> keras.KerasTensor:
        first = conv(x, 64, 1, f"{name}_1x1")
        second = conv(x, 48, 1, f"{name}_5x5_1")
        second = conv(second, 64, 5, f"{name}_5x5_2")
        third = conv(x, 64, 1, f"{name}_3x3dbl_1")
        for number in (2, 3):
            third = conv(third, 96, 3, f"{name}_3x3dbl_{number}")
        fourth = conv(averaged(x), pooled, 1, f"{name}_pool")
        return layers.Concatenate(name=name)([first, second, third, fourth])

    def block_17(x: keras.KerasTensor, inside: int, name: str) -> keras.KerasTensor:
        first = conv(x, 192, 1, f"{name}_1x1")
        second = conv(x, inside, 1, f"{name}_7x7_1")
        second = conv(second, inside, (1, 7), f"{name}_7x7_2")
        second = conv(second, 192, (7, 1), f"{name}_7x7_3")
        third = conv(x, inside, 1, f"{name}_7x7dbl_1")
        for number, size in ((2, (7, 1)), (3, (1, 7)), (4, (7, 1))):
            third = conv(third, inside, size, f"{name}_7x7dbl_{number}")
        third = conv(third, 192, (1, 7), f"{name}_7x7dbl_5")
        fourth = conv(averaged(x), 192, 1, f"{name}_pool")
        return layers.Concatenate(name=name)([first, second, third, fourth])

    def block_8(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        def both(x: keras.KerasTensor, name: str) -> list[keras.KerasTensor]:
            return [conv(x, 384, (1, 3), f"{name}a"), conv(x, 384, (3, 1), f"{name}b")]

        first = conv(x, 320, 1, f"{name}_1x1")
        second = both(conv(x, 384, 1, f"{name}_3x3_1"), f"{name}_3x3_2")
        third = conv(x, 448, 1, f"{name}_3x3dbl_1")
        third = both(conv(third, 384, 3, f"{name}_3x3dbl_2"), f"{name}_3x3dbl_3")
        fourth = conv(averaged(x), 192, 1, f"{name}_pool")
        return layers.Concatenate(name=name)([first, *second, *third, fourth])

    inputs = keras.Input(input_shape)
    x = conv(normalised(inputs, mean, deviation), 32, 3, "conv_1a", strides=2, padding="valid")
    x = conv(x, 32, 3, "conv_2a", padding="valid")
    x = layers.MaxPooling2D(3, 2)(conv(x, 64, 3, "conv_2b"))
    x = conv(x, 80, 1, "conv_3b", padding="valid")
    x = layers.MaxPooling2D(3, 2)(conv(x, 192, 3, "conv_4a", padding="valid"))
    for letter, pooled in (("b", 32), ("c", 64), ("d", 64)):
        x = block_35(x, pooled, f"mixed_5{letter}")

    name = "mixed_6a"
    first = conv(x, 384, 3, f"{name}_3x3", strides=2, padding="valid")
    second = conv(conv(x, 64, 1, f"{name}_3x3dbl_1"), 96, 3, f"{name}_3x3dbl_2")
    second = conv(second, 96, 3, f"{name}_3x3dbl_3", strides=2, padding="valid")
    x = layers.Concatenate(name=name)([first, second, layers.MaxPooling2D(3, 2)(x)])
    insides = (128, 160, 160, 192) + (192,) * extra_blocks
    for letter, inside in zip("bcdefg", insides, strict=False):
        x = block_17(x, inside, f"mixed_6{letter}")

    name = "mixed_7a"
    first = conv(x, 192, 1, f"{name}_3x3_1")
    first = conv(first, 320, 3, f"{name}_3x3_2", strides=2, padding="valid")
    second = conv(conv(x, 192, 1, f"{name}_7x7x3_1"), 192, (1, 7), f"{name}_7x7x3_2")
    second = conv(second, 192, (7, 1), f"{name}_7x7x3_3")
    second = conv(second, 192, 3, f"{name}_7x7x3_4", strides=2, padding="valid")
    x = layers.Concatenate(name=name)([first, second, layers.MaxPooling2D(3, 2)(x)])
    for letter in "bc":
        x = block_8(x, f"mixed_7{letter}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="inception_v3")
