"""The working set: images that are not done yet, packed into batches of a few fixed sizes."""

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks.expectation import Expectation, expected_logits
from robust_zoo.attacks.norms import over_images
from robust_zoo.attacks.state import AttackState, finished
from robust_zoo.backend import random
from robust_zoo.inference import batch_sizes, batches, call, logits_of, once
from robust_zoo.typing import Tensor

if TYPE_CHECKING:
    from robust_zoo.attacks.attack import Attack

# Images whose state is held at once: so many, or fewer if they are large, but always some.
_WINDOW, _WINDOW_BYTES, _WINDOW_LEAST = 2048, 2**27, 64


def _compile(
    attack: "Attack", model: keras.Model, rough: keras.Model | None
) -> dict[str, Callable[..., Any]]:
    """The compiled parts of an attack on a model, by name."""
    whole, part = weakref.ref(model), (lambda: None) if rough is None else weakref.ref(rough)

    def seen() -> keras.Model | Expectation:
        return attack.expected(whole())

    def copy() -> keras.Model | Expectation | None:
        return None if rough is None else attack.expected(part())

    def start(
        x: Tensor, y: Tensor, keys: Tensor, epsilon: Tensor, attempt: Tensor | int
    ) -> AttackState:
        return attack.start(seen(), x, y, random.fold_in(keys, attempt), epsilon, attempt)

    def follow(
        x: Tensor,
        y: Tensor,
        state: AttackState,
        closest: Tensor,
        epsilon: Tensor,
        count: Tensor | int,
    ) -> tuple[AttackState, Tensor, Tensor]:
        return attack.follow(seen(), x, y, state, closest, epsilon, count, copy())

    def judge(x: Tensor, y: Tensor, state: AttackState) -> tuple[Tensor, Tensor, Tensor]:
        candidate = state["x_adv"]
        logits = logits_of(seen(), candidate)
        distance = ops.reshape(attack.geometry.length(candidate - x), (-1,))
        distance = ops.where(attack.succeeded(logits, y), distance, np.inf)
        loss = attack.loss_value(logits, state)
        if "best" in state:
            last = over_images(loss > state["best_loss"], x)
            return (
                distance,
                ops.maximum(loss, state["best_loss"]),
                ops.where(last, candidate, state["best"]),
            )
        return distance, loss, candidate

    def fools(x: Tensor, y: Tensor) -> Tensor:
        return attack.succeeded(logits_of(seen(), x), y)

    def find_targets(x: Tensor, y: Tensor) -> Tensor:
        return attack.find_targets(seen(), x, y)

    parts: list[Callable[..., Any]] = [start, follow, judge]
    models = (model, *attack.models) if rough is None else (model, rough, *attack.models)
    if rough is not None:
        parts.append(fools)
    if attack.aiming_passes(model):
        parts.append(find_targets)
    return {part.__name__: backend.function(part, *models) for part in parts}


