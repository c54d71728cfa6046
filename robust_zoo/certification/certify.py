"""Certified accuracy: images whose class no attack in a ball can change, proven by bounds."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.certification.bounds import Interval, margins, propagate
from robust_zoo.certification.graph import graph
from robust_zoo.certification.rules import parts_of
from robust_zoo.contract import check_batch_size, check_classifier, check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.inference import batch_sizes, in_batches, once
from robust_zoo.record import Accuracy
from robust_zoo.typing import BOUNDS, Tensor

_SLOPES = ("adaptive", "zero")  # of CROWN-IBP, of which the better bound counts
_TOLERANCE = 1e-4  # of 1 and the largest bound of a logit


@dataclass(frozen=True, eq=False)
class Certificates:
    """What bounds prove of images: lower bounds of their margins over a ball.

    Attributes:
        methods: by which, of "ibp" and "crown-ibp"; the better bound counts, class by class.
        norm: "linf".
        epsilon: radius of the ball, which is cut to [0, 1].
        margins: float32 (n,), lower bound of the true class's logit less that of any other, over the ball.
        tolerances: float32 (n,), what a margin must exceed to count, since bounds are computed in float32: 1e-4 of
            1 and the largest absolute bound of a logit.
    """

    methods: tuple[str, ...]
    norm: str
    epsilon: float
    margins: np.ndarray
    tolerances: np.ndarray

    @property
    def certified(self) -> np.ndarray:
        """Bool (n,): whether the whole ball is proven to be classified right."""
        return self.margins > self.tolerances

    @property
    def accuracy(self) -> Accuracy:
        """The share of images that are certified: a lower bound of robust accuracy."""
        return Accuracy.count(int(self.certified.sum()), len(self.margins))

    @property
    def undecided(self) -> int:
        """How many images have a margin above 0 that float32 cannot tell from 0."""
        return int(((self.margins > 0) & ~self.certified).sum())


def check_rules(model: keras.Model) -> None:
    """Raises NoRuleError for a layer of a classifier without an interval rule, ValueError for one that has no graph."""
    for call in graph(model).calls:
        parts_of(call.layer)


def certify(
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    methods: Sequence[str] = BOUNDS,
    batch_size: int = 64,
) -> Certificates:
    """Proves of images that no perturbation within a linf ball changes their class.

    Interval bound propagation (Gowal et al., arXiv:1810.12715) with the last layers merged into the margin, and
    CROWN-IBP (Zhang et al., arXiv:1906.06316): one backward pass of linear bounds from these intervals, with two choices
    of the lower slope. Both are sound for every network; they are tight for networks trained for them. Bounds are
    computed in float32, on the ball rounded outwards; a margin counts above a tolerance (see `Certificates`).

    Args:
        model: functional or sequential classifier, images in [0, 1] to logits, of layers with an interval rule (see
            `interval_rule`): dense and convolutional layers, pooling, batch normalisation at inference, activations of
            Keras, and what moves, adds or joins tensors.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,), true classes.
        epsilon: radius of the ball in [0, 1] pixel units, >= 0; 0 certifies what is classified right.
        methods: one or both of "ibp" and "crown-ibp"; default both.
        batch_size: images in a batch, >= 1; default 64. CROWN-IBP holds coefficients of every class at once.

    Raises:
        NoRuleError: a layer without an interval rule, by name.
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, or an argument out of range.
    """
    if isinstance(epsilon, bool) or not np.isfinite(epsilon) or epsilon < 0:
        raise ValueError(f"epsilon must be a number >= 0, got {epsilon!r}.")
    methods = tuple(methods)
    if not methods or not set(methods) <= set(BOUNDS) or len(set(methods)) < len(methods):
        raise ValueError(f"methods must be some of {BOUNDS}, each once, got {methods}.")
    model = in_float32(check_classifier(model))
    x = check_images(x, model)
    classes = model.output_shape[1]
    y = check_labels(y, classes, len(x))
    # From one float below to one above, since x - epsilon is rounded.
    radius = np.float32(epsilon)
    low = np.nextafter(np.maximum(x - radius, 0), np.float32(-1)) if epsilon else x
    high = np.nextafter(np.minimum(x + radius, 1), np.float32(2)) if epsilon else x
    reference = weakref.ref(model)

    def found(low: Tensor, high: Tensor, y: Tensor) -> Tensor:
        network = reference()
        assert network is not None  # who called holds it
        intervals = propagate(graph(network), Interval(low, high))
        bounds = [margins(intervals, y, classes)] if "ibp" in methods else []
        if "crown-ibp" in methods:
            bounds += [margins(intervals, y, classes, slope) for slope in _SLOPES]
        best = ops.max(ops.stack(bounds), axis=0)
        others = ops.where(ops.one_hot(y, classes, dtype="bool"), np.inf, best)
        logits = intervals.intervals[intervals.target]
        largest = ops.max(ops.maximum(ops.abs(logits.lower), ops.abs(logits.upper)), axis=1)
        return ops.stack([ops.min(others, axis=1), largest], axis=1)

    part = ("certify", methods)
    compiled = once(model, x.shape[1:], part, lambda: backend.function(found, model))
    made = in_batches(compiled, batch_sizes(check_batch_size(batch_size)), low, high, y)
    tolerances = (_TOLERANCE * (1 + made[:, 1])).astype("float32")
    return Certificates(methods, "linf", float(epsilon), made[:, 0], tolerances)
