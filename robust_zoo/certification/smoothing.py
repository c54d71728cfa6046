"""Randomized smoothing (Cohen et al., arXiv:1902.02918): certified L2 radii of a classifier under Gaussian noise."""

import dataclasses
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.backend import random
from robust_zoo.contract import (
    check_batch_size,
    check_classifier,
    check_images,
    check_labels,
    check_numbers,
)
from robust_zoo.copies import agree, in_float32
from robust_zoo.inference import logits_of, once
from robust_zoo.record import Accuracy
from robust_zoo.typing import Tensor

ABSTAIN = -1
"""In the place of a class: too few votes are for any."""
RADII = 12  # of a curve, by default
_MOST = 10_000_000
_LOOKED_AT = 8  # images on which a model is seen to be no random one


@dataclass(frozen=True)
class Smoothing:
    """How a classifier is smoothed, and with how many noisy copies of an image its class is certified.

    Args:
        sigma: standard deviation of the noise, in [0, 1] pixel units, > 0.
        n0: copies that the class is guessed from, >= 1; default 100.
        n: other copies, whose votes bound its probability, >= 1; default 100,000 as in the paper. The largest radius is
            sigma * Phi^-1(alpha ** (1 / n)): for alpha 0.001 sigma times 2.46 (1,000), 3.20 (10,000), 3.81 (100,000).
        alpha: probability that the certificate of an image is wrong, in (0, 1); default 0.001. It holds for each
            image, not for all of them together.
        images: how many of the evaluated images are certified, >= 1; default 500.
        radii: L2 radii of the record's entries, rising, >= 0; by default 12 from 0 to the largest one.

    Raises:
        ValueError: an argument out of range, or votes too few to certify anything at that alpha.
    """

    sigma: float
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    images: int = 500
    radii: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for name, most in (("sigma", np.inf), ("alpha", 1)):
            value = getattr(self, name)
            if not (_is_number(value) and 0 < value < most):
                allowed = "a number above 0" if name == "sigma" else "a number in (0, 1)"
                raise ValueError(f"{name} must be {allowed}, got {value!r}.")
            object.__setattr__(self, name, float(value))
        for name in ("n0", "n", "images"):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not (whole and 1 <= value <= _MOST):
                raise ValueError(f"{name} must be an integer in 1..{_MOST:,}, got {value!r}.")
            object.__setattr__(self, name, int(value))
        if self.n < self.fewest:
            raise ValueError(
                f"n must be at least {self.fewest:,} to certify anything at alpha {self.alpha:g}, got {self.n}."
            )
        radii = np.linspace(0, self.largest, RADII).tolist() if self.radii is None else self.radii
        numbers = isinstance(radii, Sequence) and all(
            _is_number(radius) and 0 <= radius < np.inf for radius in radii
        )
        if not numbers or not radii or list(radii) != sorted(set(radii)):
            raise ValueError(f"radii must be rising numbers >= 0, got {self.radii!r}.")
        object.__setattr__(self, "radii", tuple(map(float, radii)))

    @property
    def fewest(self) -> int:
        """The least n at which votes that all agree certify an image: alpha ** (1 / n) > 1/2."""
        return int(np.floor(np.log(self.alpha) / np.log(0.5))) + 1

    @property
    def largest(self) -> float:
        """The radius of an image on which all n votes agree."""
        return float(self.radius(np.asarray([self.n]))[0])

    def radius(self, votes: np.ndarray) -> np.ndarray:
        """Certified radius for votes (n,) of `n` for the class that was guessed; NaN where it abstains.

        sigma * Phi^-1 of the lower Clopper-Pearson bound, at confidence 1 - alpha, of the class's probability.
        """
        from scipy.stats import beta, norm  # imported here: it takes a while

        votes = np.asarray(votes)
        lower = np.where(
            votes > 0, beta.ppf(self.alpha, np.maximum(votes, 1), self.n - votes + 1), 0.0
        )
        found = np.full(votes.shape, np.nan)
        found[lower > 0.5] = self.sigma * norm.ppf(lower[lower > 0.5])
        return found

    def get_config(self) -> dict[str, Any]:
        """What a record stores: all but the images and the radii, which it says elsewhere."""
        found = dataclasses.asdict(self)
        return {key: found[key] for key in ("sigma", "n0", "n", "alpha")}


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True, eq=False)
class SmoothedCertificates:
    """What `SmoothedClassifier.certify` found.

    Attributes:
        smoothing: how.
        labels: int64 (n,), true classes.
        predicted: int64 (n,), the smoothed classifier's classes, -1 where it abstains.
        votes: int64 (n,), of the noisy images for the class that was guessed.
        radius: float64 (n,), L2 radius within which `predicted` does not change, 0 where it abstains.
    """

    smoothing: Smoothing
    labels: np.ndarray
    predicted: np.ndarray
    votes: np.ndarray
    radius: np.ndarray

    def certified(self, radius: float) -> np.ndarray:
        """Bool (n,): whether the true class is proven in the whole L2 ball; ValueError for a radius below 0."""
        if not _is_number(radius) or not 0 <= radius < np.inf:
            raise ValueError(f"radius must be a number >= 0, got {radius!r}.")
        return (self.predicted == self.labels) & (self.radius >= radius)

    def accuracy(self, radius: float) -> Accuracy:
        """The share of all images whose class is certified within the radius; abstentions are errors."""
        found = self.certified(radius)
        return Accuracy.count(int(found.sum()), len(found))

    @property
    def abstained(self) -> int:
        """On how many images it abstains."""
        return int((self.predicted == ABSTAIN).sum())

    @property
    def average_radius(self) -> float:
        """Mean over all images of the radius, 0 where the class is wrong (ACR of Zhai et al., arXiv:2001.02378)."""
        return float((self.radius * (self.predicted == self.labels)).mean())


