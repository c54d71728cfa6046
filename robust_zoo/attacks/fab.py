"""Fast adaptive boundary attack, the minimum-norm attack of AutoAttack."""

from dataclasses import dataclass
from typing import ClassVar, Self

import keras
from keras import ops

from robust_zoo.attacks.attack import MinimumNormAttack
from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.labels import ranked_class
from robust_zoo.attacks.losses import at
from robust_zoo.attacks.norms import divided_by_largest, over_images
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor


def project_on_hyperplane(x: Tensor, w: Tensor, offset: Tensor, norm: str) -> Tensor:
    """The smallest change of `x` (batch, d) with w . change = -offset that stays in [0, 1] (eqs. 4 to 6).

    In l1 the values of the largest weights go to their ends, one after the other, the last as far as is needed
    (arXiv:2103.01208). Else the solution moves every value by t (linf) or t |w| (l2) in the direction of need, as far as [0, 1]
    lets it; t follows by Newton's method on a concave, piecewise linear function, exact after finitely
    many steps. Where no point of [0, 1] is on the hyperplane, every value goes to its end.

    Args:
        x: float32 (batch, d) in [0, 1].
        w: float32 (batch, d), the normal.
        offset: float32 (batch,), the linear function's value at `x`.
        norm: "linf", "l2" or "l1".
    """
    w, unit = divided_by_largest(w, (1,))
    offset = offset / unit[:, 0]
    size, need = ops.abs(w), ops.abs(offset)
    direction = -ops.sign(w) * ops.sign(offset)[:, None]
    room = ops.where(direction > 0, 1.0 - x, x)
    if norm == "l1":
        return direction * _largest_first(size, room, need)
    speed = ops.cast(size > 0, "float32") if norm == "linf" else size

    def travel(t: Tensor) -> Tensor:
        return ops.minimum(t[:, None] * speed, room)

    def unfinished(t: Tensor, moving: Tensor) -> Tensor:
        return ops.any(moving)

    def newton(t: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        free = ops.cast(t[:, None] * speed < room, "float32")
        slope = ops.sum(size * speed * free, axis=1)
        missing = need - ops.sum(size * travel(t), axis=1)
        # What float32 cannot tell from zero is no distance to go.
        go = ops.logical_and(missing > 1e-6 * need, slope > 0)
        t = ops.where(go, t + missing / ops.where(slope > 0, slope, 1.0), t)
        return t, go

    t = ops.zeros_like(need)
    t, _ = ops.while_loop(
        unfinished, newton, (t, ops.ones_like(need, dtype="bool")), maximum_iterations=100
    )
    return direction * travel(t)


def _largest_first(weights: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """0 <= move <= room (batch, d) of least sum with sum(weights * move) = need, or all of the room."""
    weights = ops.where(weights < 1e-8, 0.0, weights)
    order = ops.argsort(-weights, axis=1)
    heights, widths = (ops.take_along_axis(part, order, axis=1) for part in (weights, room))
    gains = heights * widths
    before = ops.cumsum(gains, axis=1) - gains
    whole = before + gains <= need[:, None]
    part = ops.clip(need[:, None] - before, 0.0, gains) / ops.where(heights > 0, heights, 1.0)
    move = ops.where(heights > 0, ops.where(whole, widths, part), 0.0)
    return ops.take_along_axis(move, ops.argsort(order, axis=1), axis=1)


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class FAB(MinimumNormAttack):
    """Targeted fast adaptive boundary attack (Croce and Hein, arXiv:1907.02044), equal to AutoAttack's FAB-T.

    Each step projects on the linearised boundary towards one class, mixes with the projection of the
    clean image, goes a little beyond, and comes back towards the clean image where that fooled the model.

    Attributes:
        steps: iterations for each target.
        targets: how many classes are targeted: the most likely ones on the clean image after the first.
            Fooling the model into any class counts.
        eta: how far beyond the projection a step goes, >= 1.
        beta: how far back towards the clean image an adversarial point is put, in (0, 1).
        alpha_max: largest weight of the clean image's projection, in [0, 1].
    """

    steps: int = 100
    targets: int = 9
    eta: float = 1.05
    beta: float = 0.9
    alpha_max: float = 0.1

    norms: ClassVar = ("linf", "l2", "l1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets < 1:
            raise ValueError(f"targets must be an integer >= 1, got {self.targets!r}.")
        for name, valid, allowed in (
            ("eta", self.eta >= 1, ">= 1"),
            ("beta", 0 < self.beta < 1, "in (0, 1)"),
            ("alpha_max", 0 <= self.alpha_max <= 1, "in [0, 1]"),
        ):
            if not valid:
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}.")

    def attempts_on(self, model: keras.Model) -> int:
        return self.targets

    def passes_on(self, model: keras.Model) -> int:
        return 2

    @property
    def stop_distance(self) -> float:
        return 0.0

    def template(self) -> Self:
        return self.replace(steps=1)

    def check_model(self, model: keras.Model) -> None:
        num_classes = model.output_shape[1]
        if self.targets >= num_classes:
            raise ValueError(
                f"targets must be at most {num_classes - 1}, the model's other classes, got {self.targets}."
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
        logits = logits_of(model, x)
        return {
            "x_adv": x,
            "labels": y,
            "targets": ranked_class(logits, 1 + attempt),
        }

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        return self.advance(model, None, x, state, epsilon)

    def advance(
        self,
        model: keras.Model,
        rough: keras.Model | None,
        x: Tensor,
        state: AttackState,
        epsilon: Tensor | float,
    ) -> tuple[AttackState, Tensor]:
        candidate = state["x_adv"]
        logits = logits_of(model, candidate)
        fooled = over_images(self.succeeded(logits, state["labels"]), x)
        point = ops.where(fooled, x + (candidate - x) * self.beta, candidate)

        def gap(x_adv: Tensor) -> Tensor:
            z = logits_of(model if rough is None else rough, x_adv)
            return at(z, state["targets"]) - at(z, state["labels"])

        value, gradient = value_and_input_gradient(model if rough is None else rough, gap, point)
        flat = (ops.shape(x)[0], -1)
        w, here, clean = (ops.reshape(part, flat) for part in (gradient, point, x))
        there = value + ops.sum(w * (clean - here), axis=1)
        both = project_on_hyperplane(
            ops.concatenate([here, clean]),
            ops.concatenate([w, w]),
            ops.concatenate([value, there]),
            self.norm,
        )
        from_here, from_clean = (ops.reshape(part, ops.shape(x)) for part in ops.split(both, 2))
        length_here, length_clean = (
            ops.maximum(self.geometry.length(part), 1e-8) for part in (from_here, from_clean)
        )
        alpha = ops.minimum(length_here / (length_here + length_clean), self.alpha_max)
        x_adv = (1 - alpha) * (point + self.eta * from_here)
        x_adv = x_adv + alpha * (x + self.eta * from_clean)
        return {**state, "x_adv": ops.clip(x_adv, 0.0, 1.0)}, logits
