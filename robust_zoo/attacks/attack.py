"""What every attack is: immutable hyperparameters, a pure call, and what `run` needs to know."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args, get_type_hints

import keras
import numpy as np
from keras import ops

from robust_zoo.attack_names import check_epsilon
from robust_zoo.attacks.expectation import Expectation, share_right
from robust_zoo.attacks.norms import L2, Linf, get_norm, over_images
from robust_zoo.attacks.run import AttackResult, run
from robust_zoo.attacks.state import AttackState, finished, strongest
from robust_zoo.attacks.state_file import StateFile
from robust_zoo.attacks.sweep import Sweep, sweep
from robust_zoo.attacks.working_set import WorkingSet
from robust_zoo.backend import random
from robust_zoo.inference import logits_of
from robust_zoo.progress import progress_bar
from robust_zoo.record import Check, allowed_distance
from robust_zoo.typing import Tensor

_USUAL: dict[str, Any] = {"samples": 1, "version": "standard", "order": "logits"}
_KINDS = {
    bool: (bool, "True or False"),
    int: (Integral, "an integer"),
    float: (Real, "a number"),
}


@functools.cache
def hyperparameter_types(kind: type) -> dict[str, tuple]:
    """The types that each hyperparameter of an attack class may have, by its name."""
    hints = get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    return {name: get_args(hints[name]) or (hints[name],) for name in fields}


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Base of both kinds of attack, `FixedBudgetAttack` and `MinimumNormAttack`.

    An attack makes `attempts_on(model)` attempts (restarts, or targets) of `steps_on(shape)` steps each. A
    subclass states its hyperparameters as fields and implements `start`, `step` and, where the defaults do not
    fit, `succeeded`; calling, running, bookkeeping and checking are done here.

    Attributes:
        norm: "linf", "l2", "l1" or "l0"; a subclass's `norms` lists those it supports, and "linf" is the default here.
        samples: over how many draws of a random model's randomness each gradient, loss and logit is averaged, >= 1;
            default 1. With more, what `run` counts as a success is decided by as many fresh draws. See `EOT`.
        steps: iterations of an attempt; 0 if its first candidate is its only one.
        restarts: how often `run` starts over on the images that still resist, >= 1; default 1.
    """

    norm: str = "linf"
    samples: int = 1

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    if TYPE_CHECKING:
        # Fields in some subclasses, which a type checker does not let a ClassVar become.
        @property
        def steps(self) -> int: ...
        @property
        def restarts(self) -> int: ...
        @property
        def step_size(self) -> float: ...
    else:
        # Where a subclass makes a field of one, this is its place among the fields.
        steps: ClassVar[int] = 1
        restarts: ClassVar[int] = 1
    look_every: ClassVar[int] = 10
    """Most steps between two looks at which images are done; of a long attack, a tenth of the steps so far."""
    bears_rounding: ClassVar[bool] = True
    """Whether its steps are as good on a copy of the model in less precision."""

    def __post_init__(self) -> None:
        self._check_types()
        if self.norm not in self.norms:
            raise ValueError(
                f"norm must be one of {self.norms} in {type(self).__name__}, got {self.norm!r}."
            )
        self._check_budget()
        for name, value in self.defaults().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        fields = {field.name for field in dataclasses.fields(self)}
        for name in fields & {"steps", "restarts", "samples"}:
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")

    def _check_budget(self) -> None:
        """ValueError for an epsilon that does not fit the norm."""

    def _check_types(self) -> None:
        """Numbers become plain ones; TypeError for what is no number, integer or truth value."""
        for name, kinds in hyperparameter_types(type(self)).items():  # type: ignore[arg-type]  # mypy takes the class for an instance
            value = getattr(self, name)
            if value is None and type(None) in kinds:
                continue
            for kind, (accepted, what) in _KINDS.items():
                if kind not in kinds:
                    continue
                if not isinstance(value, accepted) or (
                    isinstance(value, bool) and kind is not bool
                ):
                    raise TypeError(f"{name} must be {what}, got {value!r}.")
                object.__setattr__(self, name, kind(value))
                break

    @property
    def reaches_given_labels(self) -> bool:
        """Whether the labels given are targets to reach, instead of classes to leave."""
        return False

    @property
    def stop_distance(self) -> float:
        """An image is done once a candidate this close has fooled the model."""
        return np.inf

    @property
    def geometry(self) -> Linf | L2 | Any:  # see get_norm
        """The geometry of `norm`: lengths, distances and projections, as far as it has them."""
        return get_norm(self.norm)

    def defaults(self) -> dict[str, Any]:
        """Values of hyperparameters left None, where they follow from others."""
        return {}

    def attempts_on(self, model: keras.Model) -> int:
        """How often `start` is called on an image that resists, for each restart or target."""
        return self.restarts

    def passes_on(self, model: keras.Model) -> int:
        """Passes through the model in one step."""
        return 1

    def steps_on(self, image_shape: tuple[int, ...]) -> int:
        """Steps of an attempt on images of one shape."""
        return self.steps

    def get_config(self) -> dict[str, Any]:
        """All hyperparameters, as plain JSON values; samples, version and order only if they are not the usual ones."""
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            key: value.get_config() if hasattr(value, "get_config") else value
            for key, value in config.items()
            if not self._is_usual(key, value)
        }

    def _is_usual(self, key: str, value: Any) -> bool:
        """Whether a value goes without saying."""
        default = type(self).__dataclass_fields__[key].default
        return key in _USUAL and value == _USUAL[key] and default in (value, None)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)

    def replace(self, **changes: Any) -> Self:
        """A copy with some hyperparameters changed; others stay, a default step size included."""
        return dataclasses.replace(self, **changes)

    def expected(self, model: keras.Model) -> keras.Model | Expectation:
        """The model as the attack sees it: its mean over draws if the attack averages over several."""
        return model if self.samples == 1 else Expectation(model, self.samples)

    @property
    def models(self) -> tuple[keras.Model, ...]:
        """Models other than the one attacked that the attack calls."""
        return ()

    def template(self) -> "Attack":
        """The attack that stands for all whose compiled steps are the same as this one's."""
        return self

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        """The state before the first step, with the first candidate.

        Args:
            model: the classifier.
            x: float32 (batch, ...), clean images.
            y: int32 (batch,), labels.
            keys: (batch, 2), one random key an example, another one in each attempt.
            epsilon: scalar tensor or float, or tensor (batch, 1, ...); minimum-norm attacks ignore it.
            attempt: int or integer scalar tensor.
        """
        raise NotImplementedError

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Any]:
        """The next state, and the logits (batch, classes) of the candidate it started from."""
        raise NotImplementedError

    def advance(
        self,
        model: keras.Model,
        rough: keras.Model | None,
        x: Tensor,
        state: AttackState,
        epsilon: Tensor | float,
    ) -> tuple[AttackState, Tensor]:
        """`step` on `rough`, a copy of the model in less precision, or on the model if that is None."""
        return self.step(model if rough is None else rough, x, state, epsilon)

    def aiming_passes(self, model: keras.Model) -> int:
        """Passes that `find_targets` takes; 0 (default) if `start` chooses targets itself, or there are none."""
        return 0

    def find_targets(self, model: keras.Model, x: Tensor, y: Tensor) -> Tensor:
        """The class that each attempt aims at, int32 (batch, attempts), which replaces "targets" of what `start` makes.

        `run` asks for them once before all attempts.
        """
        raise NotImplementedError

    def succeeded(self, logits: Tensor, y: Tensor) -> Tensor:
        """Which logits (batch, classes) are a success against the labels `y`, bool (batch,)."""
        predicted = ops.cast(ops.argmax(logits, axis=1), "int32")
        return predicted == y if self.reaches_given_labels else predicted != y

    def reference(self, logits: Tensor, y: Tensor) -> Tensor:
        """The labels that success is judged by, (batch,), from the clean logits and the labels given."""
        return y

    def loss_value(self, logits: Tensor, state: AttackState) -> Tensor:
        """How close a candidate came, (batch,), from its logits; larger is worse for the model."""
        raise NotImplementedError

    def check_model(self, model: keras.Model) -> None:
        """Raises ValueError if the attack cannot work on that classifier."""

    def follow(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        state: AttackState,
        closest: Tensor,
        epsilon: Tensor | float,
        count: Tensor | int,
        rough: keras.Model | None = None,
    ) -> tuple[AttackState, Tensor, Tensor]:
        """`count` steps on a batch: the next state, the closest success, its distance (batch,).

        Only successes closer than `closest` (batch,) are kept; without one, the clean image and `closest`. With
        `rough`, see `advance`, the model itself may see no success there.
        """

        def body(
            _: Tensor, carry: tuple[AttackState, Tensor, Tensor]
        ) -> tuple[AttackState, Tensor, Tensor]:
            state, found, closest = carry
            candidate, done = state["x_adv"], finished(state)
            state, logits = self.advance(model, rough, x, state, epsilon)
            distance = ops.reshape(self.geometry.length(candidate - x), (-1,))
            closer = ops.logical_and(self.succeeded(logits, y), distance < closest)
            closer = ops.logical_and(closer, ops.logical_not(done))
            found = ops.where(over_images(closer, x), candidate, found)
            # Detached at each step: torch would keep the graph of all of them.
            state = keras.tree.map_structure(ops.stop_gradient, state)
            return state, ops.stop_gradient(found), ops.where(closer, distance, closest)

        return ops.fori_loop(0, count, body, (state, x, closest))

    def trajectory(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float = 0.0,
        attempt: Tensor | int = 0,
        *,
        look: Callable[[Tensor], Tensor] | None = None,
        targets: Tensor | None = None,
    ) -> tuple[AttackState, Tensor | None]:
        """One attempt on a batch, every step of it whatever comes of it: pure and traceable.

        Args:
            model: the classifier.
            x: float32 (batch, ...), clean images.
            y: int32 (batch,), labels.
            keys: random keys, as for `start`.
            epsilon: as for `start`.
            attempt: as for `start`.
            targets: what `find_targets` gave, if the attack has it; by default it is asked here.
            look: maps the logits (batch, classes) of a candidate to a number an example, (batch,).

        Returns:
            The state after the last step; and float32 (batch, steps), what `look` saw before each, None without it.
        """
        steps = self.steps_on(x.shape[1:])

        def step(number: Tensor, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            state, *seen = carry
            state, logits = self.step(model, x, state, epsilon)
            if look is not None:
                seen = [ops.where(ops.arange(steps)[None] == number, look(logits)[:, None], *seen)]
            # Detached at each step: torch would keep the graph of all of them.
            return keras.tree.map_structure(ops.stop_gradient, (state, *seen))

        state = self.start(model, x, y, keys, epsilon, attempt)
        if self.aiming_passes(model):
            targets = self.find_targets(model, x, y) if targets is None else targets
            state["targets"] = ops.take(targets, attempt, axis=1)
        carry: tuple[Any, ...] = (state,)
        if look is not None:
            carry += (ops.zeros((ops.shape(x)[0], steps), "float32"),)
        carry = ops.fori_loop(0, steps, step, carry) if steps else carry
        return carry if look is not None else (*carry, None)

    def run(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor | None = None,
        *,
        numbers: Tensor | None = None,
        seed: int = 0,
        batch_size: int = 128,
        precision: str = "float32",
        progress: bool = True,
        state_file: str | pathlib.Path | None = None,
        with_flags: bool = True,
    ) -> AttackResult:
        """Attacks a whole set of images; what counts as a success is judged in float32.

        Images leave the working set as soon as they are done (fixed budget: a candidate fools the model,
        the clean image included); what is left is packed into batches of a few fixed sizes. An image's
        random draws depend on `seed` and on its number alone, but for those of a random model, see `EOT`.

        Args:
            model: classifier, images in [0, 1] to logits.
            x: float array (n, height, width, channels) in [0, 1].
            y: integer array (n,); default: the predicted labels. Required if they are targets (`reaches_given_labels`).
            numbers: integer array (n,) of different values in 0..2**31 - 1: each image's number in a larger set of
                which `x` is a part. Default: its position in `x`.
            seed: integer seed for all randomness, in [0, 2**64); default 0.
            batch_size: images in a full batch, >= 1; default 128.
            precision: "float32" (default), or "bfloat16": gradients use a copy of the model that computes in bfloat16
                between its first and its last layer, see `robust_zoo.copies.in_bfloat16`. Images stay float32, and a
                success that the copy reports counts if the model itself agrees. Square stays in float32: it compares
                losses that bfloat16 does not tell apart.
            progress: whether to show a progress bar (on a terminal only).
            state_file: file (.npz) that the attack's progress is saved to (atomic write), at most every 30 seconds and
                at the end. If it exists, the attack resumes from it; remove it to start over. Default: no file.
            with_flags: whether to look for the signs of `find_flags`; default True.

        Raises:
            TypeError, ValueError: inputs that `robust_zoo.contract` refuses, a seed out of range, missing targets, a
                model or image shape that the attack cannot work on, a model that has no copy in bfloat16, or a state
                file that cannot be read or belongs to another attack, model, data, precision or seed.
            RuntimeError: a candidate outside the ball or outside [0, 1], which is a bug in the attack.
        """
        return run(
            self,
            model,
            x,
            y,
            numbers=numbers,
            seed=seed,
            batch_size=batch_size,
            precision=precision,
            progress=progress,
            state_file=state_file,
            with_flags=with_flags,
        )

    result: ClassVar[type[AttackResult]] = AttackResult
    """What `run` returns."""

    flagged: ClassVar[int] = 0
    """How many images, at most, `find_flags` looks at: the first ones. 0 if there are no flags."""

    def find_flags(
        self, model: keras.Model, x: np.ndarray, y: np.ndarray | None, *, batch_size: int
    ) -> tuple[Check, ...]:
        """Signs, besides what `search` returns, that the attack's verdict on a model cannot be trusted.

        Args:
            model: float32 classifier.
            x: float32 (n, height, width, channels) in [0, 1], of which the first `flagged` are looked at.
            y: int32 (n,), or None for the predicted labels.
            batch_size: images in a full batch.
        """
        return ()

    def search(
        self,
        model: keras.Model,
        x: np.ndarray,
        y: np.ndarray | None,
        *,
        rough: keras.Model | None,
        numbers: np.ndarray,
        seed: int,
        batch_size: int,
        progress: bool,
        state: StateFile,
    ) -> dict:
        """The fields of the result, without distance and seconds; see `run`, which checked everything.

        `rough` is a copy of the model in less precision, for the steps; None if they use the model itself.
        """
        options: dict[str, Any] = {"key": random.key(seed), "batch_size": batch_size}
        working_set = WorkingSet(self, model, x, y, rough=rough, numbers=numbers, **options)
        with state.restoring():
            working_set.restore(state.load())
        title = type(self).__name__
        with progress_bar(
            title, working_set.work, done=working_set.done, enabled=progress
        ) as advance:
            working_set.run(advance, lambda: state.save(working_set.snapshot))
        state.save(working_set.snapshot, now=True)
        found = working_set.found()
        return found | self.confirmed(model, x, working_set.y, found, seed, batch_size)

    def confirmed(
        self,
        model: keras.Model,
        x: np.ndarray,
        y: np.ndarray,
        found: dict[str, Any],
        seed: int,
        batch_size: int,
    ) -> dict[str, Any]:
        """What fresh draws of a random model make of what was found: other values of its entries, and "fooled".

        Nothing changes where the attack does not average over draws. `y` (n,): the labels that success is judged by.
        """
        if self.samples == 1:
            return {}
        options = {"samples": self.samples, "seed": seed, "batch_size": batch_size}
        right = share_right(model, found["x_adv"], y, **options)
        fooled = right if self.reaches_given_labels else 1 - right
        return {
            "success": fooled > 0.5,
            "fooled": fooled,
            "queries": found["queries"] + self.samples,
        }

    def check_shape(self, image_shape: tuple[int, ...]) -> None:
        """Raises ValueError if images of that shape cannot be attacked."""

    def verify(self, x_adv: np.ndarray, distance: np.ndarray) -> None:
        """Raises RuntimeError for images outside the ball or outside [0, 1], which is a bug in the attack."""
        if not (x_adv.min() >= 0 and x_adv.max() <= 1):
            raise RuntimeError(
                f"{self!r} left [0, 1]: values from {x_adv.min():.9g} to {x_adv.max():.9g}."
            )

    def _prepare_call(
        self, model: keras.Model, x: Tensor, y: Tensor | None, key: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Labels as int32 and one key an example."""
        y = ops.argmax(model(x, training=False), axis=1) if y is None else y
        if len(key.shape) == 1:
            key = random.fold_in(key, ops.arange(ops.shape(x)[0]))
        return ops.cast(y, "int32"), key


@dataclass(frozen=True, kw_only=True)
class FixedBudgetAttack(Attack):
    """Base of the attacks that stay in a ball: any candidate in it that fools the model is a success.

    Subclasses also implement `loss_value`, and `template` if their steps only depend on epsilon by scale.

    Attributes:
        epsilon: radius of the ball that is never left, > 0, in [0, 1] pixel units: at most 1 for linf; for l0 the
            number of values that may change, a whole number.
    """

    epsilon: float

    def _check_budget(self) -> None:
        check_epsilon(self.epsilon, self.norm)

    def __call__(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor | None = None,
        *,
        key: Tensor,
        epsilon: Tensor | float | None = None,
    ) -> Tensor:
        """Adversarial images for a batch: pure and traceable, for use inside a training step.

        Args:
            model: classifier, images to logits; called with `training=False`.
            x: float32 tensor (batch, height, width, channels) in [0, 1].
            y: integer tensor (batch,); by default the predicted labels.
            key: one random key (2,), from `robust_zoo.backend.random.key`, or one an example (batch, 2).
            epsilon: replaces the attack's own, its step size in proportion: scalar or (batch,) tensor.

        Returns:
            The last iterate, in the shape of `x`, or the best one if the attack keeps it; of several
            attempts, each example's of highest loss.
        """
        model = self.expected(model)
        x = ops.convert_to_tensor(x, dtype="float32")
        epsilon = self.epsilon if epsilon is None else ops.cast(epsilon, "float32")
        if len(getattr(epsilon, "shape", ())) == 1:
            epsilon = over_images(epsilon, x)
        y, key = self._prepare_call(model, x, y, key)

        targets = self.find_targets(model, x, y) if self.aiming_passes(model) else None

        def attempt(number: Tensor | int) -> tuple[Tensor, AttackState]:
            keys = random.fold_in(key, number)
            state, _ = self.trajectory(model, x, y, keys, epsilon, number, targets=targets)
            return strongest(state), state

        attempts = self.attempts_on(model)
        if attempts == 1:
            return ops.stop_gradient(attempt(0)[0])

        def better(number: Tensor, best: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            x_adv, state = attempt(number)
            logits = logits_of(model, x_adv)
            loss = self.loss_value(logits, state)
            wins = loss > best[1]
            x_adv = ops.where(over_images(wins, x), x_adv, best[0])
            return x_adv, ops.maximum(loss, best[1])

        lowest = ops.full((ops.shape(x)[0],), -np.inf, dtype="float32")
        return ops.stop_gradient(ops.fori_loop(0, attempts, better, (x, lowest))[0])

    def succeeded(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.samples > 1:
            # A candidate that just fools the draws it was made on fools few others: the one of highest loss is kept.
            return ops.zeros_like(y, dtype="bool")
        return super().succeeded(logits, y)

    def within(self, epsilon: float, norm: str | None = None) -> Self:
        """A copy in another ball, by default of the same norm, its step size in proportion."""
        changes: dict[str, Any] = {"norm": norm or self.norm, "epsilon": epsilon}
        if "step_size" in type(self).__dataclass_fields__:
            changes["step_size"] = self.step_size / self.epsilon * epsilon
        return self.replace(**changes)

    def sweep(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor | None = None,
        *,
        epsilons: Sequence[float],
        **options: Any,
    ) -> Sweep:
        """`run` within several balls, a step size in proportion: accuracy against epsilon.

        What is broken within one ball counts as broken within every larger one, and is not attacked again.

        Args:
            model: see `run`.
            x: see `run`.
            y: see `run`.
            epsilons: radii, each as `epsilon` may be, rising.
            **options: all else that `run` takes, but `state_file`.

        Raises:
            TypeError, ValueError: as `run`; or no epsilons, or some that do not rise.
        """
        return sweep(self, model, x, y, epsilons, options)

    def check_shape(self, image_shape: tuple[int, ...]) -> None:
        white = np.ones((1, *image_shape), "float32")
        largest = self.geometry.distance(white, np.zeros_like(white)).item()
        if self.epsilon > largest:
            raise ValueError(
                f"epsilon must be at most {largest:.6g}, the {self.norm} distance from black to white for "
                f"images of shape {image_shape} in [0, 1], got {self.epsilon!r}."
            )

    @property
    def allowed_distance(self) -> float:
        """Epsilon with room for rounding."""
        return allowed_distance(self.epsilon)

    def verify(self, x_adv: np.ndarray, distance: np.ndarray) -> None:
        if not (distance <= self.allowed_distance).all():
            raise RuntimeError(
                f"{self!r} left its ball: {self.norm} distance {distance.max():.9g} > {self.epsilon:.9g}."
            )
        super().verify(x_adv, distance)


@dataclass(frozen=True, kw_only=True)
class MinimumNormAttack(Attack):
    """Base of the attacks that look for the closest adversarial example; the clean image if there is none."""

    def confirmed(
        self,
        model: keras.Model,
        x: np.ndarray,
        y: np.ndarray,
        found: dict[str, Any],
        seed: int,
        batch_size: int,
    ) -> dict[str, Any]:
        changes = super().confirmed(model, x, y, found, seed, batch_size)
        if changes:
            stays = changes["success"].reshape(-1, *[1] * (x.ndim - 1))
            changes["x_adv"] = np.where(stays, found["x_adv"], x)
        return changes

    def advance(
        self,
        model: keras.Model,
        rough: keras.Model | None,
        x: Tensor,
        state: AttackState,
        epsilon: Tensor | float,
    ) -> tuple[AttackState, Tensor]:
        # What is found is near the boundary, where the two differ: the model is asked at each step.
        if rough is None:
            return self.step(model, x, state, epsilon)
        return self.step(rough, x, state, epsilon)[0], logits_of(model, state["x_adv"])

    def loss_value(self, logits: Tensor, state: AttackState) -> Tensor:
        # Nothing that failed to fool the model is worth keeping.
        return ops.full((ops.shape(logits)[0],), -np.inf, dtype="float32")

    def __call__(
        self, model: keras.Model, x: Tensor, y: Tensor | None = None, *, key: Tensor
    ) -> Tensor:
        """Adversarial images for a batch, the closest ones found: pure and traceable.

        Args:
            model: classifier, images to logits; called with `training=False`.
            x: float32 tensor (batch, height, width, channels) in [0, 1].
            y: integer tensor (batch,); by default the predicted labels.
            key: one random key (2,), from `robust_zoo.backend.random.key`, or one an example (batch, 2).
        """
        model = self.expected(model)
        x = ops.convert_to_tensor(x, dtype="float32")
        y, key = self._prepare_call(model, x, y, key)
        steps = self.steps_on(x.shape[1:]) + 1  # one more looks at what the last one made
        logits = logits_of(model, x)
        y = ops.cast(self.reference(logits, y), "int32")
        done = ops.where(self.succeeded(logits, y), 0.0, np.inf)

        def attempt(number: Tensor, best: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            x_adv, closest = best
            keys = random.fold_in(key, number)
            state = self.start(model, x, y, keys, 0.0, number)
            _, found, distance = self.follow(model, x, y, state, closest, 0.0, steps)
            return ops.where(over_images(distance < closest, x), found, x_adv), distance

        return ops.stop_gradient(ops.fori_loop(0, self.attempts_on(model), attempt, (x, done))[0])
