"""DDN: decoupled direction and norm."""

import math
from dataclasses import dataclass
from typing import ClassVar

import keras
from keras import ops

from robust_zoo.attacks.attack import MinimumNormAttack
from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.losses import CrossEntropy
from robust_zoo.attacks.norms import over_images
from robust_zoo.attacks.schedules import cosine
from robust_zoo.attacks.state import AttackState
from robust_zoo.backend import random
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

_LAST_STEP = 0.01  # the first is 1


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class DDN(MinimumNormAttack):
    """Decoupled direction and norm (Rony et al., arXiv:1811.09600, algorithm 1).

    Each step follows the gradient of cross-entropy, of unit length, and is then put onto a sphere around the image, whose
    radius shrinks by gamma if the candidate was adversarial and grows by gamma if not.

    Attributes:
        steps: iterations, one gradient each, >= 1; default 100.
        gamma: by which share the radius changes, in (0, 1); default 0.05.
        initial_epsilon: first radius, > 0; default 1.
        levels: candidates are rounded to so many levels, 256 for 8-bit images, >= 2; 0 (default) does not round.

    Example:
        >>> DDN(steps=50).run(model, x, y)
        AttackResult(n=12, success=1.0000, max_distance=..., seconds=...)
    """

    norm: str = "l2"
    steps: int = 100
    gamma: float = 0.05
    initial_epsilon: float = 1.0
    levels: int = 0

    norms: ClassVar = ("l2",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must lie in (0, 1), got {self.gamma!r}.")
        if not (self.initial_epsilon > 0 and math.isfinite(self.initial_epsilon)):
            raise ValueError(
                f"initial_epsilon must be > 0 and finite, got {self.initial_epsilon!r}."
            )
        if self.levels < 0 or self.levels == 1:
            raise ValueError(f"levels must be 0 or an integer >= 2, got {self.levels!r}.")

    @property
    def stop_distance(self) -> float:
        return 0.0

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        noise = random.normal(keys, x.shape[1:])
        return {
            "x_adv": x,
            "labels": y,
            "done": ops.zeros_like(y),
            "epsilon": ops.cast(ops.zeros_like(y), "float32") + self.initial_epsilon,
            "spare": self.geometry.direction(noise),  # where there is no gradient
        }

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        loss, x_adv = CrossEntropy(), state["x_adv"]

        def ascended(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(model, x_adv)
            return loss(logits, state["labels"]), logits

        (_, logits), gradient = value_and_input_gradient(model, ascended, x_adv, has_aux=True)
        direction = self.geometry.direction(gradient)
        direction = ops.where(self.geometry.length(direction) > 0, direction, state["spare"])
        step_size = cosine(state["done"], self.steps, 1.0, _LAST_STEP)
        change = x_adv - x + over_images(step_size, x) * direction

        fooled = self.succeeded(logits, state["labels"])
        radius = state["epsilon"] * ops.where(fooled, 1 - self.gamma, 1 + self.gamma)
        farthest = self.geometry.length(ops.maximum(x, 1 - x))
        radius = ops.minimum(radius, ops.reshape(farthest, (-1,)))
        length = ops.maximum(self.geometry.length(change), 1e-12)
        moved = ops.clip(x + change * over_images(radius, x) / length, 0.0, 1.0)
        if self.levels:
            moved = ops.round(moved * (self.levels - 1)) / (self.levels - 1)
        return {**state, "x_adv": moved, "done": state["done"] + 1, "epsilon": radius}, logits
