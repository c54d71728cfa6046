"""Label policies: which class an attack moves away from, or towards if it is targeted."""

import keras
import numpy as np
from keras import ops

from robust_zoo.attacks.expectation import Expectation, value_and_input_gradient
from robust_zoo.attacks.losses import LOWEST, at
from robust_zoo.attacks.norms import DUAL, get_norm
from robust_zoo.backend import random
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

_CANDIDATES = 100


def choose_labels(policy: str, logits: Tensor, y: Tensor, keys: Tensor) -> Tensor:
    """The label that `policy` names, int32 (batch,), fixed from the clean image.

    Args:
        policy: "true" (the labels given), "predicted", "least_likely", or "random" (uniform over the
            classes other than the predicted one, so that the true label is not used).
        logits: float32 (batch, classes) of the clean images; unused by "true".
        y: int32 (batch,); used by "true" alone.
        keys: (batch, 2); used by "random" alone.
    """
    if policy == "true":
        return y
    predicted = ops.cast(ops.argmax(logits, axis=1), "int32")
    if policy == "predicted":
        return predicted
    if policy == "least_likely":
        return ops.cast(ops.argmin(logits, axis=1), "int32")
    num_classes = logits.shape[1]
    shift = 1 + random.integers(keys, num_classes - 1)
    return (predicted + shift) % num_classes


def ranked_class(logits: Tensor, rank: Tensor | int) -> Tensor:
    """The class of a rank among the logits (batch, classes), int32 (batch,); rank 0 is the highest.

    `rank` is an int or an integer scalar tensor below the number of classes.
    """
    order = ops.argsort(-logits, axis=1)
    return ops.cast(ops.take(order, rank, axis=1), "int32")


def nearest_classes(
    model: keras.Model | Expectation, x: Tensor, labels: Tensor, norm: str, count: int
) -> Tensor:
    """The classes whose linearised boundary is nearest, int32 (batch, count) (MALT, arXiv:2407.02240).

    The distance to class k is (z_y - z_k) / |grad (z_k - z_y)| in the dual norm, to first order at `x`. Only the
    100 most likely classes besides the label, or `count` if that is more, are looked at, by a pass each. A class whose
    gradient is that of the label comes last.

    Args:
        model: the classifier.
        x: float32 (batch, ...), images.
        labels: int32 (batch,), which are left out.
        norm: "linf", "l2" or "l1".
        count: how many, fewer than the model has classes.
    """
    logits = logits_of(model, x)
    given = ops.one_hot(labels, logits.shape[1], dtype="bool")
    looked_at = candidates(logits.shape[1], count)
    _, likely = ops.top_k(ops.where(given, LOWEST, logits), looked_at)
    dual, places = get_norm(DUAL[norm]), ops.arange(looked_at)[None]

    def look(place: Tensor, distances: Tensor) -> Tensor:
        target = ops.take(likely, place, axis=1)

        def gap(x: Tensor) -> Tensor:
            z = logits_of(model, x)
            return at(z, labels) - at(z, target)

        value, gradient = value_and_input_gradient(model, gap, x)
        slope = ops.reshape(dual.length(gradient), (-1,))
        distance = ops.where(slope > 0, value / ops.where(slope > 0, slope, 1.0), np.inf)
        return ops.where(places == place, distance[:, None], distances)

    distances = ops.zeros((ops.shape(x)[0], looked_at), "float32")
    distances = ops.fori_loop(0, looked_at, look, distances)
    order = ops.argsort(distances, axis=1)[:, :count]
    return ops.cast(ops.take_along_axis(likely, order, axis=1), "int32")


def candidates(num_classes: int, count: int) -> int:
    """How many classes `nearest_classes` looks at."""
    return min(max(_CANDIDATES, count), num_classes - 1)
