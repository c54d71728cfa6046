"""Logistic regression as a two-class network."""

import keras
from keras import layers


def logistic(input_shape=(28, 28, 1), *, use_bias: bool = False) -> keras.Model:
    """Logistic regression with the two logits 0 and z = w . x (Galloway et al., arXiv:1804.03308).

    Softmax over (0, z) is (1 - sigmoid(z), sigmoid(z)), so that two-class attacks and losses apply.

    Args:
        input_shape: image shape (height, width, channels).
        use_bias: whether z has a bias; the authors' code has none, their text writes one.
    """
    inputs = keras.Input(input_shape)
    z = layers.Dense(1, use_bias=use_bias, dtype="float32", name="z")(layers.Flatten()(inputs))
    padded = layers.ZeroPadding1D((1, 0), dtype="float32")(layers.Reshape((1, 1))(z))
    outputs = layers.Flatten(dtype="float32", name="logits")(padded)
    return keras.Model(inputs, outputs, name="logistic")