@dataclass(frozen=True, eq=False)
class SmoothedClassifier:
    """The most likely class of a classifier under Gaussian noise, which bounds of probability certify.

    Made by `smooth`. Noise is keyed by seed, image, stage and draw: no batch size changes a vote. Noisy images leave
    [0, 1], on purpose.

    Attributes:
        model: classifier, in float32.
        smoothing: noise and votes.
    """

    model: keras.Model
    smoothing: Smoothing

    def predict(
        self,
        x: Tensor,
        *,
        seed: int = 0,
        numbers: Tensor | None = None,
        batch_size: int = 128,
    ) -> np.ndarray:
        """Classes by `smoothing.n0` votes (Cohen et al., section 3.2.1, PREDICT).

        Args:
            x: float array (n, height, width, channels) in [0, 1].
            seed: integer in [0, 2**64); default 0.
            numbers: of the images, for their noise; by default their places.
            batch_size: noisy images in a batch, >= 1; default 128.

        Returns:
            int64 (n,), -1 where the two classes with most votes are too close: the exact test that they are equally
            likely has a p-value above alpha.
        """
        from scipy.stats import binomtest  # imported here: it takes a while

        counts = self._votes(self._checked(x), self.smoothing.n0, 0, seed, numbers, batch_size)
        found = counts.argmax(1)
        for row, votes in enumerate(counts):
            second, first = np.sort(votes)[-2:]
            if binomtest(int(first), int(first + second), 0.5).pvalue > self.smoothing.alpha:
                found[row] = ABSTAIN
        return found

    def certify(
        self,
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        numbers: Tensor | None = None,
        batch_size: int = 128,
    ) -> SmoothedCertificates:
        """Certified L2 radii (Cohen et al., section 3.2.2, CERTIFY): n0 votes guess the class, n others bound it.

        Args:
            x: float array (n, height, width, channels) in [0, 1].
            y: integer array (n,), true classes.
            seed: integer in [0, 2**64); default 0.
            numbers: of the images, for their noise; by default their places.
            batch_size: noisy images in a batch, >= 1; default 128.
        """
        smoothing = self.smoothing
        x = self._checked(x)
        y = check_labels(y, self.model.output_shape[1], len(x))
        guessed = self._votes(x, smoothing.n0, 0, seed, numbers, batch_size).argmax(1)
        counts = self._votes(x, smoothing.n, 1, seed, numbers, batch_size)
        votes = counts[np.arange(len(y)), guessed]
        radius = smoothing.radius(votes)
        predicted = np.where(np.isnan(radius), ABSTAIN, guessed)
        return SmoothedCertificates(smoothing, y, predicted, votes, np.nan_to_num(radius))

    def _checked(self, x: Tensor) -> np.ndarray:
        """Images as float32; ValueError for a model that is random itself."""
        x = check_images(x, self.model)
        _check_not_random(self.model, x[:_LOOKED_AT])
        return x

    def _votes(
        self,
        x: np.ndarray,
        draws: int,
        stage: int,
        seed: int,
        numbers: Tensor | None,
        batch_size: int,
    ) -> np.ndarray:
        """How often each class is the most likely one, int64 (n, classes)."""
        numbers = check_numbers(np.arange(len(x)) if numbers is None else numbers, len(x))
        size = min(check_batch_size(batch_size), draws)
        keys = random.fold_in(random.fold_in(random.key(seed), stage), numbers)
        sigma, reference = self.smoothing.sigma, weakref.ref(self.model)
        shape, classes = x.shape[1:], self.model.output_shape[1]

        def counted(image: Tensor, key: Tensor, draws: Tensor, valid: Tensor) -> Tensor:
            noise = random.normal(random.fold_in(key, draws), shape)
            found = ops.argmax(logits_of(reference(), image + sigma * noise), axis=1)
            votes = ops.one_hot(found, classes, dtype="int32")
            return ops.sum(ops.where(valid[:, None], votes, 0), axis=0)

        compiled = once(
            self.model,
            shape,
            ("smoothed", sigma, size),
            lambda: backend.function(counted, self.model),
        )
        counts = np.zeros((len(x), classes), "int64")
        for row in range(len(x)):
            for first in range(0, draws, size):
                batch = np.arange(first, first + size)
                made = compiled(
                    ops.convert_to_tensor(x[row : row + 1]),
                    keys[row : row + 1],
                    ops.convert_to_tensor(batch.astype("int32")),
                    ops.convert_to_tensor(batch < draws),
                )
                counts[row] += ops.convert_to_numpy(made)
        return counts


