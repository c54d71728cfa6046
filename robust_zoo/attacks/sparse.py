"""Attacks that change few values as far as they go: random swaps, and the extreme weights of a linear model."""

import math
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from robust_zoo.attacks.attack import FixedBudgetAttack
from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.losses import CrossEntropy
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class SparseAttack(FixedBudgetAttack):
    """One candidate that differs from the image in at most `epsilon` values (channels of pixels)."""

    norm: str = "l0"

    norms: ClassVar = ("l0",)
    steps: ClassVar = 0

    def __call__(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor | None = None,
        *,
        key: Tensor,
        epsilon: Tensor | float | None = None,
    ) -> Tensor:
        if epsilon is not None:
            raise ValueError(
                f"epsilon cannot be changed in a call of {type(self).__name__}: make another attack."
            )
        return super().__call__(model, x, y, key=key)

    def loss_value(self, logits: Tensor, state: AttackState) -> Tensor:
        return CrossEntropy()(logits, state["labels"])


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class PixelSwap(SparseAttack):
    """Random pixel swapping (Galloway et al., arXiv:1804.03308, figures 11 and 12).

    Under one random order P of all d values, the same for every image, value P[d - 1 - j] is copied into
    P[j] for each j below epsilon. Up to d / 2 these are copies; each further j completes one swap, and epsilon = d
    swaps every pair. The paper's swap ratio is epsilon / d.

    Attributes:
        permutation: seed of the order.
    """

    permutation: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.permutation < 0:
            raise ValueError(f"permutation must be an integer >= 0, got {self.permutation!r}.")

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        size = math.prod(x.shape[1:])
        order = np.random.default_rng(self.permutation).permutation(size)
        source = np.arange(size)
        count = int(self.epsilon)
        source[order[:count]] = order[::-1][:count]
        values = ops.reshape(x, (ops.shape(x)[0], size))
        swapped = ops.take(values, source.astype("int32"), axis=1)
        return {"x_adv": ops.reshape(swapped, ops.shape(x)), "labels": y}


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class ExtremeWeights(SparseAttack):
    """The L0 attack on a linear two-class model (Galloway et al., arXiv:1804.03308, section 3).

    The epsilon / 2 values of largest weight and the epsilon / 2 of smallest become 1 in every image, its
    label unseen.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon % 2:
            raise ValueError(
                f"epsilon must be even, half of it at either end of the weights, got {self.epsilon!r}."
            )

    def check_model(self, model: keras.Model) -> None:
        """Raises ValueError unless the model has two classes and the same gradient on black, grey and white images."""
        if model.output_shape[1] != 2:
            raise ValueError(
                f"ExtremeWeights needs a linear model of 2 classes, got {model.output_shape[1]} classes."
            )
        shape = [side or 1 for side in model.input_shape[1:]]
        ends = np.stack([np.zeros(shape), np.full(shape, 0.5), np.ones(shape)]).astype("float32")
        weights = ops.convert_to_numpy(_weights(model, ops.convert_to_tensor(ends)))
        if np.ptp(weights, axis=0).max() > 1e-5 * np.abs(weights).max():
            raise ValueError(
                f"ExtremeWeights needs a linear model, but the gradient of {model.name!r} depends on the image."
            )

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        size, half = math.prod(x.shape[1:]), int(self.epsilon) // 2
        weights = ops.reshape(_weights(model, x), (ops.shape(x)[0], size))
        rank = ops.argsort(ops.argsort(weights, axis=1), axis=1)
        extreme = ops.logical_or(rank < half, rank >= size - half)
        x_adv = ops.where(ops.reshape(extreme, ops.shape(x)), 1.0, x)
        return {"x_adv": x_adv, "labels": y}


def _weights(model: keras.Model, x: Tensor) -> Tensor:
    def gap(x: Tensor) -> Tensor:
        logits = logits_of(model, x)
        return logits[:, 1] - logits[:, 0]

    return value_and_input_gradient(model, gap, x)[1]
