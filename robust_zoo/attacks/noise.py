"""Random perturbations, the baselines that any attack must beat (Kurakin et al., arXiv:1611.01236)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import keras
from keras import ops

from robust_zoo.attacks.attack import FixedBudgetAttack
from robust_zoo.attacks.losses import CrossEntropy
from robust_zoo.attacks.state import AttackState
from robust_zoo.backend import random
from robust_zoo.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class NoiseAttack(FixedBudgetAttack):
    """One random candidate for each restart.

    Attributes:
        restarts: candidates of which any may fool the model.
    """

    restarts: int = 1

    norms: ClassVar = ("linf",)
    steps: ClassVar = 0

    def noise(self, keys: Tensor, shape: Sequence[int]) -> Tensor:
        """Numbers in [-1, 1], float32 (batch, *shape)."""
        raise NotImplementedError

    def template(self) -> Self:
        return self.replace(epsilon=1.0, restarts=1)

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        x_adv = x + epsilon * self.noise(keys, x.shape[1:])
        return {"x_adv": self.geometry.project(x_adv, x, epsilon), "labels": y}

    def loss_value(self, logits: Tensor, state: AttackState) -> Tensor:
        return CrossEntropy()(logits, state["labels"])


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class SignNoise(NoiseAttack):
    """Random signs: every value moves by epsilon, up or down (arXiv:1611.01236, appendix); norm "linf" only.

    Attributes:
        restarts: independent candidates, any of which may fool the model, >= 1; default 1.
    """

    def noise(self, keys: Tensor, shape: Sequence[int]) -> Tensor:
        return ops.where(random.uniform(keys, shape) < 0.5, -1.0, 1.0)


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class TruncatedNormalNoise(NoiseAttack):
    """Normal noise of standard deviation epsilon / 2, truncated at epsilon (arXiv:1611.01236, appendix), linf only.

    Attributes:
        restarts: independent candidates, any of which may fool the model, >= 1; default 1.
    """

    def noise(self, keys: Tensor, shape: Sequence[int]) -> Tensor:
        return random.truncated_normal(keys, shape) / 2.0
