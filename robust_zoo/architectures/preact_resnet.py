"""Pre-activation ResNets for small images, the networks of most CIFAR-10 comparisons of robustness."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from robust_zoo.architectures.activations import ReluDecay, activation_layer

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # by depth


def preact_resnet(
    input_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 18,
    width: int = 64,
    activation: str | ReluDecay = "relu",
    synchronized: bool = False,
) -> keras.Model:
    """Pre-activation ResNet (He et al., arXiv:1603.05027) as it is used on CIFAR-10.

    Four stages of basic blocks with `width`, 2, 4 and 8 times as many filters; the first convolution is 3 x 3
    and nothing is pooled before the end. Pixels are shifted by 0.5 and divided by 0.25 inside; this and the first
    convolution are in float32 under any dtype policy, since bfloat16 rounds a pixel near 1 by up to 1/512, a
    sixteenth of epsilon 8/255. 11,172,170 parameters besides batch normalisation's moving statistics at depth 18,
    width 64 and 10 classes.

    Args:
        input_shape: image shape (height, width, channels), sides divisible by 8.
        num_classes: number of logits.
        depth: 18 or 34.
        width: filters of the first stage, >= 1; 64 is the usual one.
        activation: "relu", "relu6", "silu", "gelu", "tanh", "elu" or a `ReluDecay`.
        synchronized: whether batch normalisation always shares statistics between replicas (TensorFlow only). The
            defenses see to that while they train on several devices, so that it is only needed without them.

    Raises:
        ValueError: another depth or activation, or a width below 1.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"depth must be one of {tuple(_BLOCKS)}, got {depth!r}.")
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width!r}.")

    def activated(x: keras.KerasTensor) -> keras.KerasTensor:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, synchronized=synchronized)(x)
        return activation_layer(activation)(x)

    def convolution(
        x: keras.KerasTensor, filters: int, size: int = 3, strides: int = 1, **options: Any
    ) -> keras.KerasTensor:
        padding = "same"
        if strides > 1 and size > 1:
            # One pixel on each side: "same" would pad strided convolutions on one side only.
            x, padding = layers.ZeroPadding2D(size // 2)(x), "valid"
        options |= {"use_bias": False, "kernel_initializer": "he_normal"}
        return layers.Conv2D(filters, size, strides, padding, **options)(x)

    inputs = keras.Input(input_shape)
    x = layers.Rescaling(4.0, -2.0, dtype="float32")(inputs)
    x = convolution(x, width, dtype="float32")
    for stage, blocks in enumerate(_BLOCKS[depth]):
        filters = width * 2**stage
        for block in range(blocks):
            strides = 2 if stage > 0 and block == 0 else 1
            before = activated(x)
            # Where the shape changes, the shortcut shares the pre-activation.
            changes = strides > 1 or x.shape[-1] != filters
            shortcut = convolution(before, filters, 1, strides) if changes else x
            residual = convolution(before, filters, 3, strides)
            residual = convolution(activated(residual), filters)
            x = layers.Add()([shortcut, residual])
    x = layers.GlobalAveragePooling2D()(activated(x))
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="preact_resnet")
