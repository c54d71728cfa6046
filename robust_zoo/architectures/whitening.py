"""Contrast normalisation and whitening of images, inside the model."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from robust_zoo.typing import Tensor

_PART = 4096  # images whose covariance is added at once


@keras.saving.register_keras_serializable("robust_zoo")
class ZCAWhitening(keras.layers.Layer):
    """Global contrast normalisation, then ZCA whitening (Krizhevsky, 2009): fixed, and computed in float32.

    As MatConvNet's CIFAR-10 example prepares images, and so DeepDefense's networks got them. The mean image is
    subtracted. Of what is left each image loses its own mean, and is divided by its standard deviation (or
    `least_deviation`, where that is more) and multiplied by the average deviation. Then the part of it along each
    principal component is divided by the component's deviation (or `floor`) and multiplied by the root mean square of
    all components' deviations. Components below the floor all get the same factor, so that only the others are stored.

    Until `adapt` has seen images, or weights are loaded, only an image's own mean and deviation are taken out.

    Args:
        rank: how many principal components are stored, >= 1; exact if no more are above the floor.
        least_deviation: > 0, in [0, 1] pixel units; default 40 / 255.
        floor: > 0, in [0, 1] pixel units; default 10 / 255.
        **kwargs: of `keras.layers.Layer`, such as the name.
    """

    def __init__(
        self,
        rank: int,
        *,
        least_deviation: float = 40 / 255,
        floor: float = 10 / 255,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "trainable": False, "dtype": "float32"})
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise ValueError(f"rank must be an integer >= 1, got {rank!r}.")
        for name, value in (("least_deviation", least_deviation), ("floor", floor)):
            if not value > 0:
                raise ValueError(f"{name} must be > 0, got {value!r}.")
        self.rank, self.least_deviation, self.floor = rank, least_deviation, floor

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        size = math.prod(side or 0 for side in input_shape[1:])
        if self.rank > size:
            raise ValueError(
                f"rank must be at most {size}, the values of an image, got {self.rank}."
            )
        self.mean = self.add_weight(tuple(input_shape[1:]), "zeros", name="mean")
        self.deviation = self.add_weight((), "ones", name="deviation")
        self.basis = self.add_weight((size, self.rank), "zeros", name="basis")
        self.factors = self.add_weight((self.rank,), "ones", name="factors")
        self.factor = self.add_weight((), "ones", name="factor")  # of all other components

    def call(self, inputs: Tensor) -> Tensor:
        flat = ops.reshape(inputs - self.mean, (-1, self.basis.shape[0]))
        flat = self._contrast(flat) * self.deviation
        along = ops.matmul(flat, self.basis) * (self.factors - self.factor)
        whitened = self.factor * flat + ops.matmul(along, ops.transpose(self.basis))
        return ops.reshape(whitened, (-1, *inputs.shape[1:]))

    def _contrast(self, flat: Tensor) -> Tensor:
        """Images (n, values) without their mean, over their deviation."""
        flat = flat - ops.mean(flat, axis=1, keepdims=True)
        variance = ops.sum(ops.square(flat), axis=1, keepdims=True) / (flat.shape[1] - 1)
        return flat / ops.sqrt(ops.maximum(variance, self.least_deviation**2))

    def adapt(self, images: np.ndarray) -> None:
        """Computes the weights from images, float32 (n, height, width, channels) in [0, 1].

        Values of the basis are rounded to float16, in which they take half the room.
        """
        if not self.built:
            self.build((None, *images.shape[1:]))
        mean = images.mean(axis=0, dtype="float64").astype("float32")
        flat = (images - mean).reshape(len(images), -1)
        deviation = flat.std(axis=1, ddof=1).mean()
        covariance = np.zeros((flat.shape[1],) * 2)
        for first in range(0, len(flat), _PART):
            part = self._contrast(ops.convert_to_tensor(flat[first : first + _PART]))
            part = deviation * ops.convert_to_numpy(part).astype("float64")
            covariance += part.T @ part
        variances, vectors = np.linalg.eigh(covariance / len(flat))
        variances, vectors = variances[::-1].clip(min=0), vectors[:, ::-1]
        total = np.sqrt(variances.mean())
        factors = total / np.maximum(np.sqrt(variances[: self.rank]), self.floor)
        basis = vectors[:, : self.rank].astype("float16")
        self.set_weights([mean, deviation, basis, factors, np.asarray(total / self.floor)])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["trainable"], config["dtype"]
        own = {
            "rank": self.rank,
            "least_deviation": self.least_deviation,
            "floor": self.floor,
        }
        return {**config, **own}
