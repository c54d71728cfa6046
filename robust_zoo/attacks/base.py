"""What every attack is: immutable hyperparameters, a pure call, and a batched run."""

import dataclasses
import time
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, get_args

import keras
import numpy as np
from keras import ops

from robust_zoo.attacks.norms import get_norm
from robust_zoo.attacks.working_set import WorkingSet
from robust_zoo.backend import random
from robust_zoo.classifier import in_float32
from robust_zoo.contract import check_classifier, check_epsilon, check_images, check_labels
from robust_zoo.progress import progress_bar

_KINDS = {
    bool: (bool, "True or False"),
    int: (Integral, "an integer"),
    float: (Real, "a number"),
}


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What `Attack.run` found, as NumPy arrays over the n images in their order.

    Attributes:
        x_adv: float32 (n, height, width, channels) in [0, 1]. Where the attack failed, the last iterate of
            highest loss over the restarts; where the clean image is misclassified already, that image.
        success: bool (n,), whether some candidate fooled the model; that candidate is in `x_adv`.
        distance: float64 (n,), from the clean image in the attack's norm.
        queries: int64 (n,), passes through the model spent on each image (a gradient counts as one; the
            pass that chooses labels is not counted).
        seconds: wall-clock time.
    """

    x_adv: np.ndarray
    success: np.ndarray
    distance: np.ndarray
    queries: np.ndarray
    seconds: float

    def __repr__(self) -> str:
        return (
            f"AttackResult(n={len(self.success)}, success={self.success.mean():.4f}, "
            f"max_distance={self.distance.max():.6g}, seconds={self.seconds:.1f})"
        )


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Base of the attacks.

    A subclass states its hyperparameters as fields and implements `start`, `step`, `loss_value` and
    `succeeded`; calling, running, bookkeeping and checking are done here.

    Attributes:
        epsilon: radius of the ball that is never left, > 0, in [0, 1] pixel units.
        norm: "linf" or "l2".
        steps: iterations.
        restarts: how often `run` starts over on the images that still resist.
    """

    epsilon: float
    norm: str = "linf"

    steps: ClassVar[int] = 1
    restarts: ClassVar[int] = 1

    def __post_init__(self):
        self._check_types()
        get_norm(self.norm)
        object.__setattr__(self, "epsilon", check_epsilon(self.epsilon, self.norm))
        for name, value in self.defaults().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("steps", "restarts"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")

    def _check_types(self) -> None:
        """Numbers become plain ones; TypeError for what is no number, integer or truth value."""
        for field in dataclasses.fields(self):
            value, kinds = getattr(self, field.name), get_args(field.type) or (field.type,)
            if value is None and type(None) in kinds:
                continue
            for kind, (accepted, what) in _KINDS.items():
                if kind not in kinds:
                    continue
                if not isinstance(value, accepted) or (
                    isinstance(value, bool) and kind is not bool
                ):
                    raise TypeError(f"{field.name} must be {what}, got {value!r}.")
                object.__setattr__(self, field.name, kind(value))
                break

    @property
    def reaches_given_labels(self) -> bool:
        """Whether the labels given are targets to reach, instead of classes to leave."""
        return False

    def defaults(self) -> dict[str, Any]:
        """Values of hyperparameters left None, where they follow from others."""
        return {}

    @property
    def geometry(self):
        return get_norm(self.norm)

    def get_config(self) -> dict[str, Any]:
        """All hyperparameters, as plain JSON values."""
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            key: value.get_config() if hasattr(value, "get_config") else value
            for key, value in config.items()
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Attack":
        return cls(**config)

    def replace(self, **changes) -> "Attack":
        """A copy with some hyperparameters changed; others stay, a default step size included."""
        return dataclasses.replace(self, **changes)

    def at_unit_epsilon(self) -> "Attack":
        """The same steps in units of epsilon: attacks that agree in it share their compiled code."""
        raise NotImplementedError

    def start(self, model, x, y, keys, epsilon) -> dict[str, Any]:
        """The state before the first step: tensors (batch, ...), the first candidate as "x_adv".

        Args:
            model: the classifier.
            x: float32 (batch, ...), clean images.
            y: int32 (batch,), labels.
            keys: (batch, 2), one random key an example.
            epsilon: scalar tensor or float, or tensor (batch, 1, ...).
        """
        raise NotImplementedError

    def step(self, model, x, state, epsilon) -> tuple[dict[str, Any], Any]:
        """The next state, and the logits (batch, classes) of the candidate it started from."""
        raise NotImplementedError

    def loss_value(self, logits, state):
        """How close a candidate came, (batch,), from its logits; larger is worse for the model."""
        raise NotImplementedError

    def succeeded(self, logits, y):
        """Which logits (batch, classes) are a success against the labels `y`, bool (batch,)."""
        raise NotImplementedError

    def check_model(self, num_classes: int) -> None:
        """Raises ValueError if the attack cannot work with that many classes."""

    def __call__(self, model, x, y=None, *, key, epsilon=None):
        """Adversarial images for a batch: pure and traceable, for use inside a training step.

        Args:
            model: classifier, images to logits; called with `training=False`.
            x: float32 tensor (batch, height, width, channels) in [0, 1].
            y: integer tensor (batch,); by default the predicted labels.
            key: one random key (2,), from `robust_zoo.backend.random.key`, or one an example (batch, 2).
            epsilon: replaces the attack's own, its step size in proportion: scalar or (batch,) tensor.

        Returns:
            The last iterate, in the shape of `x`: with restarts, each example's of highest loss.
        """
        epsilon = self.epsilon if epsilon is None else ops.cast(epsilon, "float32")
        if len(getattr(epsilon, "shape", ())) == 1:
            epsilon = ops.reshape(epsilon, (-1,) + (1,) * (len(x.shape) - 1))
        y = ops.argmax(model(x, training=False), axis=1) if y is None else y
        y = ops.cast(y, "int32")
        if len(key.shape) == 1:
            key = random.fold_in(key, ops.arange(ops.shape(x)[0]))

        def advance(_, state):
            # Detached at each step: torch would keep the graph of all of them.
            return keras.tree.map_structure(
                ops.stop_gradient, self.step(model, x, state, epsilon)[0]
            )

        def attempt(restart):
            state = self.start(model, x, y, random.fold_in(key, restart), epsilon)
            return ops.fori_loop(0, self.steps, advance, state)

        if self.restarts == 1:
            return ops.stop_gradient(attempt(0)["x_adv"])

        def better(restart, best):
            state = attempt(restart)
            logits = ops.cast(model(state["x_adv"], training=False), "float32")
            loss = self.loss_value(logits, state)
            wins = loss > best[1]
            shape = (-1,) + (1,) * (len(x.shape) - 1)
            x_adv = ops.where(ops.reshape(wins, shape), state["x_adv"], best[0])
            return x_adv, ops.maximum(loss, best[1])

        lowest = ops.full((ops.shape(x)[0],), -np.inf, dtype="float32")
        return ops.stop_gradient(ops.fori_loop(0, self.restarts, better, (x, lowest))[0])

    def run(
        self,
        model: keras.Model,
        x,
        y=None,
        *,
        seed: int = 0,
        batch_size: int = 128,
        progress: bool = True,
    ) -> AttackResult:
        """Attacks a whole set of images in float32.

        Images leave the working set as soon as a candidate fools the model, the clean image included;
        what is left is packed into batches of a few fixed sizes. An image's random numbers depend on
        `seed` and on its index in `x` alone.

        Args:
            model: classifier, images in [0, 1] to logits.
            x: float array (n, height, width, channels) in [0, 1].
            y: integer array (n,); by default the predicted labels.
            seed: of every random number.
            batch_size: images in a full batch.
            progress: whether to show a progress bar (on a terminal only).

        Raises:
            TypeError, ValueError: inputs that `robust_zoo.contract` refuses.
            RuntimeError: a candidate outside the ball or outside [0, 1], which is a bug in the attack.
        """
        started = time.perf_counter()
        model = in_float32(check_classifier(model))
        x = check_images(x, model)
        num_classes = model.output_shape[1]
        y = None if y is None else check_labels(y, num_classes, len(x))
        self.check_model(num_classes)
        largest = self.geometry.distance(np.ones_like(x[:1]), np.zeros_like(x[:1])).item()
        if self.epsilon > largest:
            raise ValueError(
                f"epsilon must be at most {largest:.6g}, the {self.norm} distance from black to white for "
                f"images of shape {x.shape[1:]} in [0, 1], got {self.epsilon!r}."
            )

        working_set = WorkingSet(self, model, x, y, seed=seed, batch_size=batch_size)
        with progress_bar(type(self).__name__, working_set.work, enabled=progress) as advance:
            working_set.run(advance)

        distance = self.geometry.distance(working_set.x_adv, x)
        self._verify(working_set.x_adv, distance)
        return AttackResult(
            x_adv=working_set.x_adv,
            success=working_set.success,
            distance=distance,
            queries=working_set.queries,
            seconds=time.perf_counter() - started,
        )

    def _verify(self, x_adv: np.ndarray, distance: np.ndarray) -> None:
        # A float32 pixel near 1 is only exact to 6e-8, which matters for the smallest epsilons.
        allowed = self.epsilon * (1 + 1e-5) + 1e-7
        if not (distance <= allowed).all():
            raise RuntimeError(
                f"{self!r} left its ball: {self.norm} distance {distance.max():.9g} > {self.epsilon:.9g}."
            )
        if not (x_adv.min() >= 0 and x_adv.max() <= 1):
            raise RuntimeError(
                f"{self!r} left [0, 1]: values from {x_adv.min():.9g} to {x_adv.max():.9g}."
            )