def _check_not_random(model: keras.Model, x: np.ndarray) -> None:
    """Raises ValueError for a model whose logits of the same images differ: noise must be what is keyed by the image."""
    first, second = (ops.convert_to_numpy(model(x, training=False)) for _ in range(2))
    if not agree(first, second, within=1e-6):
        raise ValueError(
            f"model {model.name!r} must give the same logits for the same images: it is random, and what is certified "
            "would not be what is run."
        )


def smooth(
    model: keras.Model,
    sigma: float,
    *,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
) -> SmoothedClassifier:
    """The smoothed classifier of a model: its most likely class under Gaussian noise (Cohen et al., arXiv:1902.02918).

    A model certifies large radii if it was trained on images with such noise (`GaussianAugmentation`).

    Args:
        model: classifier, images to logits. It sees noisy images, outside [0, 1].
        sigma: standard deviation of the noise, in [0, 1] pixel units, > 0.
        n0: see `Smoothing`.
        n: see `Smoothing`.
        alpha: see `Smoothing`.

    Raises:
        TypeError, ValueError: a model that `robust_zoo.contract` refuses, or an argument out of range. `certify` and
            `predict` refuse a model that is random itself.

    Example:
        >>> smoothed = smooth(model, sigma=0.25, n=1000)
        >>> smoothed.certify(x, y).accuracy(0.25).n_examples == len(x)
        True
    """
    smoothing = Smoothing(sigma, n0=n0, n=n, alpha=alpha)
    return SmoothedClassifier(in_float32(check_classifier(model)), smoothing)
