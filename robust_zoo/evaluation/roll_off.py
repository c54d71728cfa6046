"""Accuracy over the whole range of an attack's magnitude (Galloway et al., arXiv:1804.03308, sections 4 and 5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.evaluation.transfer import clean_accuracy, transfer_accuracy
from robust_zoo.record import Accuracy
from robust_zoo.typing import Tensor


@dataclass(frozen=True)
class RollOff:
    """How accuracy falls as an attack grows.

    Attributes:
        epsilons: magnitudes, rising from 0.
        accuracies: on the images that the attack ends with at each.
        area: under the curve by the trapezoid rule, over magnitudes divided by the largest: 1 for a model that
            is never wrong.
    """

    epsilons: tuple[float, ...]
    accuracies: tuple[Accuracy, ...]
    area: float


def roll_off(
    make_attack: Callable[..., FixedBudgetAttack],
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    epsilons: Sequence[float],
    *,
    seed: int = 0,
    batch_size: int = 128,
) -> RollOff:
    """Accuracy on clean images and at each magnitude, and the area under that curve.

    The paper asks for the whole range, up to where any model must fail, instead of one epsilon. Its pixel
    swaps are `partial(PixelSwap, permutation=...)`, whose magnitude is the number of changed values.

    Args:
        make_attack: makes the attack of a given `epsilon`, such as `FGSM` or `partial(PGD, steps=20)`.
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        epsilons: magnitudes above 0, rising.
        seed: integer seed of the attack.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        ValueError: magnitudes that do not rise from above 0.
    """
    epsilons = tuple(float(epsilon) for epsilon in epsilons)
    if not epsilons or not epsilons[0] > 0 or list(epsilons) != sorted(set(epsilons)):
        raise ValueError(f"epsilons must be numbers above 0 that rise, got {epsilons}.")
    options = {"seed": seed, "batch_size": batch_size}
    attacks = [make_attack(epsilon=epsilon) for epsilon in epsilons]
    clean = clean_accuracy(model, x, y, batch_size=batch_size)
    accuracies = [
        clean,
        *(transfer_accuracy(attack, model, model, x, y, **options) for attack in attacks),
    ]
    places = (0.0, *epsilons)
    heights = [part.accuracy for part in accuracies]
    area = float(np.trapezoid(heights, np.array(places) / places[-1]))
    return RollOff(epsilons=places, accuracies=tuple(accuracies), area=area)
