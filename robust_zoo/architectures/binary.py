"""A dense layer whose weights have one size."""

from typing import Any, Self

import keras
from keras import ops

from robust_zoo.typing import Tensor


@keras.saving.register_keras_serializable("robust_zoo")
class BinaryDense(keras.layers.Dense):
    """A dense layer that computes with sign(w) * mean(abs(w)) in place of its kernel w.

    The gradient goes to w as if it were what is computed with (straight through), so that w can be trained
    (Galloway et al., arXiv:1804.03308; after Rastegari et al., arXiv:1603.05279). A weight of 0 stays 0. Arguments are
    those of `keras.layers.Dense`.
    """

    def call(self, inputs: Tensor) -> Tensor:
        kernel = self.kernel
        binary = ops.sign(kernel) * ops.mean(ops.abs(kernel))
        outputs = ops.matmul(inputs, kernel + ops.stop_gradient(binary - kernel))
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        # Newer versions of Keras say this of every dense layer, and older ones refuse it.
        return super().from_config(
            {key: value for key, value in config.items() if key != "quantization_config"}
        )
