"""Activations: those of Kurakin et al. 2017, Appendix D (arXiv:1611.01236), SiLU and GELU."""

from typing import Any

import keras
from keras import ops

from robust_zoo.typing import Tensor

ACTIVATIONS = ("relu", "relu6", "silu", "gelu", "tanh", "elu")


@keras.saving.register_keras_serializable("robust_zoo")
class ReluDecay(keras.layers.Layer):
    """relu(x) / (1 + beta * relu(x)**2): rises like relu, then decays (arXiv:1611.01236, Appendix D).

    Args:
        beta: decay rate, > 0; the paper uses 0.1, 0.01 and 0.001.
    """

    def __init__(self, beta: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not beta > 0:
            raise ValueError(f"beta must be > 0, got {beta!r}.")
        self.beta = beta

    def call(self, inputs: Tensor) -> Tensor:
        rectified = ops.relu(inputs)
        return rectified / (1.0 + self.beta * ops.square(rectified))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta}


def activation_layer(activation: "str | ReluDecay", name: str | None = None) -> keras.layers.Layer:
    """A new layer for "relu", "relu6", "silu", "gelu", "tanh", "elu" or a `ReluDecay` (copied: a layer is used once)."""
    if isinstance(activation, ReluDecay):
        return ReluDecay(activation.beta, name=name)
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {ACTIVATIONS} or a ReluDecay, got {activation!r}."
        )
    return keras.layers.Activation(activation, name=name)
