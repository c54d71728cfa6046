"""The gradient family: one-step, basic iterative, PGD and momentum iterative attacks are one loop."""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import keras
from keras import ops

from robust_zoo.attack_names import LABELS
from robust_zoo.attacks.attack import FixedBudgetAttack
from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.labels import choose_labels
from robust_zoo.attacks.losses import Loss, get_loss
from robust_zoo.attacks.norms import get_norm
from robust_zoo.attacks.state import AttackState
from robust_zoo.backend import random
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class GradientAttack(FixedBudgetAttack):
    """Projected steps along the normalised gradient of a loss.

    Attributes:
        loss: a `Loss`, or its name: "cross_entropy" (default), "cw_margin", "dlr", "entropy", "kl_divergence". The last
            needs a random start and no targets.
        labels: which label is attacked: "true" (default, the labels given), "predicted" (untargeted only),
            "least_likely" or "random" (targeted only; uniform over the classes other than the predicted), fixed from
            the clean image.
        targeted: whether to move towards that label; default False. With labels "true" the labels given are targets and
            success is to reach them; otherwise success is to leave the label given.
        step_size: length of a step in the attack's norm, in [0, 1] pixel units, > 0.
        random_start: whether to start from a random point of the ball; False except in `PGD`.
        decay: weight of earlier gradients in the accumulated one, >= 0; None, for no momentum, except in
            `MomentumIterative`.
    """

    loss: Loss | str = "cross_entropy"
    labels: str = "true"
    targeted: bool = False

    if TYPE_CHECKING:  # see Attack

        @property
        def step_size(self) -> float: ...
        @property
        def random_start(self) -> bool: ...
        @property
        def decay(self) -> float | None: ...
    else:
        random_start: ClassVar[bool] = False
        decay: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        loss = get_loss(self.loss)
        object.__setattr__(self, "loss", loss)
        if loss.needs_clean and (self.targeted or not self.random_start):
            raise ValueError(
                f"loss {loss.name!r} needs a random start and no targets: its gradient is zero at the image."
            )
        if self.labels not in LABELS:
            raise ValueError(f"labels must be one of {LABELS}, got {self.labels!r}.")
        if self.labels in ("least_likely", "random") and not self.targeted:
            raise ValueError(f"labels={self.labels!r} needs targeted=True: the class is a target.")
        if self.labels == "predicted" and self.targeted:
            raise ValueError("labels='predicted' cannot be targeted: it is reached already.")
        if not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(f"step_size must be > 0 and finite, got {self.step_size!r}.")

    @property
    def reaches_given_labels(self) -> bool:
        return self.targeted and self.labels == "true"

    def check_model(self, model: keras.Model) -> None:
        get_loss(self.loss).check_classes(model.output_shape[1], targeted=self.targeted)

    def template(self) -> Self:
        # Rounded, so that the same default in other epsilons is the same number.
        unit = {"epsilon": 1.0, "step_size": round(self.step_size / self.epsilon, 12)}
        unit |= {"steps": 1, "restarts": 1}
        fields = {field.name for field in dataclasses.fields(self)}
        return self.replace(**{name: value for name, value in unit.items() if name in fields})

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        chosen = y
        clean = None
        if self.labels != "true" or self.targeted or get_loss(self.loss).needs_clean:
            clean = logits_of(model, x)
            chosen = choose_labels(self.labels, clean, y, random.fold_in(keys, 1))
        x_adv = x
        if self.random_start:
            x_adv = self.first_point(random.fold_in(keys, 0), x, epsilon)
        state = {"x_adv": x_adv, "labels": chosen}
        if get_loss(self.loss).needs_clean:
            state["clean"] = clean
        if self.targeted:
            # The class to leave is the predicted one where the labels given are the targets.
            left = ops.cast(ops.argmax(clean, axis=1), "int32") if self.labels == "true" else y
            state.update(labels=left, targets=chosen)
        if self.decay is not None:
            state["momentum"] = ops.zeros_like(x)
        return state

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        def loss(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(model, x_adv)
            return self.loss_value(logits, state), logits

        (_, logits), gradient = value_and_input_gradient(model, loss, state["x_adv"], has_aux=True)
        state = dict(state)
        if self.decay is not None:
            mean = ops.mean(ops.abs(gradient), axis=tuple(range(1, len(x.shape))), keepdims=True)
            gradient = self.decay * state["momentum"] + gradient / ops.where(mean > 0, mean, 1.0)
            state["momentum"] = gradient
        length = (self.step_size / self.epsilon) * epsilon
        step = self.move(gradient, length)
        state["x_adv"] = self.geometry.project(state["x_adv"] + step, x, epsilon)
        return state, logits

    def first_point(self, keys: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        """Where a random start begins."""
        return self.geometry.random_start(keys, x, epsilon)

    def move(self, gradient: Tensor, length: Tensor | float) -> Tensor:
        """The step along a gradient: of that length in the attack's norm, uphill."""
        return length * self.geometry.direction(gradient)

    def loss_value(self, logits: Tensor, state: AttackState) -> Tensor:
        return get_loss(self.loss)(
            logits, state["labels"], state.get("targets"), state.get("clean")
        )


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """Fast gradient sign method: one step of length epsilon (Goodfellow et al., arXiv:1412.6572).

    With norm "l2" the step goes along the gradient divided by its L2 norm, with "l1" along the value of the largest
    slope. Of the variants that Kurakin et
    al. compare (arXiv:1611.01236, section 3 and appendix), FGSM-pred is labels="predicted", fast entropy is
    loss="entropy", fast gradient L2 is norm="l2", step l.l. is labels="least_likely", targeted=True and
    step rnd. is labels="random", targeted=True.

    Attributes:
        epsilon, norm: see `FixedBudgetAttack` and `Attack`.
        loss, labels, targeted: see `robust_zoo.attacks.gradient.GradientAttack`.

    Example:
        >>> FGSM(epsilon=0.3).run(model, x, y)
        AttackResult(n=12, success=1.0000, max_distance=0.3, seconds=...)
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    @property
    def step_size(self) -> float:
        return self.epsilon


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class FastGradient(FGSM):
    """One step along the gradient itself, scaled and cut to the ball (norm "linf" only).

    Without `scale` the gradient is divided by its largest entry, which then moves by epsilon: Kurakin's
    fast gradient Linf (arXiv:1611.01236). With it the gradient is divided by its L2 norm, multiplied by
    `scale` and cut to [-epsilon, epsilon]: the fast gradient L2 of Galloway et al. with scale 100
    (arXiv:1804.03308, released code).

    Attributes:
        scale: of the gradient of unit L2 norm, > 0; None for a largest entry of epsilon.
    """

    scale: float | None = None

    norms: ClassVar = ("linf",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"scale must be > 0, got {self.scale!r}.")

    def move(self, gradient: Tensor, length: Tensor | float) -> Tensor:
        if self.scale is None:
            largest = self.geometry.length(gradient)
            return length * gradient / ops.where(largest > 0, largest, 1.0)
        return ops.clip(self.scale * get_norm("l2").direction(gradient), -length, length)


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class BasicIterative(GradientAttack):
    """Basic iterative method, without random start (Kurakin et al., arXiv:1611.01236, section 2).

    Their iterative least-likely attack is labels="least_likely", targeted=True.

    Attributes:
        epsilon, norm: see `FixedBudgetAttack` and `Attack`.
        loss, labels, targeted: see `robust_zoo.attacks.gradient.GradientAttack`.
        step_size: alpha, > 0; by default 1/255.
        steps: by default the paper's min(e + 4, 1.25 e), e = 255 epsilon, rounded up.
    """

    step_size: float = 1 / 255
    steps: int | None = None  # type: ignore[assignment]  # None until `defaults` replaces it

    def defaults(self) -> dict[str, Any]:
        levels = 255 * self.epsilon
        # Rounded first: 1.25 * 255 * (16 / 255) is a hair above 20 in floating point.
        return {"steps": max(1, math.ceil(round(min(levels + 4, 1.25 * levels), 6)))}


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient descent with random starts (Madry et al., arXiv:1706.06083, section 2.1).

    `run` counts any iterate that fools the model, and keeps the worst of all restarts.

    Attributes:
        epsilon, norm: see `FixedBudgetAttack` and `Attack`.
        loss, labels, targeted: see `robust_zoo.attacks.gradient.GradientAttack`.
        steps: iterations of each restart, >= 1; default 40.
        step_size: > 0; by default 2.5 * epsilon / steps.
        random_start: whether to start from a random point of the ball; default True.
        restarts: random starts, >= 1; default 1.

    Example:
        >>> PGD(epsilon=0.3, steps=100, step_size=0.01, restarts=20).run(model, x, y, seed=0)
        AttackResult(n=12, success=1.0000, max_distance=0.3, seconds=...)
    """

    steps: int = 40
    step_size: float | None = None  # type: ignore[assignment]  # None until `defaults` replaces it
    random_start: bool = True
    restarts: int = 1

    def defaults(self) -> dict[str, Any]:
        return {"step_size": 2.5 * self.epsilon / self.steps if self.steps else 0}


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class NormalStartPGD(PGD):
    """PGD from a normal point close to the image, not a uniform one of the ball: TRADES (arXiv:1901.08573).

    Attributes:
        start_deviation: standard deviation of the normal start, in [0, 1] pixel units, > 0; default 0.001. The start is
            projected onto the ball. `random_start` must be True.
    """

    start_deviation: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.start_deviation > 0 and self.random_start):
            raise ValueError(
                f"start_deviation must be > 0, and random_start True, got {self.start_deviation!r} and "
                f"{self.random_start!r}."
            )

    def first_point(self, keys: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        noise = self.start_deviation * random.normal(keys, x.shape[1:])
        return self.geometry.project(x + noise, x, epsilon)


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class MomentumIterative(GradientAttack):
    """Momentum iterative FGSM (Dong et al., arXiv:1710.06081, algorithm 1).

    Each gradient is divided by its mean absolute value before it is accumulated.

    Attributes:
        epsilon, norm: see `FixedBudgetAttack` and `Attack`.
        loss, labels, targeted: see `robust_zoo.attacks.gradient.GradientAttack`.
        steps: iterations, >= 1; default 10.
        step_size: > 0; by default epsilon / steps.
        decay: weight of the accumulated gradient, >= 0; default 1.
    """

    steps: int = 10
    step_size: float | None = None  # type: ignore[assignment]  # None until `defaults` replaces it
    decay: float = 1.0

    def defaults(self) -> dict[str, Any]:
        return {"step_size": self.epsilon / self.steps if self.steps else 0}

    def __post_init__(self) -> None:
        if not self.decay >= 0:
            raise ValueError(f"decay must be >= 0, got {self.decay!r}.")
        super().__post_init__()
