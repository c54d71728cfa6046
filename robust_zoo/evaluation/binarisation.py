"""The binarisation test: do the attacks of a record find an adversarial example that is known to be there?

After Zimmermann et al., "Increasing confidence in adversarial robustness evaluations" (NeurIPS 2022). For each image
the model's last layer gives way to two logits on the same features, a linear classifier that separates one point on
the surface of the ball from the image and many points inside it. That point is an adversarial example; attacks that
do not find one cannot be trusted on the model itself.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from robust_zoo import backend
from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.attacks.expectation import share_right
from robust_zoo.attacks.losses import CWMargin
from robust_zoo.attacks.norms import get_norm
from robust_zoo.contract import graph_of
from robust_zoo.describe import describe_attack
from robust_zoo.inference import batch_sizes, in_batches, once
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
_SHOWN = 4096  # values of an image, at most, by which it is told from the others


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
        batch_size: of the passes and of the attacks.
        progress: whether to show a progress bar.

    Returns:
        The check, or None if no attack can work on two classes. It passes if at least 95% are found, fails if they
        are fewer by more than chance, and does not tell where guessing finds more than half of them, too.
    """
    x = x[:N_EXAMPLES]
    part = ("binarisation", threat.norm, N_EXAMPLES)
    test = once(model, x.shape[1:], part, lambda: _TestModel(model, threat.norm, N_EXAMPLES))
    usable = [attack for attack in map(_for_two_classes, attacks) if _fits(attack, test.model)]
    if not usable:
        return None
    heads: dict[int, _Head] = {}
    with progress_bar("Binarisation test", 2 * len(x), enabled=progress) as advance:
        for number, image in enumerate(x[:, None]):
            points = _Points(image, threat, np.random.default_rng([seed, number]))
            head = _plant(test.features, points, batch_size)
            if head is not None:
                heads[number] = head
            advance(1)
        found = np.zeros((len(x), len(usable)), dtype=bool)
        options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "progress": False}
        for group in _told_apart(test.shown(x), threat):
            planted = [number for number in group if number in heads]
            if planted:
                test.take(x, {number: heads[number] for number in planted})
                labels = np.zeros(len(planted), "int32")
                numbers = np.array(planted)
                for place, attack in enumerate(usable):
                    result = attack.run(test.model, x[planted], labels, numbers=numbers, **options)
                    ones = np.ones(len(planted), "int32")
                    seen = share_right(
                        test.model, result.x_adv, ones, samples=attack.samples, seed=seed,
                        batch_size=batch_size,
                    )  # fmt: skip
                    found[planted, place] = result.success & (seen > 0.5)
            advance(len(group))
    return _check(usable, found[[*heads]], [*heads.values()], len(x), test.features)


class _Head(NamedTuple):
    """A last layer of two classes for one image: class 1 is what was planted."""

    weights: np.ndarray  # float32 (features, 2)
    bias: np.ndarray  # float32 (2,)
    inner: int  # points inside the ball that it tells from the planted one
    guessed: bool  # whether one of the random points of the surface is class 1


class _Heads(layers.Layer):
    """A head for each of `count` images; a candidate gets that of the image which it is nearest to.

    Within balls that do not meet this is the image that it was made from. Distances are those of the values shown.
    """

    def __init__(self, norm: str, count: int, stride: int) -> None:
        super().__init__(dtype="float32", trainable=False, name="planted")
        self.norm, self.count, self.stride = norm, count, stride

    def build(self, shapes: list[tuple[Any, ...]]) -> None:
        values = len(range(0, math.prod(shapes[0][1:]), self.stride))
        self.centres = self.add_weight((self.count, values), name="centres")
        self.weights_of = self.add_weight((self.count, shapes[1][1], 2), name="weights")
        self.bias_of = self.add_weight((self.count, 2), name="bias")

    def compute_output_shape(self, shapes: list[tuple[int | None, ...]]) -> tuple[int | None, int]:
        return shapes[0][0], 2

    def call(self, inputs: list[Tensor]) -> Tensor:
        x, features = inputs
        shown = ops.stop_gradient(shown_values(x, self.stride))
        apart = ops.expand_dims(shown, 1) - ops.expand_dims(self.centres, 0)
        length = get_norm(self.norm).length(ops.reshape(apart, (-1, apart.shape[2])))
        nearest = ops.argmin(ops.reshape(length, (-1, self.count)), axis=1)
        weights, bias = (ops.take(of, nearest, axis=0) for of in (self.weights_of, self.bias_of))
        return ops.squeeze(ops.matmul(ops.expand_dims(features, 1), weights), 1) + bias


def shown_values(x: Tensor, stride: int) -> Tensor:
    """Every `stride`-th value of images, (batch, values)."""
    return ops.reshape(x, (-1, math.prod(x.shape[1:])))[:, ::stride]