def like(expected: np.ndarray, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The array of a name; ValueError unless it has the shape and dtype of `expected`."""
    found = arrays.get(name)
    if found is None or (found.shape, found.dtype) != (expected.shape, expected.dtype):
        got = "nothing" if found is None else f"{found.dtype} {found.shape}"
        raise ValueError(f"{name} must be {expected.dtype} {expected.shape}, got {got}")
    return found


class WorkingSet:
    """Runs one attack over all images. See `Attack.run`.

    Work goes on window by window, attempt by attempt, a few steps at a time. After these the images that
    are done are dropped and the others repacked, so that all batches of a window but the last are full.
    The last is padded to the batch size, a half, a quarter, an eighth or a sixteenth of it: nothing is
    compiled for any other shape.

    Args:
        attack: any `Attack`.
        model: float32 classifier.
        x: float32 (n, height, width, channels) in [0, 1].
        y: int32 (n,), or None for the predicted labels.
        key: random key (2,); an image's own is folded from it and its number.
        batch_size: images in a full batch.
        rough: copy of the model in less precision that steps are made on, if the attack bears its rounding; None for
            the model itself.
        numbers: int (n,), the images' numbers.
        logits: float32 (n, classes) of `x`, computed if they are not given.
        stop_distance: replaces the attack's own.
        epsilon: float (n,), replaces the attack's own, its step size in proportion.

    Attributes:
        work: image-steps to do at most.
    """

    def __init__(
        self,
        attack: "Attack",
        model: keras.Model,
        x: np.ndarray,
        y: np.ndarray | None,
        *,
        key: Tensor,
        batch_size: int,
        rough: keras.Model | None = None,
        numbers: np.ndarray,
        logits: np.ndarray | None = None,
        stop_distance: float | None = None,
        epsilon: np.ndarray | None = None,
    ):
        self.attack, self.x = attack, x
        rough = rough if attack.bears_rounding else None
        if epsilon is None:
            epsilon = np.full(len(x), getattr(attack, "epsilon", 0.0))
        self._epsilon = epsilon.astype("float32").reshape(-1, *[1] * (x.ndim - 1))
        self._sizes = batch_sizes(batch_size)
        self._stop = attack.stop_distance if stop_distance is None else stop_distance
        self._keys = ops.convert_to_numpy(random.fold_in(key, numbers))
        template, shape = attack.template(), x.shape[1:]
        compiled = once(
            model if rough is None else rough,
            shape,
            template,
            lambda: _compile(template, model, rough),
        )
        self._start, self._follow, self._judge = (
            compiled[name] for name in ("start", "follow", "judge")
        )
        self._fools, self._find_targets = compiled.get("fools"), compiled.get("find_targets")
        self._aiming = attack.aiming_passes(model) * attack.samples
        if logits is None:
            logits = expected_logits(model, x, samples=attack.samples, batch_size=batch_size)
        y = logits.argmax(1).astype("int32") if y is None else y
        self.y = ops.convert_to_numpy(attack.reference(logits, y))
        fooled = np.concatenate(
            [self._call(attack.succeeded, rows, logits, self.y) for rows in self._batches(len(x))]
        )
        self._x_adv = x.copy()
        self._closest = np.where(fooled, 0.0, np.inf).astype("float32")
        self._worst = np.full(len(x), -np.inf, "float32")
        self._queries = np.full(len(x), attack.samples, "int64")
        self._todo = np.flatnonzero(~fooled)
        self._window = min(_WINDOW, max(_WINDOW_LEAST, _WINDOW_BYTES // x[0].nbytes))
        self._passes = attack.passes_on(model) * attack.samples
        self._steps, self._attempts = attack.steps_on(shape), attack.attempts_on(model)
        # How far it is: the window's first place in `todo`, the attempt, the steps done in it, the images
        # that are active in it and, between steps, their state.
        self._first = self._attempt = self._done = 0
        self._active: np.ndarray | None = None
        self._state: dict[str, np.ndarray] | None = None
        self._targets: np.ndarray | None = None  # of the window
        self.work = len(self._todo) * self._attempts * max(self._steps, 1)

    @property
    def done(self) -> int:
        """Image-steps of `work` that are behind it."""
        steps = max(self._steps, 1)
        window = len(self._todo[self._first : self._first + self._window])
        return self._first * self._attempts * steps + (self._attempt * steps + self._done) * window

    def found(self) -> dict[str, np.ndarray]:
        """x_adv, success and queries, as in `AttackResult`."""
        success = np.isfinite(self._closest)
        return {"x_adv": self._x_adv, "success": success, "queries": self._queries}

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that `restore` needs to resume from here."""
        arrays = {
            name: getattr(self, f"_{name}") for name in ("x_adv", "closest", "worst", "queries")
        }
        arrays["cursor"] = np.asarray([self._first, self._attempt, self._done])
        if self._state is not None:
            arrays["active"] = self._active
            arrays |= {f"state/{name}": value for name, value in self._state.items()}
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Goes back to where `snapshot` was taken; nothing happens if `arrays` is empty.

        Raises:
            ValueError: arrays that no snapshot of this attack has.
        """
        if not arrays:
            return
        for name in ("x_adv", "closest", "worst", "queries"):
            setattr(self, f"_{name}", like(getattr(self, f"_{name}"), arrays, name))
        cursor = like(np.zeros(3, "int64"), arrays, "cursor")
        self._first, self._attempt, self._done = map(int, cursor)
        if np.isnan(self._closest).any() or self._queries.min() < 1 or cursor.min() < 0:
            raise ValueError("it has distances, queries or places that no attack makes")
        if "active" in arrays:
            window = len(self._todo[self._first : self._first + self._window])
            self._active = arrays["active"]
            if self._active.dtype.kind != "i" or not np.isin(self._active, np.arange(window)).all():
                raise ValueError("it is at work on images that are not there")
            self._state = {
                name.removeprefix("state/"): value
                for name, value in arrays.items()
                if name.startswith("state/")
            }

    def _batches(self, rows: np.ndarray | int) -> Iterator[np.ndarray]:
        return batches(self._sizes, rows)

    def _call(self, function: Callable[..., Any], rows: np.ndarray, *arrays: Any) -> Any:
        return call(function, self._sizes, rows, *arrays)

    def run(
        self,
        tick: Callable[[int], object] = lambda count: None,
        save: Callable[[], object] = lambda: None,
    ) -> None:
        """Attacks everything.

        Args:
            tick: told of image-steps as they are done or saved, beyond `done`.
            save: called now and then, when `snapshot` may be taken.
        """
        while self._first < len(self._todo):
            window = self._todo[self._first : self._first + self._window]
            self._aim(window)
            while self._attempt < self._attempts:
                self._run_attempt(window, tick, save)
                self._attempt += 1
            self._first, self._attempt = self._first + len(window), 0

    def _aim(self, window: np.ndarray) -> None:
        """Which class each attempt on the images `window` aims at, if the attack knows that before it starts."""
        self._targets = None
        if self._find_targets is None:
            return
        x, y = self.x[window], self.y[window]
        parts = [self._call(self._find_targets, rows, x, y) for rows in self._batches(len(window))]
        self._targets = np.concatenate(parts)
        if not self._attempt and self._state is None:
            self._queries[window] += self._aiming

    def _resisting(self, rows: np.ndarray, window: np.ndarray) -> np.ndarray:
        closest = self._closest[window[rows]]
        return rows[np.isinf(closest) | (closest > self._stop)]

    def _going_on(self, rows: np.ndarray) -> np.ndarray:
        assert self._state is not None  # there are images that are active
        done = finished(self._state)
        return rows if done is False else rows[~done[rows]]

    def _run_attempt(
        self, window: np.ndarray, tick: Callable[[int], object], save: Callable[[], object]
    ) -> None:
        """One attempt on the images `window`; `rows` and the state count within the window."""
        attack, x, y = self.attack, self.x[window], self.y[window]
        epsilon = self._epsilon[window]
        everyone = self._resisting(np.arange(len(window)), window)
        if self._state is None:
            self._active = everyone
            keys, attempt = self._keys[window], np.asarray(self._attempt, "int32")
            for rows in self._batches(self._active):
                new = self._call(self._start, rows, x, y, keys, epsilon, attempt)
                if self._targets is not None:
                    new["targets"] = self._targets[rows, self._attempt]
                self._scatter(rows, new, len(window))
        assert self._active is not None  # it comes with a state
        while self._done < self._steps and len(self._active):
            # One step, then one more, then two: many images are done soon. In long attacks few are done late.
            most = max(attack.look_every, self._done // 10)
            count = min(most, max(1, self._done), self._steps - self._done)
            closest = self._closest[window]
            for rows in self._batches(self._active):
                new, candidate, distance = self._call(
                    self._follow, rows, x, y, self._state, closest, epsilon,
                    np.asarray(count, "int32"),
                )  # fmt: skip
                self._scatter(rows, new, len(window))
                if self._fools is not None:
                    distance = self._confirmed(self._fools, window[rows], candidate, distance)
                self._keep(window[rows], candidate, distance)
                self._queries[window[rows]] += count * self._passes
            self._done += count
            tick(count * len(window))
            self._active = self._resisting(self._active, window)
            self._active = self._going_on(self._active)
            save()
        tick((max(self._steps, 1) - self._done) * len(window))
        left = self._resisting(everyone, window)
        left = self._going_on(left) if len(left) else left
        for rows in self._batches(left):
            distance, loss, strongest = self._call(self._judge, rows, x, y, self._state)
            assert self._state is not None  # there were images to start on
            last, images = self._state["x_adv"][rows], window[rows]
            self._queries[images] += attack.samples
            worse = ~np.isfinite(self._closest[images]) & (loss > self._worst[images])
            self._x_adv[images[worse]] = strongest[worse]
            self._worst[images] = np.maximum(self._worst[images], loss)
            self._keep(images, last, distance)
        self._done, self._active, self._state = 0, None, None

    def _confirmed(
        self,
        fools: Callable[..., Any],
        images: np.ndarray,
        candidates: np.ndarray,
        distances: np.ndarray,
    ) -> np.ndarray:
        """The distances, infinite where the model itself is not fooled by what would be kept."""
        claimed = np.flatnonzero(distances < self._closest[images])
        y, distances = self.y[images], distances.copy()
        for rows in self._batches(claimed):
            fooled = self._call(fools, rows, candidates, y)
            distances[rows[~fooled]] = np.inf
        self._queries[images[claimed]] += self.attack.samples
        return distances

    def _keep(self, images: np.ndarray, candidates: np.ndarray, distances: np.ndarray) -> None:
        """Notes candidates that are closer than what was found before."""
        closer = distances < self._closest[images]
        self._x_adv[images[closer]] = candidates[closer]
        self._closest[images] = np.minimum(self._closest[images], distances)

    def _scatter(self, rows: np.ndarray, new: dict[str, np.ndarray], size: int) -> None:
        """Writes `new` to `rows` of the state, arrays of length `size` that are made when needed."""
        if self._state is None:
            self._state = {
                name: np.zeros((size, *value.shape[1:]), value.dtype) for name, value in new.items()
            }
        for name, value in new.items():
            self._state[name][rows] = value
