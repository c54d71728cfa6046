"""Adversarial images of a whole set, whether they fool the model that they are made on or not."""

import weakref

import keras
import numpy as np

from robust_zoo import backend
from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.backend import random
from robust_zoo.contract import check_batch_size, check_classifier, check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.inference import batch_sizes, in_batches, once
from robust_zoo.typing import Tensor


def craft(
    attack: FixedBudgetAttack,
    model: keras.Model,
    x: Tensor,
    y: Tensor | None = None,
    *,
    seed: int = 0,
    batch_size: int = 128,
) -> np.ndarray:
    """The images that an attack ends with, float32 in the shape of `x`.

    `Attack.run` keeps the closest image that fooled the model; what is shown to another model, or counted
    with other labels, is the attack's last iterate.

    Args:
        attack: of a fixed budget.
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,), which attacks with labels "true" use; None is the predicted labels.
        seed: integer seed of every random number; an image's depend on its index in `x`.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, or an attack of no fixed budget.
    """
    if not isinstance(attack, FixedBudgetAttack):
        raise TypeError(f"attack must have a fixed budget, got {attack!r}.")
    model = in_float32(check_classifier(model))
    x = check_images(x, model)
    attack.check_model(model)
    keys = np.asarray(random.fold_in(random.key(seed), np.arange(len(x))))
    arrays = [x, keys]
    if y is not None:
        arrays.append(check_labels(y, model.output_shape[1], len(x)))

    reference = weakref.ref(model)

    def made(x: Tensor, keys: Tensor, y: Tensor | None = None) -> Tensor:
        return attack(reference(), x, y, key=keys)

    part = ("craft", attack, y is None)
    compiled = once(model, x.shape[1:], part, lambda: backend.function(made, model, *attack.models))
    return in_batches(compiled, batch_sizes(check_batch_size(batch_size)), *arrays)
