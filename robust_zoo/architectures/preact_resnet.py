"""Pre-activation ResNets for small images, the networks of most CIFAR-10 comparisons of robustness."""

import functools
from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.activations import ReluDecay
from robust_zoo.architectures.residual import (
    BORDERS,
    activated,
    convolution,
    normalised,
)

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # by depth
_SHORTCUTS = ("activated", "raw", "raw 3x3")


def preact_resnet(
    input_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 18,
    width: int = 64,
    activation: str | ReluDecay = "relu",
    shortcut: str = "activated",
    final_norm: bool = True,
    border: str = "all",
    mean: float | Sequence[float] | None = 0.5,
    deviation: float | Sequence[float] | None = 0.25,
    synchronized: bool = False,
) -> keras.Model:
    """Pre-activation ResNet (He et al., arXiv:1603.05027) as it is used on CIFAR-10.

    Four stages of basic blocks with `width`, 2, 4 and 8 times as many filters; the first convolution is 3 x 3
    and nothing is pooled before the end. The normalisation of pixels and the first convolution are in float32 under any
    dtype policy, since bfloat16 rounds a pixel near 1 by up to 1/512, a sixteenth of epsilon 8/255. 11,172,170
    parameters besides batch normalisation's moving statistics at depth 18, width 64 and 10 classes.

    Several networks go by this name. That of Rice et al. (arXiv:2002.11569) has the defaults; that of Wong et al.
    (arXiv:2001.03994) shortcut="raw" and final_norm=False; that of Gowal et al. (arXiv:2010.03593) activation="silu",
    shortcut="raw 3x3" and border="end"; each with means and deviations of its own.

    Args:
        input_shape: image shape (height, width, channels), sides divisible by 8.
        num_classes: number of logits.
        depth: 18 or 34.
        width: filters of the first stage, >= 1; 64 is the usual one.
        activation: "relu", "relu6", "silu", "gelu", "tanh", "elu" or a `ReluDecay`.
        shortcut: where the shape changes, a 1 x 1 convolution of what the first activation gives ("activated", default)
            or of the block's input ("raw"), or a 3 x 3 convolution of that ("raw 3x3").
        final_norm: whether batch normalisation and the activation come once more before the pooling; default True.
        border: see `wide_resnet`.
        mean: of all channels or of each, subtracted inside; default 0.5. None for pixels as they are.
        deviation: of all channels or of each, that it is divided by; default 0.25.
        synchronized: whether batch normalisation always shares statistics between replicas (TensorFlow only). The
            defenses see to that while they train on several devices, so that it is only needed without them.

    Raises:
        ValueError: another depth, activation, shortcut or border, a width below 1, or a normalisation that there is not.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"depth must be one of {tuple(_BLOCKS)}, got {depth!r}.")
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width!r}.")
    for name, value, allowed in (("shortcut", shortcut, _SHORTCUTS), ("border", border, BORDERS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {value!r}.")

    norm = functools.partial(activated, activation=activation, synchronized=synchronized)

    inputs = keras.Input(input_shape)
    x = normalised(inputs, mean, deviation)
    x = convolution(x, width, 3, dtype="float32", name="stem")
    for stage, blocks in enumerate(_BLOCKS[depth]):
        filters = width * 2**stage
        for block in range(blocks):
            name, strides = f"stage{stage}_block{block}", 2 if stage > 0 and block == 0 else 1
            before, beside = norm(x, name=f"{name}_norm0"), x
            if strides > 1 or x.shape[-1] != filters:
                beside = convolution(
                    before if shortcut == "activated" else x,
                    filters,
                    3 if shortcut == "raw 3x3" else 1,
                    strides,
                    border=border,
                    name=f"{name}_shortcut",
                )
            x = convolution(before, filters, 3, strides, border=border, name=f"{name}_conv0")
            x = convolution(norm(x, name=f"{name}_norm1"), filters, 3, name=f"{name}_conv1")
            x = layers.Add(name=f"{name}_sum")([beside, x])
    x = norm(x, name="norm") if final_norm else x
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="preact_resnet")
