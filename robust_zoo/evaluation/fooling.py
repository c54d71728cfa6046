"""Fooling images: noise that a model takes for a class (Galloway et al., arXiv:1804.03308, figures 8 and 9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import PGD, CrossEntropy
from robust_zoo.backend import random
from robust_zoo.contract import check_batch_size, check_classifier
from robust_zoo.copies import in_float32
from robust_zoo.inference import batch_sizes, batches, call, logits_of, predict
from robust_zoo.typing import Tensor


@dataclass(frozen=True, eq=False)
class FoolingImages:
    """One fooling image for each class, optimised from noise.

    Attributes:
        images: float32 (classes, height, width, channels) in [0, 1].
        confidence: float64 (classes,), the probability of that class at temperature 1.
        steps: iterations of the attack.
        step_size: change of each value in an iteration, in [0, 1] pixel units.
        seed: integer seed of the noise.
    """

    images: np.ndarray
    confidence: np.ndarray
    steps: int
    step_size: float
    seed: int


@dataclass(frozen=True, eq=False)
class RubbishTest:
    """How often one step turns uniform noise into a class, at each of several epsilons.

    Attributes:
        epsilons: float64 (k,), linf steps in [0, 1] pixel units.
        success_rate: float64 (k,), share of the n x classes trials that end in their target class with a
            probability of at least `threshold`.
        margin: float64 (k,), mean difference of the two largest probabilities over all trials.
        n_examples: noise images, each tried with every class.
        temperature: that logits were divided by before the softmax.
        threshold: see success_rate.
        seed: integer seed of the noise.
    """

    epsilons: np.ndarray
    success_rate: np.ndarray
    margin: np.ndarray
    n_examples: int
    temperature: float
    threshold: float
    seed: int


def _noise(model: keras.Model, n: int, seed: int, low: float, high: float) -> np.ndarray:
    shape = model.input_shape[1:]
    if None in shape:
        raise ValueError(f"model must have a fixed image shape, got {shape}.")
    keys = random.fold_in(random.key(seed), np.arange(n))
    return ops.convert_to_numpy(random.uniform(keys, shape, low, high))


def _probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    scaled = logits.astype("float64") / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fooling_images(
    model: keras.Model, *, steps: int = 50, step_size: float = 5e-3, seed: int = 0
) -> FoolingImages:
    """An image of each class from light grey noise, by targeted sign steps (arXiv:1804.03308, figure 8).

    The noise is uniform in [0.5, 0.6); steps are only cut to [0, 1].

    Args:
        model: classifier, images in [0, 1] to logits.
        steps: iterations, an integer >= 1; default 50.
        step_size: change of each value in an iteration, > 0; default 5e-3.
        seed: integer seed of the noise.

    Raises:
        TypeError, ValueError: a model that `robust_zoo.contract` refuses, bad steps or seed.
    """
    model = in_float32(check_classifier(model))
    attack = PGD(epsilon=1.0, steps=steps, step_size=step_size, random_start=False, targeted=True)
    classes = model.output_shape[1]
    x = ops.convert_to_tensor(_noise(model, classes, seed, 0.5, 0.6))
    targets = ops.arange(classes, dtype="int32")
    run = backend.function(lambda x, y: attack(model, x, y, key=random.key(0)), model)
    images = ops.convert_to_numpy(run(x, targets))
    p = _probabilities(predict(model, images, classes))
    return FoolingImages(images, p[np.arange(classes), np.arange(classes)], steps, step_size, seed)


def rubbish_test(
    model: keras.Model,
    epsilons: Sequence[float],
    *,
    n: int = 1000,
    temperature: float = 1.0,
    threshold: float = 0.0,
    seed: int = 0,
    batch_size: int = 128,
) -> RubbishTest:
    """One targeted FGSM step from uniform noise towards every class (arXiv:1804.03308, figure 9).

    Args:
        model: classifier, images in [0, 1] to logits.
        epsilons: step sizes (linf), in [0, 1] pixel units; at least one.
        n: noise images, an integer >= 1; default 1000.
        temperature: softmax temperature, > 0, that logits are divided by. 1 (default) gives the model's own
            probabilities; 4 reproduces the paper's confidences.
        threshold: probability in [0, 1] that the target class must reach, besides being the predicted one; default 0.
        seed: integer seed of the noise; default 0.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: a model that `robust_zoo.contract` refuses, or arguments out of range.
    """
    model = in_float32(check_classifier(model))
    check_batch_size(batch_size)
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n must be an integer >= 1, got {n!r}.")
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature!r}.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], got {threshold!r}.")
    epsilons = np.asarray(epsilons, "float64")
    if not (epsilons.ndim == 1 and len(epsilons) and ((epsilons >= 0) & (epsilons <= 1)).all()):
        raise ValueError(
            f"epsilons must be numbers in [0, 1], at least one, got {epsilons.tolist()}."
        )
    x = _noise(model, n, seed, 0.0, 1.0)
    loss, classes = CrossEntropy(), model.output_shape[1]

    def direction(x: Tensor, target: Tensor) -> Tensor:
        def ascended(x: Tensor) -> Tensor:
            return loss(logits_of(model, x), target, target)

        return ops.sign(backend.value_and_input_gradient(ascended, x)[1])

    compiled, sizes = backend.function(direction, model), batch_sizes(batch_size)
    hits, margins = np.zeros(len(epsilons)), np.zeros(len(epsilons))
    for target in range(classes):
        targets = np.full(n, target, "int32")
        signs = np.concatenate(
            [call(compiled, sizes, rows, x, targets) for rows in batches(sizes, n)]
        )
        for number, epsilon in enumerate(epsilons):
            moved = np.clip(x + np.float32(epsilon) * signs, 0, 1)
            p = _probabilities(predict(model, moved, batch_size), temperature)
            hits[number] += ((p.argmax(1) == target) & (p[:, target] >= threshold)).sum()
            margins[number] += np.ptp(np.sort(p, axis=1)[:, -2:], axis=1).sum()
    trials = n * classes
    return RubbishTest(epsilons, hits / trials, margins / trials, n, temperature, threshold, seed)
