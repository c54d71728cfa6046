"""A trained network that makes perturbations, as an attack."""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks.attack import MinimumNormAttack
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

GRADIENT_SCALE = 1 / 128
"""The paper's: the generator sees the gradient of a batch mean, in batches of 128."""


def generate(
    generator: keras.Model,
    classifier: keras.Model,
    x: Tensor,
    y: Tensor,
    *,
    gradient_scale: float = GRADIENT_SCALE,
    detach: bool = False,
) -> Tensor:
    """The generator's adversarial images for a batch: pure, traceable and differentiable.

    (tanh(atanh(2x - 1) + G) + 1) / 2 (PGN, equation 5), inside (0, 1). G sees the one-hot label, the gradient
    of that class's probability by the image, scaled, and the image as 2x - 1.

    Args:
        generator: see `robust_zoo.architectures.perturbation_generator`.
        classifier: images to logits, seen in inference mode.
        x: float32 (batch, height, width, channels) in [0, 1].
        y: int32 (batch,).
        gradient_scale: factor of the gradient that the generator sees; at 0 none is computed.
        detach: whether the gradient is a constant for an outer gradient.
    """
    label = ops.one_hot(y, classifier.output_shape[1])

    def probability(x: Tensor) -> Tensor:
        logits = logits_of(classifier, x)
        return ops.sum(label * ops.softmax(logits, axis=1), axis=1)

    gradient = ops.zeros_like(x)
    if gradient_scale:
        _, gradient = backend.value_and_input_gradient(probability, x)
    gradient = ops.stop_gradient(gradient) if detach else gradient
    signed = 2 * x - 1
    made = generator([label, gradient_scale * gradient, signed])
    inside = 0.999999 * signed
    arctanh = 0.5 * (ops.log1p(inside) - ops.log1p(-inside))
    return 0.5 * (ops.tanh(arctanh + ops.cast(made, "float32")) + 1)


@dataclass(frozen=True, kw_only=True)
class GeneratorAttack(MinimumNormAttack):
    """One candidate for each image, made from the image and its label by a perturbation generator (PGN, 2020).

    Attributes:
        generator: trained `keras.Model`, see `robust_zoo.architectures.perturbation_generator`; for example
            `robust_zoo.defenses.PGN(...).generator`.
        gradient_scale: the factor of the gradient that the generator was trained with; default 1 / 128. 0 for none.
    """

    generator: keras.Model
    gradient_scale: float = GRADIENT_SCALE

    norm: str = "l2"
    norms: ClassVar = ("l2",)
    steps: ClassVar = 0

    @property
    def models(self) -> tuple[keras.Model, ...]:
        return (self.generator,)

    def check_model(self, model: keras.Model) -> None:
        expected = [(None, model.output_shape[1]), *[(None, *model.input_shape[1:])] * 2]
        found = getattr(self.generator, "input_shape", None)
        if found != expected:
            raise ValueError(
                f"generator must take inputs of shapes {expected}, labels, gradients and images, got {found}."
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
        x_adv = generate(self.generator, model, x, y, gradient_scale=self.gradient_scale)
        return {"x_adv": x_adv}

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        return state, logits_of(model, state["x_adv"])

    def get_config(self) -> dict[str, Any]:
        """The norm, `gradient_scale`, and the SHA-256 of the generator's weights in place of the generator."""
        digest = hashlib.sha256()
        for weight in self.generator.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
        return {
            "norm": self.norm,
            "gradient_scale": self.gradient_scale,
            "generator": digest.hexdigest(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NoReturn:
        """Always raises ValueError: the configuration has no weights to rebuild the generator from."""
        raise ValueError("a GeneratorAttack cannot be made of its configuration: it lacks weights.")
