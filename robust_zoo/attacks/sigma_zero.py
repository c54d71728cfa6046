"""sigma-zero: few changed values, by a smooth count of them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import keras
from keras import ops

from robust_zoo.attacks.attack import MinimumNormAttack
from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.losses import CWMargin
from robust_zoo.attacks.norms import get_norm, over_images
from robust_zoo.attacks.schedules import cosine
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

_BETA_1, _BETA_2, _TINY = 0.9, 0.999, 1e-8  # Adam
_LAST_STEP = 0.1  # of the first


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class SigmaZero(MinimumNormAttack):
    """sigma-zero (Cina et al., arXiv:2402.01879, algorithm 1): adversarial examples of few changed values, l0.

    Adam minimises max(margin, 0) plus the mean over values of v^2 / (v^2 + sigma), a smooth count of those that change,
    along gradients whose largest entry is 1. After each step changes below a threshold are undone; it rises while the
    candidate is adversarial and falls while it is not. Counted are values, the channels of a pixel each.

    Attributes:
        steps: iterations, one gradient each, >= 1; default 1000.
        step_size: Adam's learning rate at first, > 0, default 1; at last a tenth of it.
        sigma: how smooth the count is, > 0; default 1e-3.
        threshold: below which changes are undone, at first, in (0, 1]; default 0.3.
        threshold_step: change of the threshold in a step, in units of the learning rate, > 0; default 0.01.

    Example:
        >>> SigmaZero(steps=200).run(model, x, y)
        AttackResult(n=12, success=1.0000, max_distance=..., seconds=...)
    """

    norm: str = "l0"
    steps: int = 1000
    step_size: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01

    norms: ClassVar = ("l0",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("step_size", "sigma", "threshold_step"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be > 0 and finite, got {value!r}.")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must lie in (0, 1], got {self.threshold!r}.")

    @property
    def stop_distance(self) -> float:
        return 1.0  # nothing is closer than one value

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        return {
            "x_adv": x,
            "labels": y,
            "done": ops.zeros_like(y),
            "first_moment": ops.zeros_like(x),
            "second_moment": ops.zeros_like(x),
            "threshold": ops.cast(ops.zeros_like(y), "float32") + self.threshold,
        }

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        per_image = tuple(range(1, len(x.shape)))
        margin = CWMargin()

        def objective(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(model, x_adv)
            squares = ops.square(x_adv - x)
            count = ops.mean(squares / (squares + self.sigma), axis=per_image)
            return count - margin(logits, state["labels"]), logits

        (_, logits), gradient = value_and_input_gradient(
            model, objective, state["x_adv"], has_aux=True
        )
        gradient = gradient / ops.maximum(get_norm("linf").length(gradient), 1e-12)
        done = state["done"]
        exponent = over_images(ops.cast(done + 1, "float32"), x)
        first = _BETA_1 * state["first_moment"] + (1 - _BETA_1) * gradient
        second = _BETA_2 * state["second_moment"] + (1 - _BETA_2) * ops.square(gradient)
        mean = first / (1 - _BETA_1**exponent)
        spread = ops.sqrt(second / (1 - _BETA_2**exponent))
        rate = cosine(done, self.steps, self.step_size, _LAST_STEP * self.step_size)
        x_adv = state["x_adv"] - over_images(rate, x) * mean / (spread + _TINY)
        x_adv = ops.clip(x_adv, 0.0, 1.0)

        fooled = self.succeeded(logits, state["labels"])
        change = ops.where(fooled, self.threshold_step, -self.threshold_step) * rate
        threshold = ops.clip(state["threshold"] + change, 0.0, 1.0)
        x_adv = ops.where(ops.abs(x_adv - x) < over_images(threshold, x), x, x_adv)
        state = {
            **state,
            "x_adv": x_adv,
            "done": done + 1,
            "first_moment": first,
            "second_moment": second,
            "threshold": threshold,
        }
        return state, logits
