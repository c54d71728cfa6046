"""Perturbation generator networks against adversarial training in L2, on CIFAR-10."""

import keras
import numpy as np

from robust_zoo.attacks import FGSM, Attack, CarliniWagner, DeepFool, MomentumIterative
from robust_zoo.datasets import Dataset
from robust_zoo.evaluation import clean_accuracy, transfer_accuracy
from robust_zoo.papers.comparison import Models
from robust_zoo.papers.table import Rows, Table

_SOURCE = "allconv.natural_cifar10"  # of the black box's images
_BALL = (
    FGSM(epsilon=0.5, norm="l2"),
    MomentumIterative(epsilon=0.5, norm="l2", steps=100, step_size=0.06),
)
_CLOSEST = (
    DeepFool(steps=100),
    CarliniWagner(steps=100, binary_search_steps=5, step_size=5e-3, initial_constant=1e-2),
)


def _distances(
    attack: Attack, model: keras.Model, test: Dataset, seed: int
) -> tuple[float | None, float | None]:
    """Mean and median of the distances that were found, 0 where an image is misclassified to begin with."""
    result = attack.run(model, test.images, test.labels, seed=seed)
    found = result.distance[result.success]
    return (float(found.mean()), float(np.median(found))) if len(found) else (None, None)


def _table3(models: Models, test: Dataset, seed: int) -> Rows:
    rows = _curves(models, test, seed)
    for name, model in models.items():
        data = (model, test.images, test.labels)
        source = models.get(_SOURCE) if name != _SOURCE else None
        rows[name] += tuple(
            source and transfer_accuracy(attack, source, *data, seed=seed) for attack in _BALL
        )
    return rows


def _curves(models: Models, test: Dataset, seed: int) -> Rows:
    data = (test.images, test.labels)
    rows: Rows = {}
    for name, model in models.items():
        rows[name] = (
            clean_accuracy(model, *data),
            *(transfer_accuracy(attack, model, model, *data, seed=seed) for attack in _BALL),
            *(value for attack in _CLOSEST for value in _distances(attack, model, test, seed)),
        )
    return rows


TABLES = {
    "pgn-table3": Table("cifar10", 1_000, _table3),
    "pgn-curves": Table("cifar10", 1_000, _curves),
}
