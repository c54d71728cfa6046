"""Logistic regression on MNIST 3 against 7, and the small CNN on CIFAR-10."""

import functools
import math

import keras
import numpy as np

from robust_zoo.attacks import FGSM, PGD, ExtremeWeights, PixelSwap
from robust_zoo.datasets import Dataset
from robust_zoo.evaluation import (
    clean_accuracy,
    fooling_images,
    roll_off,
    rubbish_test,
    transfer_accuracy,
)
from robust_zoo.layers import layers_in_order
from robust_zoo.papers.comparison import Models
from robust_zoo.papers.table import Rows, Table


def _logistic(models: Models, test: Dataset, seed: int) -> Rows:
    made_by = [FGSM(epsilon=0.25), *(ExtremeWeights(epsilon=pixels) for pixels in (10, 20, 40, 98))]
    found: Rows = {}
    for name, model in models.items():
        # On the images that the attack ends with; what is wrong to begin with may become right.
        found[name] = (
            clean_accuracy(model, test.images, test.labels),
            *(
                transfer_accuracy(attack, model, model, test.images, test.labels, seed=seed)
                for attack in made_by
            ),
        )
    return found


_LEVELS = (1, 2, 5, 8, 16, 40, 127)  # of 255
_SWAPPED = (0.1, 0.26, 0.5, 0.75, 1.0)  # shares of all values
_DEAD = 1e-3  # length of a filter below which it does nothing


def _cnn(models: Models, test: Dataset, seed: int) -> Rows:
    data = (test.images, test.labels)
    size = math.prod(test.images.shape[1:])
    found: Rows = {}
    for name, model in models.items():
        pgd = roll_off(
            functools.partial(PGD, steps=20, step_size=2 / 255),
            model,
            *data,
            [level / 255 for level in _LEVELS],
            seed=seed,
        )
        swaps = roll_off(PixelSwap, model, *data, [round(part * size) for part in _SWAPPED])
        fooled = rubbish_test(model, [16 / 255], seed=seed)
        found[name] = (
            *pgd.accuracies,
            pgd.area,
            transfer_accuracy(FGSM(epsilon=8 / 255), model, model, *data, seed=seed),
            swaps.accuracies[1 + _SWAPPED.index(0.26)],
            swaps.area,
            _dead_filters(model),
            float(100 * fooled.success_rate[0]),
            float(100 * fooling_images(model, seed=seed).confidence.mean()),
        )
    return found


def _dead_filters(model: keras.Model) -> float:
    """How many filters of the convolutions weight decay has taken away."""
    kernels = [
        keras.ops.convert_to_numpy(layer.kernel)
        for layer in layers_in_order(model)
        if isinstance(layer, keras.layers.Conv2D)
    ]
    lengths = [np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0) for kernel in kernels]
    return float((np.concatenate(lengths) < _DEAD).sum())


TABLES = {
    "galloway-logistic": Table("mnist:7,3", None, _logistic),
    "galloway-cnn": Table("cifar10", 2_000, _cnn),
}
