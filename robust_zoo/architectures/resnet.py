"""ResNets for CIFAR-10 and for ImageNet, in PyTorch's layout."""

from collections.abc import Sequence

import keras
from keras import layers

from robust_zoo.architectures.residual import (
    batch_normalisation,
    check_sides,
    convolution,
    more_channels,
    normalised,
)

_BLOCKS = {
    **{18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)},
    **{20: (3, 3, 3), 32: (5, 5, 5), 44: (7, 7, 7), 56: (9, 9, 9)},
}  # by depth
_BOTTLENECK = 50  # the depth whose blocks are bottlenecks
_EXPANSION = 4  # of a bottleneck's output over its inside


def resnet(
    input_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 18,
    width: int | None = None,
    stem: str = "small",
    mean: float | Sequence[float] | None = None,
    deviation: float | Sequence[float] | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """ResNet (He et al., arXiv:1512.03385) with the activation after the sum.

    With the small stem, a 3 x 3 convolution, the networks that CIFAR-10 comparisons of robustness call ResNet-18 and
    ResNet-50; with the large one torchvision's of ImageNet, whose bottlenecks have their strides in the 3 x 3
    convolution (unlike those of `keras.applications`). 11,173,962 parameters besides moving statistics at depth 18 with
    the small stem and 10 classes, 25,557,032 at depth 50 with the large one and 1,000.

    At depths 20, 32, 44 and 56 the paper's own networks for CIFAR-10 (section 4.2): three stages, and shortcuts without
    weights that take every second pixel and have zeros in their new channels (option A); 269,722 parameters at depth 20.

    Args:
        input_shape: image shape (height, width, channels), sides divisible by 8 (by 4 with three stages), and by four
            times that with the large stem.
        num_classes: number of logits.
        depth: 18 (default), 34 or 50; 20, 32, 44 or 56.
        width: filters of the first stage, >= 1; None (default) for 64, or 16 with three stages.
        stem: "small" (default), or "large" for a 7 x 7 convolution with strides and a max pooling.
        mean: of all channels or of each, subtracted inside; None (default) for pixels as they are.
        deviation: of all channels or of each, that it is divided by; with `mean`.
        synchronized: see `preact_resnet`.

    Raises:
        ValueError: another depth or stem, a width below 1, sides that the strides do not divide, or a normalisation that there is not.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"depth must be one of {tuple(_BLOCKS)}, got {depth!r}.")
    blocks, bottleneck = _BLOCKS[depth], depth == _BOTTLENECK
    projects = len(blocks) > 3
    if width is None:
        width = 64 if projects else 16
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width!r}.")
    divisor = 2 ** (len(blocks) - 1) * (4 if stem == "large" else 1)
    if stem not in ("small", "large"):
        raise ValueError(f"stem must be 'small' or 'large', got {stem!r}.")
    check_sides(input_shape, divisor)

    def convolved(
        x: keras.KerasTensor, filters: int, size: int, strides: int, name: str, *, relu: bool = True
    ) -> keras.KerasTensor:
        x = convolution(x, filters, size, strides, name=name)
        x = batch_normalisation(x, synchronized=synchronized, name=f"{name}_norm")
        return layers.ReLU(name=f"{name}_activation")(x) if relu else x

    inputs = keras.Input(input_shape)
    x = normalised(inputs, mean, deviation)
    if stem == "small":
        x = convolved(x, width, 3, 1, "stem")
    else:
        x = convolved(x, width, 7, 2, "stem")
        # Zeros, since no value is below them after the activation.
        x = layers.ZeroPadding2D(1, name="stem_border2")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for stage, count in enumerate(blocks):
        inside = width * 2**stage
        filters = inside * _EXPANSION if bottleneck else inside
        for block in range(count):
            name, strides = f"stage{stage}_block{block}", 2 if stage > 0 and block == 0 else 1
            shortcut = x
            if strides > 1 or x.shape[-1] != filters:
                if projects:
                    shortcut = convolved(x, filters, 1, strides, f"{name}_shortcut", relu=False)
                else:
                    shortcut = more_channels(layers.MaxPooling2D(1, strides)(x), filters)
            if bottleneck:
                x = convolved(x, inside, 1, 1, f"{name}_conv0")
                x = convolved(x, inside, 3, strides, f"{name}_conv1")
                x = convolved(x, filters, 1, 1, f"{name}_conv2", relu=False)
            else:
                x = convolved(x, inside, 3, strides, f"{name}_conv0")
                x = convolved(x, inside, 3, 1, f"{name}_conv1", relu=False)
            x = layers.ReLU(name=f"{name}_activation")(
                layers.Add(name=f"{name}_sum")([x, shortcut])
            )
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="resnet")
