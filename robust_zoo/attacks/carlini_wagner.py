"""Carlini and Wagner's L2 attack."""

import math
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from robust_zoo.attacks.attack import MinimumNormAttack
from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.losses import CWMargin, unit_of
from robust_zoo.attacks.norms import over_images
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

_SMOOTH = 0.999999  # keeps the inverse of tanh finite at 0 and 1
_BETA_1, _BETA_2, _TINY = 0.9, 0.999, 1e-8  # Adam
_PROGRESS = 0.9999  # what a tenth of the steps must lower the loss to
_LARGEST = 1e10


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class CarliniWagner(MinimumNormAttack):
    """Carlini and Wagner's L2 attack (arXiv:1608.04644, section VI), with the defaults of their code.

    Adam minimises ||x_adv - x||^2 + c max(z_y - max_{j != y} z_j + confidence, 0) over w, where x_adv is
    (tanh w + 1) / 2; c is found by binary search. Each image has its own search: it goes on to its next c as soon as
    its own loss stops falling, and is finished after its last. The constants are meant for usual logits: where an
    image's logits span less than 0.1 or more than 1000, they are multiplied by the power of ten that brings the span to
    about 10.

    Attributes:
        steps: most Adam steps for each constant, >= 1; default 10,000.
        binary_search_steps: constants tried, >= 1; default 9.
        initial_constant: the first c, > 0, default 1e-3; times 10 until it is large enough, then bisected.
        step_size: Adam's learning rate, > 0; default 1e-2.
        confidence: margin in logits that an adversarial example must have, >= 0; default 0.
        abort_early: whether to give up a constant when a tenth of the steps has not lowered the loss; default True.

    Example:
        >>> CarliniWagner(steps=1000).run(model, x, y)
        AttackResult(n=12, success=1.0000, max_distance=..., seconds=...)
    """

    norm: str = "l2"
    steps: int = 10_000
    binary_search_steps: int = 9
    initial_constant: float = 1e-3
    step_size: float = 1e-2
    confidence: float = 0.0
    abort_early: bool = True

    norms: ClassVar = ("l2",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.binary_search_steps < 1:
            raise ValueError(
                f"binary_search_steps must be an integer >= 1, got {self.binary_search_steps!r}."
            )
        for name in ("initial_constant", "step_size"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be > 0 and finite, got {value!r}.")
        if not self.confidence >= 0:
            raise ValueError(f"confidence must be >= 0, got {self.confidence!r}.")

    @property
    def stop_distance(self) -> float:
        return 0.0

    def steps_on(self, image_shape: tuple[int, ...]) -> int:
        return self.steps * self.binary_search_steps

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        def full(value: float) -> Tensor:
            return ops.cast(ops.zeros_like(y), "float32") + value

        w = ops.arctanh((2 * x - 1) * _SMOOTH)
        logits = logits_of(model, x)
        return {
            "unit": unit_of(logits),
            "x_adv": (ops.tanh(w) + 1) / 2,
            "labels": y,
            "w": w,
            "first_moment": ops.zeros_like(x),
            "second_moment": ops.zeros_like(x),
            "done": ops.zeros_like(y),  # steps with this constant
            "search": ops.zeros_like(y),  # constants before it
            "constant": full(self.initial_constant),
            "lower": full(0.0),
            "upper": full(np.inf),
            "reached": ops.zeros_like(y, dtype="bool"),  # whether this constant was large enough
            "loss_then": full(np.inf),  # at the last look at the progress
            "finished": ops.zeros_like(y, dtype="bool"),
        }

    def succeeded(self, logits: Tensor, y: Tensor) -> Tensor:
        if not self.confidence:
            return super().succeeded(logits, y)
        handicap = self.confidence * ops.one_hot(y, logits.shape[1], dtype=logits.dtype)
        return super().succeeded(logits + handicap, y)

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        per_image = tuple(range(1, len(x.shape)))
        origin = (ops.tanh(ops.arctanh((2 * x - 1) * _SMOOTH)) + 1) / 2
        margin = CWMargin(confidence=self.confidence)

        def objective(w: Tensor) -> tuple[Tensor, Tensor]:
            x_adv = (ops.tanh(w) + 1) / 2
            logits = logits_of(model, x_adv)
            # CWMargin is to be raised and has the floor -confidence.
            excess = state["unit"] * (self.confidence - margin(logits, state["labels"]))
            distance = ops.sum(ops.square(x_adv - origin), axis=per_image)
            return distance + state["constant"] * excess, logits

        (loss, logits), gradient = value_and_input_gradient(
            model, objective, state["w"], has_aux=True
        )
        done = state["done"] + 1
        exponent = over_images(ops.cast(done, "float32"), x)
        first = _BETA_1 * state["first_moment"] + (1 - _BETA_1) * gradient
        second = _BETA_2 * state["second_moment"] + (1 - _BETA_2) * ops.square(gradient)
        mean = first / (1 - _BETA_1**exponent)
        spread = ops.sqrt(second / (1 - _BETA_2**exponent))
        w = state["w"] - self.step_size * mean / (spread + _TINY)

        reached = ops.logical_or(state["reached"], self.succeeded(logits, state["labels"]))
        over = done == self.steps
        loss_then = state["loss_then"]
        if self.abort_early:
            look = (done - 1) % math.ceil(self.steps / 10) == 0
            stuck = ops.logical_not(loss <= _PROGRESS * loss_then)
            over = ops.logical_or(over, ops.logical_and(look, stuck))
            loss_then = ops.where(look, loss, loss_then)

        # Images that are over begin again with their next constant.
        constant, lower, upper = state["constant"], state["lower"], state["upper"]
        upper = ops.where(ops.logical_and(over, reached), constant, upper)
        lower = ops.where(ops.logical_and(over, ops.logical_not(reached)), constant, lower)
        bounded = ops.isfinite(upper)
        middle = ops.where(bounded, (lower + ops.where(bounded, upper, 0.0)) / 2, constant * 10)
        search = state["search"] + ops.cast(over, "int32")
        if self.binary_search_steps >= 10:  # the last constant is the smallest that is known to do
            last = search == self.binary_search_steps - 1
            middle = ops.where(last, ops.minimum(upper, _LARGEST), middle)

        def again(fresh: Tensor | float, going: Tensor) -> Tensor:
            return ops.where(over_images(over, x), fresh, going)

        w = again(ops.arctanh((2 * x - 1) * _SMOOTH), w)
        state = {
            **state,
            "x_adv": (ops.tanh(w) + 1) / 2,
            "w": w,
            "first_moment": again(0.0, first),
            "second_moment": again(0.0, second),
            "done": ops.where(over, 0, done),
            "search": search,
            "constant": ops.where(over, middle, constant),
            "lower": lower,
            "upper": upper,
            "reached": ops.logical_and(reached, ops.logical_not(over)),
            "loss_then": ops.where(over, np.inf, loss_then),
            "finished": search >= self.binary_search_steps,
        }
        return state, logits
