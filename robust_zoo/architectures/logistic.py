"""Logistic regression as a two-class network."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from robust_zoo.architectures.binary import BinaryDense


def logistic(
    input_shape: Sequence[int] = (28, 28, 1),
    *,
    use_bias: bool = False,
    binary: bool = False,
    expert: tuple[np.ndarray, np.ndarray] | None = None,
) -> keras.Model:
    """Logistic regression with the two logits 0 and z = w . x (Galloway et al., arXiv:1804.03308).

    Softmax over (0, z) is (1 - sigmoid(z), sigmoid(z)), so that two-class attacks and losses apply.

    Args:
        input_shape: image shape (height, width, channels).
        use_bias: whether z has a bias; the authors' code has none, their text writes one.
        binary: whether w is computed with as sign(w) * mean(abs(w)), see `BinaryDense`; False by default.
        expert: images (n, height, width, channels) and labels (n,), 0 or 1, of which the initial w is made:
            the mean image of class 1 less that of class 0, the paper's expert initialisation.

    Raises:
        ValueError: labels of `expert` that are not 0 and 1.
    """
    inputs = keras.Input(input_shape)
    start = keras.initializers.TruncatedNormal(stddev=0.1)
    kind = BinaryDense if binary else layers.Dense
    dense = kind(1, use_bias=use_bias, kernel_initializer=start, dtype="float32", name="z")
    z = dense(layers.Flatten()(inputs))
    padded = layers.ZeroPadding1D((1, 0), dtype="float32")(layers.Reshape((1, 1))(z))
    outputs = layers.Flatten(dtype="float32", name="logits")(padded)
    model = keras.Model(inputs, outputs, name="logistic")
    if expert is not None:
        images, labels = expert
        found = np.unique(labels).tolist()
        if found != [0, 1]:
            raise ValueError(f"expert must hold labels 0 and 1, got {found}.")
        means = [images[labels == label].mean(axis=0) for label in (0, 1)]
        model.get_layer("z").kernel.assign((means[1] - means[0]).reshape(-1, 1))
    return model
