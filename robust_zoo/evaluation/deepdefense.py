"""The metrics of DeepDefense (Yan et al., arXiv:1803.00404, section 4.1 and table 1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks.deepfool_path import find_path, length, perturbation
from robust_zoo.attacks.losses import CrossEntropy
from robust_zoo.contract import check_batch_size, check_classifier, check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.inference import batch_sizes, in_batches, logits_of, predict
from robust_zoo.layers import split
from robust_zoo.record import Accuracy
from robust_zoo.typing import Tensor

_GRID = np.linspace(0, 1, 65)[1:]  # where epsilon_50 is looked for before bisection
_BISECTIONS = 12


@dataclass(frozen=True)
class DeepDefenseMetrics:
    """One model's row of table 1, without the columns that depend on a reference model.

    Attributes:
        clean: accuracy on clean images.
        rho_2: mean of ||perturbation||_2 / ||x - mean||_2 over all examples, misclassified ones included;
            the perturbation is where DeepFool is after its steps, whether it fooled the model or not. Images
            that equal the mean everywhere are left out.
        size_2: mean of ||perturbation||_2 in [0, 1] pixel units; 255 times that is the paper's rho'_2.
        epsilon_50: smallest step along the sign of the gradient that makes half of the examples wrong, in
            [0, 1] pixel units; None if none up to 1 does.
        rho_inf: epsilon_50 times the mean of 1 / ||x - mean||_inf of the same examples; None without epsilon_50.
    """

    clean: Accuracy
    rho_2: float
    size_2: float
    epsilon_50: float | None
    rho_inf: float | None


class SignSteps:
    """A model's accuracy after one step along the sign of its loss gradient, for any step size.

    The gradient is computed once. As in the paper nothing is clipped to [0, 1], unlike in the FGSM attack.

    Args:
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        behind: name of a layer of the model, such as a fixed whitening, behind which steps are made; None (default)
            for pixels.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        *,
        behind: str | None = None,
        batch_size: int = 128,
    ) -> None:
        self.model = in_float32(check_classifier(model))
        self.x = check_images(x, self.model)
        self.y = check_labels(y, self.model.output_shape[1], len(self.x))
        self.batch_size = check_batch_size(batch_size)
        if behind is not None:
            front, self.model = split(self.model, behind)
            self.x = _in_batches(
                lambda x: ops.cast(front(x, training=False), "float32"),
                front,
                self.batch_size,
                self.x,
            )

        def signs(x: Tensor, y: Tensor) -> Tensor:
            def loss(x: Tensor) -> Tensor:
                return CrossEntropy()(_logits(self.model)(x), y)

            return ops.sign(backend.value_and_input_gradient(loss, x)[1])

        self.signs = _in_batches(signs, self.model, self.batch_size, self.x, self.y)

    def accuracy(self, epsilon: float) -> Accuracy:
        """After a step of `epsilon`, in the units of `x`; 0 is clean accuracy."""
        moved = self.x + np.float32(epsilon) * self.signs
        right = predict(self.model, moved, self.batch_size).argmax(1) == self.y
        return Accuracy.count(int(right.sum()), len(right))

    def epsilon_50(self) -> float | None:
        """The smallest step, in the units of `x`, that leaves at most half of the examples right.

        The first multiple of 1/64 that does is refined by bisection. None if no step up to 1 does.
        """

        def broken(epsilon: float) -> bool:
            return self.accuracy(epsilon).accuracy <= 0.5

        high = next((epsilon for epsilon in _GRID if broken(epsilon)), None)
        if high is None:
            return None
        low = high - _GRID[0]
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if broken(middle) else (middle, high)
        return float(high)


def deepdefense_metrics(
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    *,
    mean: np.ndarray | float = 0.0,
    behind: str | None = None,
    steps: int = 5,
    overshoot: float = 0.02,
    batch_size: int = 128,
) -> DeepDefenseMetrics:
    """rho_2, epsilon_50 and rho_inf of a classifier.

    Args:
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        mean: subtracted from images before their norms are taken: the mean training image in the paper's
            MNIST experiments, whose networks saw images without it. Perturbations do not depend on it.
        behind: name of a layer of the model, such as a fixed whitening, behind which images and perturbations are
            taken, and everything is measured in its units; None (default) for pixels.
        steps: iterations of DeepFool, which leaves the predicted class.
        overshoot: of DeepFool.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, or images of which all equal `mean`.
    """
    sign_steps = SignSteps(model, x, y, behind=behind, batch_size=batch_size)
    model, x = sign_steps.model, sign_steps.x

    def sizes(x: Tensor) -> Tensor:
        logits = _logits(model)
        predicted = ops.cast(ops.argmax(logits(x), axis=1), "int32")
        _, path = find_path(logits, x, predicted, steps=steps, overshoot=overshoot)
        return length(perturbation(logits, x, path, overshoot=overshoot))

    size = _in_batches(sizes, model, batch_size, x)
    flat = (x - mean).reshape(len(x), -1).astype("float64")
    largest = np.abs(flat).max(axis=1)
    kept = largest > 0
    if not kept.any():
        raise ValueError("x must differ from mean, got images that all equal it.")
    epsilon = sign_steps.epsilon_50()
    return DeepDefenseMetrics(
        clean=sign_steps.accuracy(0.0),
        rho_2=float((size[kept] / np.linalg.norm(flat[kept], axis=1)).mean()),
        size_2=float(size.mean()),
        epsilon_50=epsilon,
        rho_inf=None if epsilon is None else float(epsilon * (1 / largest[kept]).mean()),
    )


def accuracy_columns(
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    reference: float,
    *,
    parts: Sequence[float] = (0.2, 0.5, 1.0),
    behind: str | None = None,
    batch_size: int = 128,
) -> tuple[Accuracy, ...]:
    """Accuracy after sign steps of fractions of a reference epsilon (the accuracy columns of table 1).

    Args:
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        reference: the DeepDefense model's epsilon_50, > 0.
        parts: fractions of `reference`; by default 0.2, 0.5 and 1.
        behind: see `SignSteps`.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Returns:
        An `Accuracy` for each of `parts`, in their order.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, or a `reference` not above 0.
    """
    if reference is None or not reference > 0:
        raise ValueError(f"reference must be a number above 0, got {reference!r}.")
    steps = SignSteps(model, x, y, behind=behind, batch_size=batch_size)
    return tuple(steps.accuracy(part * reference) for part in parts)


def _logits(model: keras.Model) -> Callable[[Tensor], Tensor]:
    return lambda x: logits_of(model, x)


def _in_batches(
    function: Callable[..., Tensor], model: keras.Model, batch_size: int, *arrays: np.ndarray
) -> np.ndarray:
    return in_batches(backend.function(function, model), batch_sizes(batch_size), *arrays)