class _TestModel:
    """The model with its last layer replaced by heads.

    Attributes:
        model: images to two logits.
        features: what the heads get.
    """

    def __init__(self, model: keras.Model, norm: str, count: int) -> None:
        self.features = _Features(model)
        image = model.inputs[0]
        self._stride = -(-math.prod(image.shape[1:]) // _SHOWN)
        self._heads = _Heads(norm, count, self._stride)
        outputs = self._heads([image, self.features.tensor])
        self.model = keras.Model(image, outputs, name=model.name)

    def shown(self, x: np.ndarray) -> np.ndarray:
        """The values of images (n, ...) by which the heads tell them apart, (n, values)."""
        return ops.convert_to_numpy(shown_values(x, self._stride))

    def take(self, x: np.ndarray, heads: dict[int, _Head]) -> None:
        """Takes the heads of some of the images `x`, by their numbers."""
        # The last one fills what is left.
        numbers = [*heads, *[max(heads)] * (self._heads.count - len(heads))]
        chosen = [heads[number] for number in numbers]
        weights, bias = (
            np.stack([getattr(head, of) for head in chosen]) for of in ("weights", "bias")
        )
        self._heads.set_weights([self.shown(x[numbers]), weights, bias])


def _told_apart(shown: np.ndarray, threat: ThreatModel) -> Iterator[list[int]]:
    """Numbers of images (n, values) in groups within which no two balls meet."""
    norm, left = get_norm(threat.norm), list(range(len(shown)))
    apart = [norm.distance(shown, np.broadcast_to(one, shown.shape)) for one in shown]
    while left:
        group: list[int] = []
        for number in left:
            if (apart[number][group] > 2.01 * threat.epsilon).all():
                group.append(number)
        yield group
        left = [number for number in left if number not in group]


def _check(
    attacks: Sequence[FixedBudgetAttack],
    hits: np.ndarray,
    heads: Sequence[_Head],
    n: int,
    features: "_Features",
) -> Check:
    """`hits`: bool (planted, attacks), which attack found it; `heads`: those planted; of `n` images."""
    planted, together = len(hits), int(hits.any(axis=1).sum())
    guessed = [head.guessed for head in heads]
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
        f"{features.count} features, {features.place}, that tells it from {min((head.inner for head in heads), default=0)} points or more inside "
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


def _plant(features: "_Features", points: "_Points", batch_size: int) -> _Head | None:
    """A head by which class 1 is one point of the surface alone, not the image nor points inside; None if none does."""
    # Imported here: it takes a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    target, inside = next(points.surface(1)), points.inside(_INNER[0])
    first = np.concatenate([target, points.image, *itertools.islice(inside, 1)])
    some = itertools.chain((first,), inside)
    values, spans = zip(*(features(part, batch_size) for part in some), strict=True)
    values = np.concatenate(values)
    for inner in _INNER:
        nearest = values[: inner + 2]
        planted = np.arange(len(nearest)) == 0
        scaler = StandardScaler().fit(nearest)
        separator = LogisticRegression(C=1e6, max_iter=1000)  # all but unregularised
        with _blas().limit(limits=1):  # threads that wait for each other, on so little
            separator.fit(scaler.transform(nearest), planted)
        weights = separator.coef_[0] / scaler.scale_
        bias = separator.intercept_[0] - weights @ scaler.mean_
        margin = nearest @ weights + bias
        if np.array_equal(margin > 0, planted):
            scale = (np.max(spans) - np.min(spans)) / (2 * np.abs(margin).max())
            weights = (scale * np.stack([-weights, weights], 1)).astype("float32")
            bias = (scale * np.array([-bias, bias])).astype("float32")
            both = values[:2].astype("float32") @ weights + bias
            if both.argmax(1).tolist() != [1, 0]:
                return None
            control = (features(part, batch_size)[0] for part in points.surface(_CONTROL))
            guessed = any((part @ weights + bias).argmax(1).any() for part in control)
            return _Head(weights, bias, inner, guessed)
    return None


@functools.cache
def _blas() -> Any:
    """What limits the threads of NumPy's linear algebra."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


_LOGITS = "the logits"


class _Features:
    """What goes into a model's last dense or convolutional layer; the logits where no such layer stands alone.

    Attributes:
        tensor: symbolic (batch, features).
        count: of features.
        place: where they stand, in words.
    """

    def __init__(self, model: keras.Model) -> None:
        found = _before_last_layer(model)
        if found is None:
            self.tensor, self.place = model.outputs[0], _LOGITS
        else:
            self.tensor, self.place = found[0], f"the input of {found[1].name!r}"
        self.count = self.tensor.shape[1]
        both = keras.Model(model.inputs[0], [self.tensor, model.outputs[0]])

        def compute(x: Tensor) -> Tensor:
            parts = both(x, training=False)
            return ops.concatenate([ops.cast(part, "float32") for part in parts], axis=1)

        self._compute = backend.function(compute, both)

    def __call__(self, x: np.ndarray, batch_size: int) -> tuple[np.ndarray, tuple[float, float]]:
        """Of images: float64 (n, features), and the least and the largest logit."""
        # Passes without a gradient keep few activations, and `_PART` bounds the points.
        sizes = batch_sizes(4 * batch_size)
        values = in_batches(self._compute, sizes, x).astype("float64")
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
                change = self._uniform(shape)
                change[::2] = np.copysign(1, change[::2])
                yield self._moved(change, radius)
            elif self.norm == "l2":
                yield self._at_distance(radius, shape)
            else:
                yield self._replaced(int(radius), self._generator.uniform(0, 1, shape))

    def surface(self, count: int) -> Iterator[np.ndarray]:
        """On the surface. linf: corners; l2: in any direction; l0: values made black or white, whichever is farther."""
        for shape in self._shapes(count):
            if self.norm == "linf":
                yield self._moved(np.copysign(1, self._uniform(shape)), self.epsilon)
            elif self.norm == "l2":
                yield self._at_distance(self.epsilon, shape)
            else:
                farther = np.where(self.image < 0.5, 1.0, 0.0)
                yield self._replaced(int(self.epsilon), np.broadcast_to(farther, shape))

    def _uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        """float32 in [-1, 1)."""
        return 2 * self._generator.random(shape, "float32") - 1

    def _moved(self, change: np.ndarray, radius: float) -> np.ndarray:
        """The image with a float32 change in [-1, 1] of that radius."""
        change *= np.float32(radius)
        change += self.image
        return np.clip(change, 0, 1, out=change)

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
