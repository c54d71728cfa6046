"""The binarisation test: do the attacks of a record find an adversarial example that is known to be there?

After Zimmermann et al., "Increasing confidence in adversarial robustness evaluations" (NeurIPS 2022). For each image
the model's last layer gives way to two logits on the same features, a linear classifier that separates one point on
the surface of the ball from the image and many points inside it. That point is an adversarial example; attacks that
do not find one cannot be trusted on the model itself.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from robust_zoo import backend
from robust_zoo.attacks import AttackResult, FixedBudgetAttack
from robust_zoo.attacks.losses import CWMargin
from robust_zoo.contract import graph_of
from robust_zoo.describe import describe_attack
from robust_zoo.inference import batch_sizes, in_batches, predict
from robust_zoo.progress import progress_bar
from robust_zoo.record import Check, ThreatModel, wilson_interval
from robust_zoo.typing import Tensor

N_EXAMPLES = 32  # how many of the evaluated images get an example planted
_INNER = (
    999,
    99,
    9,
)  # points inside the ball besides the image: as many as can be separated from the planted one
_CONTROL = 200  # points on its surface that stand for an attack which only guesses
_GAP = 0.05  # between the inner points and the surface, as a share of epsilon
_REQUIRED = 0.95  # share that must be found
_TOO_EASY = 0.5  # share found by guessing above which a pass says nothing
_LEAST = 30  # examples that a pass needs
_PART = 2**25  # bytes of the points that are made at once


def binarisation_test(
    model: keras.Model,
    x: np.ndarray,
    attacks: Sequence[FixedBudgetAttack],
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    progress: bool,
) -> Check | None:
    """The share of planted examples that the attacks find, all together.

    An attack keeps its hyperparameters, but for those that need more than two classes: one target is left, and the
    margin takes the place of DLR. The logits of a test model span as much as the model's own do on the same points.

    Args:
        model: float32 classifier.
        x: float32 (n, height, width, channels) in [0, 1]; the first `N_EXAMPLES` are used.
        attacks: those with the budget of `threat`.
        threat: norm and epsilon.
        seed: integer seed of the points and of the attacks.
        batch_size: of the passes that find features.
        progress: whether to show a progress bar.

    Returns:
        The check, or None if no attack can work on two classes. It passes if at least 95% are found, fails if they
        are fewer by more than chance, and does not tell where guessing finds more than half of them, too.
    """
    x = x[:N_EXAMPLES]
    features = _Features(model, batch_size)
    head = layers.Dense(2, dtype="float32", name="planted")
    test_model = keras.Model(model.inputs[0], head(features.tensor), name=model.name)
    usable = [attack for attack in map(_for_two_classes, attacks) if _fits(attack, test_model)]
    if not usable:
        return None
    found, guessed, inner, label = [], [], [], np.zeros(1, "int32")
    with progress_bar("Binarisation test", len(x), enabled=progress) as advance:
        for number, image in enumerate(x[:, None]):
            points = _Points(image, threat, np.random.default_rng([seed, number]))
            apart = _plant(head, test_model, features, points)
            if apart is not None:
                inner.append(apart)
                results = [
                    attack.run(test_model, image, label, seed=seed, batch_size=1, progress=False)
                    for attack in usable
                ]
                found.append([_broken(test_model, result) for result in results])
                weights, bias = head.get_weights()
                logits = [features(part)[0] @ weights + bias for part in points.surface(_CONTROL)]
                guessed.append(np.concatenate(logits).argmax(1).any())
            advance(1)
    return _check(usable, found, guessed, inner, len(x), features)


def _broken(test_model: keras.Model, result: AttackResult) -> bool:
    return bool(result.success[0] and predict(test_model, result.x_adv, 1)[0].argmax() == 1)


def _check(
    attacks: Sequence[FixedBudgetAttack],
    found: Sequence[Sequence[bool]],
    guessed: Sequence[bool],
    inner: Sequence[int],
    n: int,
    features: "_Features",
) -> Check:
    """`found`: bool (planted, attacks); `guessed`: bool (planted,); `inner`: int (planted,); of `n` images."""
    hits = np.array(found, dtype=bool).reshape(-1, len(attacks))
    planted, together = len(hits), int(hits.any(axis=1).sum())
    passed = None
    if planted and wilson_interval(together, planted)[1] < _REQUIRED:
        passed = False
    elif planted >= _LEAST and together >= _REQUIRED * planted:
        passed = True if sum(guessed) <= _TOO_EASY * planted else None
    each = "; ".join(
        f"{describe_attack(attack)} {count}"
        for attack, count in zip(attacks, hits.sum(axis=0), strict=True)
    )
    return Check(
        name="binarisation_test",
        passed=passed,
        value=together / planted if planted else 0.0,
        explanation=f"An adversarial example was planted for {planted} of {n} images by a new last layer on "
        f"{features.count} features, {features.place}, that tells it from {min(inner, default=0)} points or more inside "
        "the ball (for the others there is none). "
        f"The attacks found {together} ({each}), {_CONTROL} random points of the surface {sum(guessed)}. Below "
        f"{_REQUIRED:.0%}, by more than chance, the attacks miss what is certainly there: use more steps, more restarts "
        "or other attacks (one step alone is expected to). Where random points find more than half, finding them proves "
        "nothing. What the model does behind that layer is not tested.",
    )


def _for_two_classes(attack: FixedBudgetAttack) -> FixedBudgetAttack:
    """The attack, changed where it needs more classes than two."""
    changes: dict[str, Any] = {}
    if getattr(attack, "targets", 0) > 1:
        changes["targets"] = 1
    if getattr(getattr(attack, "loss", None), "min_classes", 2) > 2:
        changes["loss"] = CWMargin()
    return attack.replace(**changes)


def _fits(attack: FixedBudgetAttack, model: keras.Model) -> bool:
    try:
        attack.check_model(model)
    except ValueError:
        return False
    return True


def _plant(
    head: keras.layers.Dense, test_model: keras.Model, features: "_Features", points: "_Points"
) -> int | None:
    """Gives the head weights by which class 1 is one point of the surface alone, not the image nor points inside.

    Returns how many points inside, or None if no weights do it.
    """
    # Imported here: it takes a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    target = next(points.surface(1))
    some = itertools.chain((target, points.image), points.inside(_INNER[0]))
    values, spans = zip(*map(features, some), strict=True)
    values = np.concatenate(values)
    for inner in _INNER:
        nearest = values[: inner + 2]
        planted = np.arange(len(nearest)) == 0
        scaler = StandardScaler().fit(nearest)
        separator = LogisticRegression(C=1e6, max_iter=1000)  # all but unregularised
        separator.fit(scaler.transform(nearest), planted)
        weights = separator.coef_[0] / scaler.scale_
        bias = separator.intercept_[0] - weights @ scaler.mean_
        margin = nearest @ weights + bias
        if np.array_equal(margin > 0, planted):
            scale = (np.max(spans) - np.min(spans)) / (2 * np.abs(margin).max())
            head.set_weights(
                [scale * np.stack([-weights, weights], 1), scale * np.array([-bias, bias])]
            )
            both = predict(test_model, np.concatenate([points.image, target]), 1).argmax(1)
            return inner if both.tolist() == [0, 1] else None
    return None


_LOGITS = "the logits"


class _Features:
    """What goes into a model's last dense or convolutional layer; the logits where no such layer stands alone.

    Attributes:
        tensor: symbolic (batch, features).
        count: of features.
        place: where they stand, in words.
    """

    def __init__(self, model: keras.Model, batch_size: int) -> None:
        found = _before_last_layer(model)
        if found is None:
            self.tensor, self.place = model.outputs[0], _LOGITS
        else:
            self.tensor, self.place = found[0], f"the input of {found[1].name!r}"
        self.count = self.tensor.shape[1]
        self._sizes = batch_sizes(batch_size)
        both = keras.Model(model.inputs[0], [self.tensor, model.outputs[0]])

        def compute(x: Tensor) -> Tensor:
            parts = both(x, training=False)
            return ops.concatenate([ops.cast(part, "float32") for part in parts], axis=1)

        self._compute = backend.function(compute, both)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        """Of images: float64 (n, features), and the least and the largest logit."""
        values = in_batches(self._compute, self._sizes, x).astype("float64")
        logits = values[:, self.count :]
        return values[:, : self.count], (logits.min(), logits.max())


def _before_last_layer(model: keras.Model) -> tuple[keras.KerasTensor, keras.layers.Layer] | None:
    """The tensor (batch, features) before the last layer with a kernel, and that layer; None if there is none.

    Of a convolution it is the mean over places, as if the convolution stood behind the pooling.
    """
    tensor = model.outputs[0]
    while True:
        history = tensor._keras_history
        operation = history.operation
        sources = operation._inbound_nodes[history.node_index].input_tensors
        if len(sources) != 1:
            return None
        if isinstance(operation, keras.Model):
            inside = _before_last_layer(operation) if graph_of(operation) else None
            if inside is None:
                return None
            return keras.Model(operation.inputs[0], inside[0])(sources[0]), inside[1]
        if hasattr(operation, "kernel"):
            return _flat(sources[0], places=tensor.shape[1:-1]), operation
        tensor = sources[0]


def _flat(tensor: keras.KerasTensor, places: tuple[int | None, ...]) -> keras.KerasTensor:
    """`tensor` as (batch, features): its mean over places where it has several, else all its values."""
    if len(places) == 2 and places != (1, 1):
        return layers.GlobalAveragePooling2D(dtype="float32")(tensor)
    return tensor if len(tensor.shape) == 2 else layers.Flatten(dtype="float32")(tensor)


class _Points:
    """Random points of the ball around one image (1, ...), a few at a time: float32 arrays within [0, 1]."""

    def __init__(
        self, image: np.ndarray, threat: ThreatModel, generator: np.random.Generator
    ) -> None:
        self.image, self.norm, self.epsilon = image, threat.norm, threat.epsilon
        self._generator = generator

    def inside(self, count: int) -> Iterator[np.ndarray]:
        """Nearer than the surface by the gap. linf: every other one a corner of the smaller cube, without which the
        amount of noise alone would tell the surface from the inside, the rest uniform in it; l2: at that distance;
        l0: random values at random places.
        """
        radius = (1 - _GAP) * self.epsilon
        for shape in self._shapes(count):
            if self.norm == "linf":
                change = self._generator.uniform(-radius, radius, shape)
                change[::2] = radius * np.sign(change[::2])
                yield np.clip(self.image + change, 0, 1).astype("float32")
            elif self.norm == "l2":
                yield self._at_distance(radius, shape)
            else:
                yield self._replaced(int(radius), self._generator.uniform(0, 1, shape))

    def surface(self, count: int) -> Iterator[np.ndarray]:
        """On the surface. linf: corners; l2: in any direction; l0: values made black or white, whichever is farther."""
        for shape in self._shapes(count):
            if self.norm == "linf":
                change = self.epsilon * self._generator.choice([-1.0, 1.0], shape)
                yield np.clip(self.image + change, 0, 1).astype("float32")
            elif self.norm == "l2":
                yield self._at_distance(self.epsilon, shape)
            else:
                farther = np.where(self.image < 0.5, 1.0, 0.0)
                yield self._replaced(int(self.epsilon), np.broadcast_to(farther, shape))

    def _shapes(self, count: int) -> Iterator[tuple[int, ...]]:
        # An even number, since the points inside are of two kinds by turns.
        part = max(2, _PART // (8 * self.image.size) // 2 * 2)
        for first in range(0, count, part):
            yield min(part, count - first), *self.image.shape[1:]

    def _at_distance(self, distance: float, shape: tuple[int, ...]) -> np.ndarray:
        """In random directions, at an l2 distance that holds after clipping, where it can be reached."""
        axes = tuple(range(1, len(shape)))

        def length(change: np.ndarray) -> np.ndarray:
            return np.maximum(np.sqrt(np.square(change).sum(axis=axes, keepdims=True)), 1e-12)

        change = kept = self._generator.normal(size=shape)
        for _ in range(30):
            change = change * (distance / length(kept))
            kept = np.clip(self.image + change, 0, 1) - self.image
            if (length(kept) > (1 - 1e-3) * distance).all():
                break
        return (self.image + kept * np.minimum(1, distance / length(kept))).astype("float32")

    def _replaced(self, count: int, values: np.ndarray) -> np.ndarray:
        """The image with `count` of its values replaced, at random places."""
        flat = np.repeat(self.image.reshape(1, -1), len(values), axis=0)
        places = self._generator.random(flat.shape).argsort(axis=1)[:, :count]
        new = np.take_along_axis(values.reshape(flat.shape), places, axis=1)
        np.put_along_axis(flat, places, new.astype("float32"), axis=1)
        return flat.reshape(values.shape)
