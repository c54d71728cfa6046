"""Auto-PGD, two of the four attacks of AutoAttack."""

from dataclasses import dataclass
from typing import ClassVar, Self

import keras
import numpy as np
from keras import ops

from robust_zoo.attack_names import ORDERS
from robust_zoo.attacks import apgd_l1
from robust_zoo.attacks.attack import FixedBudgetAttack
from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.labels import candidates, nearest_classes, ranked_class
from robust_zoo.attacks.losses import Loss, get_loss
from robust_zoo.attacks.norms import over_images
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

_MOMENTUM = 0.75  # weight of the new step against the last one


def halving_points(steps: int) -> list[int]:
    """After how many steps the step size may be halved: 22, 41, 57, 70, 80, 87, 93, 99 of 100.

    The first interval is 0.22 of the steps; each is 0.03 of them shorter than the last, but at least 0.06
    (arXiv:2003.01690, section 3.1; rounded down as in the authors' code).
    """
    length, shorter, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    points = [length]
    while points[-1] + max(length - shorter, least) <= steps:
        length = max(length - shorter, least)
        points.append(points[-1] + length)
    return points


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class APGD(FixedBudgetAttack):
    """Auto-PGD (Croce and Hein, arXiv:2003.01690, algorithm 1), equal to that of AutoAttack.

    Steps with momentum, of a size that starts at 2 epsilon and is halved, going back to the best point, where the loss
    stops rising. With norm "l1" (arXiv:2103.01208, algorithm 1) steps change a share of the values alone, without momentum;
    three tenths of them are in a ball of three times epsilon, as many in one of twice, and the rest in the last. APGD-CE is
    the default; APGD-T is loss="dlr", targets=9: one attempt towards each of the 9 classes that are most likely on the
    clean image after the first.

    Attributes:
        loss: a `Loss`, or its name: "cross_entropy" (default), "dlr", "cw_margin", "entropy".
        steps: iterations of each attempt, >= 1; default 100.
        targets: how many classes are targeted, one after the other, fewer than the model has; 0 (default) for an
            untargeted attack.
        order: by which classes are targeted: "logits" (default), the most likely ones, or "malt", those whose linearised
            boundary is nearest on the clean image among the 100 most likely (arXiv:2407.02240), which finds more, and
            sooner, on models of many classes.
        restarts: random starts (of each target), >= 1; default 1.
        rho: share of steps that must raise the loss, or the step size is halved, in (0, 1]; default 0.75. Norm "l1"
            does without.

    Example:
        >>> APGD(epsilon=0.3, loss="dlr", targets=9).run(model, x, y)
        AttackResult(n=12, success=1.0000, max_distance=0.3, seconds=...)
    """

    loss: Loss | str = "cross_entropy"
    steps: int = 100
    targets: int = 0
    order: str = "logits"
    restarts: int = 1
    rho: float = 0.75

    norms: ClassVar = ("linf", "l2", "l1")

    def __post_init__(self) -> None:
        super().__post_init__()
        loss = get_loss(self.loss)
        object.__setattr__(self, "loss", loss)
        if loss.needs_clean:
            raise ValueError(f"loss must not need the clean logits in APGD, got {loss.name!r}.")
        if self.targets < 0:
            raise ValueError(f"targets must be an integer >= 0, got {self.targets!r}.")
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}, got {self.order!r}.")
        if self.order != "logits" and not self.targets:
            raise ValueError(f"order={self.order!r} needs targets >= 1: it is their order.")
        if not 0 < self.rho <= 1:
            raise ValueError(f"rho must lie in (0, 1], got {self.rho!r}.")

    def attempts_on(self, model: keras.Model) -> int:
        return max(self.targets, 1) * self.restarts

    def steps_on(self, image_shape: tuple[int, ...]) -> int:
        return apgd_l1.steps_of(self.steps) if self.norm == "l1" else self.steps

    def template(self) -> Self:
        return self.replace(epsilon=1.0)

    def check_model(self, model: keras.Model) -> None:
        num_classes = model.output_shape[1]
        get_loss(self.loss).check_classes(num_classes, targeted=self.targets > 0)
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
        if self.norm == "l1":
            state = apgd_l1.start(x, y, keys, epsilon)
        else:
            state = self._start(x, y, keys, epsilon)
        if self.targets:
            state["targets"] = y  # which `find_targets` replaces
            if self.order == "logits":
                logits = logits_of(model, x)
                state["targets"] = ranked_class(logits, 1 + attempt // self.restarts)
        return state

    def aiming_passes(self, model: keras.Model) -> int:
        return candidates(model.output_shape[1], self.targets) if self.order == "malt" else 0

    def find_targets(self, model: keras.Model, x: Tensor, y: Tensor) -> Tensor:
        nearest = nearest_classes(model, x, y, self.norm, self.targets)
        return ops.repeat(nearest, self.restarts, axis=1)

    def _start(self, x: Tensor, y: Tensor, keys: Tensor, epsilon: Tensor | float) -> AttackState:
        x_adv = self.geometry.surface_start(keys, x, epsilon)
        lowest = ops.cast(ops.zeros_like(y), "float32") - np.inf
        return {
            "x_adv": x_adv,
            "previous": x_adv,
            "labels": y,
            "iteration": ops.zeros_like(y),
            "step_size": ops.cast(ops.zeros_like(y), "float32") + 2.0,  # in units of epsilon
            "best": x_adv,
            "best_gradient": ops.zeros_like(x),
            "best_loss": lowest,
            # At the last look at the step size, and since then.
            "best_loss_then": lowest,
            "halved_then": ops.ones_like(y, dtype="bool"),
            "last_loss": lowest,
            "rises": ops.zeros_like(y),
        }

    def loss_value(self, logits: Tensor, state: AttackState) -> Tensor:
        return get_loss(self.loss)(logits, state["labels"], state.get("targets"))

    def _checkpoint(self, done: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the step size is looked at after `done` steps (batch,), and how many are looked back at."""
        points = halving_points(self.steps)
        lengths = np.diff([0, *points]).astype("float32")
        here = done[:, None] == ops.convert_to_tensor(np.asarray(points, "int32"))
        length = ops.sum(ops.cast(here, "float32") * ops.convert_to_tensor(lengths), axis=1)
        return ops.any(here, axis=1), length

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        if self.norm == "l1":
            return apgd_l1.step(self, model, x, state, epsilon)

        def choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
            return ops.where(over_images(mask, x), yes, no)

        def ascended(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(model, x_adv)
            return self.loss_value(logits, state), logits

        x_adv = state["x_adv"]
        (loss, logits), gradient = value_and_input_gradient(model, ascended, x_adv, has_aux=True)
        done = state["iteration"]  # steps that led to x_adv
        state = {**state, "iteration": done + 1}

        better = loss > state["best_loss"]
        state["best"] = choose(better, x_adv, state["best"])
        state["best_gradient"] = choose(better, gradient, state["best_gradient"])
        state["best_loss"] = ops.where(better, loss, state["best_loss"])

        # As in the authors' code, the first step rises if it ends above a loss of zero.
        zero = get_loss(self.loss).zero_in_autoattack(targeted=self.targets > 0)
        last = ops.where(done == 1, zero, state["last_loss"])
        rose = ops.logical_and(done >= 1, loss > last)
        rises = state["rises"] + ops.cast(rose, "int32")
        state["last_loss"] = loss

        look, window = self._checkpoint(done)
        oscillates = ops.cast(rises, "float32") <= self.rho * window
        stalls = ops.logical_and(
            ops.logical_not(state["halved_then"]), state["best_loss_then"] >= state["best_loss"]
        )
        first = done == 0
        halve = ops.logical_and(look, ops.logical_or(oscillates, stalls))
        state["rises"] = ops.where(look, 0, rises)
        state["halved_then"] = ops.where(look, halve, state["halved_then"])
        state["best_loss_then"] = ops.where(
            ops.logical_or(look, first), state["best_loss"], state["best_loss_then"]
        )
        state["step_size"] = ops.where(halve, state["step_size"] / 2, state["step_size"])
        point = choose(halve, state["best"], x_adv)
        gradient = choose(halve, state["best_gradient"], gradient)

        project = self.geometry.project
        size = over_images(state["step_size"], x) * epsilon
        forward = project(point + size * self.geometry.direction(gradient), x, epsilon)
        mixed = (
            point + _MOMENTUM * (forward - point) + (1 - _MOMENTUM) * (point - state["previous"])
        )
        state["x_adv"] = choose(first, forward, project(mixed, x, epsilon))
        state["previous"] = point
        return state, logits
