"""FMN: fast minimum-norm attacks."""

import math
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from robust_zoo.attacks.attack import MinimumNormAttack
from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.losses import CWMargin
from robust_zoo.attacks.norms import DUAL, get_norm, over_images
from robust_zoo.attacks.schedules import cosine
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

_LAST_GAMMA = 0.001
_BEYOND = (
    1.001  # of the distance to a linearised boundary, since a candidate on it is not adversarial
)


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class FMN(MinimumNormAttack):
    """Fast minimum-norm attack (Pintor et al., arXiv:2102.12827, algorithm 1) for four norms.

    Each step follows the gradient of the margin of logits, of unit l2 length, and is then projected to a ball around the
    image. Its radius is the distance to the linearised boundary (and a thousandth of it more, which the paper does not
    have) until an adversarial example is found; then it shrinks while the candidate is adversarial and grows while it is
    not, by a share that falls along half a cosine. In l0 it is a number of values, and starts at 1.

    Attributes:
        norm: "linf", "l2" (default), "l1" or "l0".
        steps: iterations, one gradient each, >= 1; default 100.
        step_size: length of the first step, > 0, default 1; the last one's is a hundredth.
        gamma: share by which the radius changes at first, in (0, 1), default 0.05; at last 0.001.

    Example:
        >>> FMN(norm="linf").run(model, x, y)
        AttackResult(n=12, success=1.0000, max_distance=..., seconds=...)
    """

    norm: str = "l2"
    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05

    norms: ClassVar = ("linf", "l2", "l1", "l0")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must lie in (0, 1), got {self.gamma!r}.")
        if not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(f"step_size must be > 0 and finite, got {self.step_size!r}.")

    @property
    def stop_distance(self) -> float:
        return 1.0 if self.norm == "l0" else 0.0  # nothing is closer than one value

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        none = ops.cast(ops.zeros_like(y), "float32")
        return {
            "x_adv": x,
            "labels": y,
            "done": ops.zeros_like(y),
            "epsilon": none + (1.0 if self.norm == "l0" else np.inf),
            "closest": none + np.inf,
        }

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        x_adv, done, margin = state["x_adv"], state["done"], CWMargin(confidence=np.inf)

        def ascended(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(model, x_adv)
            return margin(logits, state["labels"]), logits

        (gap, logits), gradient = value_and_input_gradient(model, ascended, x_adv, has_aux=True)
        change = x_adv - x
        distance = ops.reshape(self.geometry.length(change), (-1,))
        fooled = self.succeeded(logits, state["labels"])
        closest = ops.where(fooled, ops.minimum(distance, state["closest"]), state["closest"])
        gamma = cosine(done, self.steps, self.gamma, _LAST_GAMMA)
        radius = self._radius(state["epsilon"], gamma, fooled, closest, distance, gap, gradient)
        farthest = self.geometry.length(ops.maximum(x, 1 - x))
        if self.norm == "l0":
            farthest = ops.full_like(farthest, math.prod(x.shape[1:]))
        radius = ops.minimum(radius, ops.reshape(farthest, (-1,)))

        size = cosine(done, self.steps, self.step_size, self.step_size / 100)
        change = change + over_images(size, x) * get_norm("l2").direction(gradient)
        change = self.geometry.shrink(change, over_images(radius, x))
        moved = ops.clip(x + change, 0.0, 1.0)
        state = {
            **state,
            "x_adv": moved,
            "done": done + 1,
            "epsilon": radius,
            "closest": closest,
        }
        return state, logits

    def _radius(
        self,
        radius: Tensor,
        gamma: Tensor,
        fooled: Tensor,
        closest: Tensor,
        distance: Tensor,
        gap: Tensor,
        gradient: Tensor,
    ) -> Tensor:
        """Of the next ball, (batch,)."""
        if self.norm == "l0":
            smaller = ops.minimum(radius - 1, ops.floor(radius * (1 - gamma)))
            larger = ops.maximum(radius + 1, ops.floor(radius * (1 + gamma)))
            found = ops.where(fooled, ops.minimum(smaller, closest), larger)
            return ops.maximum(found, 1.0)
        slope = ops.reshape(get_norm(DUAL[self.norm]).length(gradient), (-1,))
        boundary = _BEYOND * (distance + ops.abs(gap) / ops.maximum(slope, 1e-12))
        larger = ops.where(ops.isfinite(closest), radius * (1 + gamma), boundary)
        return ops.where(fooled, ops.minimum(radius * (1 - gamma), closest), larger)
