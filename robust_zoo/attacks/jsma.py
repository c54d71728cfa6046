"""Jacobian saliency map attack."""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks.attack import MinimumNormAttack
from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.losses import at, unit_of
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

OUTPUTS = ("probabilities", "logits")
_BLOCK = 2**22  # pairs looked at in one go, over the whole batch


def best_pair(target: Tensor, others: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pair of values with the largest saliency -(t_p + t_q)(o_p + o_q), where t > 0 and o < 0.

    Every pair is looked at, some rows of the pair matrix at a time.

    Args:
        target: float32 (batch, d), derivative of the target class's output t.
        others: float32 (batch, d), of the sum of all other outputs o.
        allowed: bool (batch, d), which values may still change.

    Returns:
        Two int32 (batch,) indices and bool (batch,), whether there is such a pair.
    """
    d = target.shape[1]
    rows = max(1, min(d, _BLOCK // (128 * d)))
    blocks = -(-d // rows)
    padded = blocks * rows
    columns = ops.arange(d, dtype="int32")

    def pad(values: Tensor) -> Tensor:
        return ops.pad(values, ((0, 0), (0, padded - d)))

    target_rows, others_rows = pad(target), pad(others)
    allowed_rows = pad(ops.cast(allowed, "float32"))
    batch = ops.shape(target)[0]

    def block(number: Tensor, best: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        score, first, second = best
        index = number * rows + ops.arange(rows, dtype="int32")
        t = ops.take(target_rows, index, axis=1)[:, :, None] + target[:, None]
        o = ops.take(others_rows, index, axis=1)[:, :, None] + others[:, None]
        # Each pair once, and no value with itself.
        usable = ops.logical_and(index[:, None] < columns, allowed[:, None])
        usable = ops.logical_and(usable, ops.take(allowed_rows, index, axis=1)[:, :, None] > 0)
        usable = ops.logical_and(usable, ops.logical_and(t > 0, o < 0))
        flat = ops.reshape(ops.where(usable, -t * o, 0.0), (batch, rows * d))
        here = ops.cast(ops.argmax(flat, axis=1), "int32")
        value = ops.max(flat, axis=1)
        better = value > score
        return (
            ops.maximum(value, score),
            ops.where(better, number * rows + here // d, first),
            ops.where(better, here % d, second),
        )

    nothing = ops.cast(ops.sum(ops.zeros_like(target), axis=1), "float32")
    zero = ops.cast(nothing, "int32")
    score, first, second = ops.fori_loop(0, blocks, block, (nothing, zero, zero))
    return first, second, score > 0


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class JSMA(MinimumNormAttack):
    """Jacobian saliency map attack (Papernot et al., arXiv:1511.07528, algorithms 1 and 3).

    Each step changes the two values (channels of pixels) of the highest saliency by theta, towards a
    target class. `run` targets every other class in turn and keeps the result with the fewest changes. Where an image's
    logits span less than 0.1 or more than 1000, the probabilities are those of logits multiplied by the power of ten
    that brings the span to about 10.

    Attributes:
        theta: change of a value, in [-1, 1] and not 0; default 1, which sets it to white.
        gamma: largest share of an image's d values that may change, in (0, 1], default 0.1: gamma d / 2 steps, rounded
            down, which must be at least one.
        output: whose Jacobian is taken: "probabilities" (default), as in Galloway et al. (arXiv:1804.03308), or
            "logits", which cannot saturate.
        targeted: whether the labels given are the targets, instead of every class but the label; default False.
    """

    norm: str = "l0"
    theta: float = 1.0
    gamma: float = 0.1
    output: str = "probabilities"
    targeted: bool = False

    norms: ClassVar = ("l0",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.theta != 0 and abs(self.theta) <= 1):
            raise ValueError(f"theta must lie in [-1, 1] and not be 0, got {self.theta!r}.")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must lie in (0, 1], got {self.gamma!r}.")
        if self.output not in OUTPUTS:
            raise ValueError(f"output must be one of {OUTPUTS}, got {self.output!r}.")

    @property
    def reaches_given_labels(self) -> bool:
        return self.targeted

    def passes_on(self, model: keras.Model) -> int:
        return 1 if self.output == "probabilities" else 2

    @property
    def stop_distance(self) -> float:
        return 0.0

    def attempts_on(self, model: keras.Model) -> int:
        return 1 if self.targeted else model.output_shape[1] - 1

    def steps_on(self, image_shape: tuple[int, ...]) -> int:
        return int(math.prod(image_shape) * self.gamma / 2 + 1e-9)

    def template(self) -> Self:
        return self.replace(gamma=1.0)

    def check_shape(self, image_shape: tuple[int, ...]) -> None:
        if self.steps_on(image_shape) < 1:
            raise ValueError(
                f"gamma must let two values change, at least {2 / math.prod(image_shape):.6g} for images of "
                f"shape {image_shape}, got {self.gamma!r}."
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
        targets = y if self.targeted else (y + 1 + attempt) % model.output_shape[1]
        finished = ops.zeros_like(y, dtype="bool")
        state = {"x_adv": x, "labels": y, "targets": targets, "finished": finished}
        if self.output == "probabilities":
            state["unit"] = unit_of(logits_of(model, x))
        return state

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        x_adv = state["x_adv"]
        batch, d = ops.shape(x)[0], math.prod(x.shape[1:])
        values = ops.reshape(x_adv, (batch, d))
        allowed = values < 1 if self.theta > 0 else values > 0
        if self.output == "probabilities":
            pair = self._pair_of_probabilities(
                model, x_adv, state["targets"], allowed, state["unit"]
            )
        else:
            pair = self._pair_of_logits(model, x_adv, state["targets"], allowed)
        logits, first, second, found = pair
        finished = ops.logical_or(state["finished"], self.succeeded(logits, state["labels"]))
        finished = ops.logical_or(finished, ops.logical_not(found))
        pair = ops.one_hot(first, d, dtype="float32") + ops.one_hot(second, d, dtype="float32")
        moved = ops.clip(values + self.theta * pair, 0.0, 1.0)
        moved = ops.where(finished[:, None], values, moved)
        state = {**state, "x_adv": ops.reshape(moved, ops.shape(x)), "finished": finished}
        return state, logits

    @property
    def _sign(self) -> float:
        """Values that fall have the saliency of their negative."""
        return math.copysign(1.0, self.theta)

    def _pair_of_probabilities(
        self, model: keras.Model, x_adv: Tensor, targets: Tensor, allowed: Tensor, unit: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Probabilities sum to 1, so that o = -t and the best pair has the two largest t.

        Logits of an unusual scale are brought to the usual one first (see `unit_of`): a softmax of very large ones
        has no gradient.
        """

        def probability(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(model, x_adv)
            p = ops.softmax(logits * unit[:, None], axis=1)
            return at(p, targets), logits

        (_, logits), gradient = value_and_input_gradient(model, probability, x_adv, has_aux=True)
        t = self._sign * ops.reshape(gradient, (ops.shape(x_adv)[0], -1))
        largest, pair = ops.top_k(ops.where(allowed, t, -np.inf), 2)
        return logits, pair[:, 0], pair[:, 1], ops.sum(largest, axis=1) > 0

    def _pair_of_logits(
        self, model: keras.Model, x_adv: Tensor, targets: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        def target_and_others(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(model, x_adv)
            own = at(logits, targets)[:, None]
            others = ops.sum(logits, axis=1, keepdims=True) - own
            return ops.concatenate([own, others], axis=1), logits

        (_, logits), jacobian = backend.input_jacobian(target_and_others, x_adv, has_aux=True)
        shape = (ops.shape(x_adv)[0], 2, math.prod(x_adv.shape[1:]))
        rows = self._sign * ops.reshape(jacobian, shape)
        return logits, *best_pair(rows[:, 0], rows[:, 1], allowed)
