"""DeepFool: steps to the nearest linearised boundary."""

from dataclasses import dataclass
from typing import Self

import keras
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks.attack import MinimumNormAttack
from robust_zoo.attacks.losses import LOWEST, at
from robust_zoo.attacks.norms import divided_by_largest
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

REFERENCES = ("predicted", "true")


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class DeepFool(MinimumNormAttack):
    """DeepFool (Moosavi-Dezfooli et al., arXiv:1511.04599, algorithm 2; linf: section 3).

    Each step adds the change that reaches the nearest of the linearised boundaries, a little more than
    that (1e-4 of distance), and the candidate is the clean image plus (1 + overshoot) times the sum of all
    steps, clipped to [0, 1]. One forward pass and one gradient for each candidate class make a step.

    Attributes:
        steps: most iterations, >= 1; default 50. DeepDefense (arXiv:1803.00404) takes 5, without clipping; with it, on
            images as black and white as MNIST's, 5 find next to nothing.
        overshoot: factor by which the candidate goes beyond the sum of all steps, >= 0; default 0.02.
        candidates: how many of the most likely classes on the clean image are considered, >= 2, the class to leave
            included; default 10. Only their gradients are computed.
        labels: the class to leave: "predicted" on the clean image, as in the paper, so that images that
            are misclassified have a distance too; or "true", so that theirs is 0.

    Example:
        >>> DeepFool().run(model, x)
        AttackResult(n=12, success=1.0000, max_distance=..., seconds=...)
    """

    norm: str = "l2"
    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10
    labels: str = "predicted"

    look_every = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.overshoot >= 0:
            raise ValueError(f"overshoot must be >= 0, got {self.overshoot!r}.")
        if self.candidates < 2:
            raise ValueError(f"candidates must be an integer >= 2, got {self.candidates!r}.")
        if self.labels not in REFERENCES:
            raise ValueError(f"labels must be one of {REFERENCES}, got {self.labels!r}.")

    def passes_on(self, model: keras.Model) -> int:
        return min(self.candidates, model.output_shape[1])

    def template(self) -> Self:
        return self.replace(steps=1)

    def reference(self, logits: Tensor, y: Tensor) -> Tensor:
        return ops.cast(ops.argmax(logits, axis=1), "int32") if self.labels == "predicted" else y

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        logits = logits_of(model, x)
        # Whatever is to be left comes first, even where it is not the most likely class.
        given = ops.one_hot(y, logits.shape[1], dtype="bool")
        order = ops.argsort(ops.where(given, LOWEST, -logits), axis=1)
        count = min(self.candidates, logits.shape[1])
        return {
            "x_adv": x,
            "change": ops.zeros_like(x),
            "classes": ops.cast(order[:, :count], "int32"),
        }

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        def chosen(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(model, x_adv)
            return ops.take_along_axis(logits, state["classes"], axis=1), logits

        (z, logits), jacobian = backend.input_jacobian(chosen, state["x_adv"], has_aux=True)
        batch, count = ops.shape(x)[0], state["classes"].shape[1]
        rows = ops.reshape(jacobian, (batch, count, -1))
        # In units of the largest slope: no step depends on the scale of the logits.
        rows, unit = divided_by_largest(rows, (1, 2))
        gap = (z[:, 1:] - z[:, :1]) / unit[:, 0]
        normal = rows[:, 1:] - rows[:, :1]
        if self.norm == "l2":
            size = ops.sqrt(ops.sum(ops.square(normal), axis=2))
        else:
            size = ops.sum(ops.abs(normal), axis=2)  # the dual norm
        distance = ops.abs(gap) / (size + 1e-8)
        nearest = ops.argmin(distance, axis=1)
        distance, size, normal = (at(each, nearest) for each in (distance, size, normal))
        distance, size = distance[:, None] + 1e-4, size[:, None]
        direction = normal / (size + 1e-8) if self.norm == "l2" else ops.sign(normal)
        change = state["change"] + ops.reshape(distance * direction, ops.shape(x))
        x_adv = ops.clip(x + (1 + self.overshoot) * change, 0.0, 1.0)
        return {**state, "x_adv": x_adv, "change": change}, logits
