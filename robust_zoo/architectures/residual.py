"""What residual networks are made of: convolutions padded as they were trained, batch normalisation, normalised inputs."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from robust_zoo.architectures.activations import ReluDecay, activation_layer

BORDERS = ("all", "end")


def check_sides(input_shape: Sequence[int | None], divisor: int) -> None:
    """Raises ValueError for sides of an image that all strides together do not divide."""
    if any(side is not None and side % divisor for side in input_shape[:2]):
        raise ValueError(
            f"input_shape must have sides divisible by {divisor}, got {tuple(input_shape)}."
        )


def normalised(
    x: keras.KerasTensor,
    mean: float | Sequence[float] | None,
    deviation: float | Sequence[float] | None,
) -> keras.KerasTensor:
    """Images less a mean, over a deviation, of all channels or of each; in float32. As they are if both are None.

    Raises:
        ValueError: one without the other, another number of values than channels, or deviations not above 0.
    """
    if mean is None and deviation is None:
        return x
    channels = x.shape[-1]
    values = [np.ravel(part) for part in (mean, deviation) if part is not None]
    if len(values) < 2 or any(len(part) not in (1, channels) for part in values):
        raise ValueError(
            f"mean and deviation must both be None, or a number or {channels} numbers each, got {mean!r} and "
            f"{deviation!r}."
        )
    if not (
        np.isfinite(values[0]).all() and np.isfinite(values[1]).all() and (values[1] > 0).all()
    ):
        raise ValueError(
            f"mean must be finite, and deviation must be above 0 and finite, got {mean!r} and {deviation!r}."
        )
    scale, offset = (1 / values[1]).tolist(), (-values[0] / values[1]).tolist()
    if max(len(scale), len(offset)) == 1:
        scale, offset = scale[0], offset[0]
    return layers.Rescaling(scale, offset, dtype="float32", name="normalisation")(x)


def convolution(
    x: keras.KerasTensor,
    filters: int,
    size: int,
    strides: int = 1,
    *,
    border: str = "all",
    bias: bool = False,
    dtype: str | None = None,
    name: str,
) -> keras.KerasTensor:
    """A convolution whose outputs are a `strides`-th of its inputs, which it pads with zeros.

    Args:
        x: of even sides where it has strides.
        filters: of the convolution.
        size: of the kernel, odd.
        strides: in both directions.
        border: with strides, where the zeros are: "all" sides alike, as PyTorch's padding has them, or as many as are
            needed at the "end", as TensorFlow's "same" has them. Without strides both are the same.
        bias: whether it has one.
        dtype: that it computes in; by default that of the dtype policy.
        name: of the layer.
    """
    padding = "same"
    if strides > 1 and size > 1 and border == "all":
        x, padding = layers.ZeroPadding2D(size // 2, name=f"{name}_border")(x), "valid"
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding,
        use_bias=bias,
        dtype=dtype,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def batch_normalisation(
    x: keras.KerasTensor, *, synchronized: bool, name: str
) -> keras.KerasTensor:
    """With PyTorch's defaults."""
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=synchronized, name=name
    )(x)


def activated(
    x: keras.KerasTensor, activation: str | ReluDecay, *, synchronized: bool, name: str
) -> keras.KerasTensor:
    """Batch normalisation, then an activation."""
    x = batch_normalisation(x, synchronized=synchronized, name=name)
    return activation_layer(activation, name=f"{name}_activation")(x)


def more_channels(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Zeros in new channels, as many before those of `x` as behind them: of a shortcut without weights."""
    missing = filters - x.shape[-1]
    if not missing:
        return x
    x = layers.Permute((1, 3, 2))(x)
    x = layers.ZeroPadding2D(((0, 0), (missing // 2, missing - missing // 2)))(x)
    return layers.Permute((1, 3, 2))(x)
