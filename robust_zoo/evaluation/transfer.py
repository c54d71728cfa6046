"""Adversarial images that were made on one model, shown to another."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.contract import check_classifier, check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.evaluation.crafting import craft
from robust_zoo.inference import predict
from robust_zoo.record import Accuracy
from robust_zoo.typing import Tensor


@dataclass(frozen=True, eq=False)
class TransferMatrices:
    """How images made on each source (rows) do on each target (columns).

    Attributes:
        names: of the models, in the order of rows and columns.
        error_rate: float64 (k, k), share of all images that the target gets wrong (Kurakin et al.,
            arXiv:1611.01236, table 6).
        transfer_rate: float64 (k, k), the same among those that the source has right before and wrong after
            (table 4); NaN in a row without any.
        kept: int64 (k,), the number of those.
        n_examples: of all.
    """

    names: tuple[str, ...]
    error_rate: np.ndarray
    transfer_rate: np.ndarray
    kept: np.ndarray
    n_examples: int


def clean_accuracy(model: keras.Model, x: Tensor, y: Tensor, *, batch_size: int = 128) -> Accuracy:
    """Accuracy of a classifier on clean images.

    Args:
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses.
    """
    right = _right(model, x, y, batch_size)
    return Accuracy.count(int(right.sum()), len(right))


def transfer_accuracy(
    attack: FixedBudgetAttack,
    source: keras.Model,
    target: keras.Model,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 128,
) -> Accuracy:
    """Accuracy of `target` on the images that `attack` ends with on `source`: the black-box rows of Madry et al.

    Where the attack has restarts, an example is right only if the target withstands the images of all of them;
    restart k has the seed `seed + k`.

    Args:
        attack: of a fixed budget.
        source: classifier that the attack sees.
        target: classifier that is measured, of the same images and classes.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        seed: integer seed of the attack.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, or an attack without a fixed budget.
    """
    restarts = attack.restarts
    single = attack.replace(restarts=1) if restarts > 1 else attack
    right = np.ones(len(x), dtype=bool)
    for number in range(restarts):
        x_adv = craft(single, source, x, y, seed=seed + number, batch_size=batch_size)
        right &= _right(target, x_adv, y, batch_size)
    return Accuracy.count(int(right.sum()), len(right))


def transfer_matrices(
    attack: FixedBudgetAttack,
    models: Mapping[str, keras.Model],
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 128,
) -> TransferMatrices:
    """Transfer and error rates between every pair of models; see `TransferMatrices`.

    Of several restarts, the image of the highest loss on the source is shown to all.

    Args:
        attack: of a fixed budget, made on each model in turn.
        models: classifiers of the same images and classes, by name.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        seed: integer seed of the attack.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, an attack without a fixed budget, or no models.
    """
    if not models:
        raise ValueError("models must be at least one, got none.")
    errors, rates, kept = [], [], []
    for own, source in enumerate(models.values()):
        x_adv = craft(attack, source, x, y, seed=seed, batch_size=batch_size)
        wrong = ~np.stack([_right(model, x_adv, y, batch_size) for model in models.values()])
        chosen = _right(source, x, y, batch_size) & wrong[own]
        kept.append(chosen.sum())
        errors.append(wrong.mean(axis=1))
        fooled = wrong[:, chosen]
        rates.append(fooled.mean(axis=1) if chosen.any() else np.full(len(models), np.nan))
    return TransferMatrices(
        names=tuple(models),
        error_rate=np.stack(errors),
        transfer_rate=np.stack(rates),
        kept=np.array(kept),
        n_examples=len(x_adv),
    )


def _right(model: keras.Model, x: Tensor, y: Tensor, batch_size: int) -> np.ndarray:
    model = in_float32(check_classifier(model))
    x = check_images(x, model)
    y = check_labels(y, model.output_shape[1], len(x))
    return predict(model, x, batch_size).argmax(1) == y
