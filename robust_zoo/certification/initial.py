"""Initial weights from which bounds can be trained."""

import math

import keras
import numpy as np

from robust_zoo.layers import layers_in_order


def initialise_for_bounds(model: keras.Model, seed: int = 0) -> keras.Model:
    """Draws kernels so that intervals neither widen nor narrow from layer to layer (Shi et al., arXiv:2103.17268, 3.1).

    Normal numbers of deviation sqrt(2 pi) / n of n inputs, for every dense and convolutional layer but the last, so that
    the absolute weights of n inputs add up to 2, of which a ReLU keeps half. Others' weights stay.

    Args:
        model: changed in place.
        seed: integer seed.

    Returns:
        The model.
    """
    kinds = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    *found, _ = (layer for layer in layers_in_order(model) if isinstance(layer, kinds))
    rng = np.random.default_rng(seed)
    for layer in found:
        shape = layer.kernel.shape
        deviation = math.sqrt(2 * math.pi) / math.prod(shape[:-1])
        layer.kernel.assign(rng.normal(scale=deviation, size=shape).astype("float32"))
    return model
