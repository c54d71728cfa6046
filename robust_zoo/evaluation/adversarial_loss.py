"""Cross-entropy on adversarial images: the value of Madry et al.'s saddle point problem (arXiv:1706.06083, eq. 2.1)."""

import keras
import numpy as np

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.contract import check_classifier, check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.evaluation.crafting import craft
from robust_zoo.inference import predict
from robust_zoo.typing import Tensor


def adversarial_loss(
    attack: FixedBudgetAttack | None,
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 128,
) -> float:
    """Mean cross-entropy, in nats, on the images that an attack ends with.

    Args:
        attack: of a fixed budget; None leaves the images as they are.
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        seed: integer seed of the attack.
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, or an attack without a fixed budget.
    """
    model = in_float32(check_classifier(model))
    x = check_images(x, model)
    y = check_labels(y, model.output_shape[1], len(x))
    if attack is not None:
        x = craft(attack, model, x, y, seed=seed, batch_size=batch_size)
    return float(cross_entropy(predict(model, x, batch_size), y).mean())


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cross-entropy, float64 (n,), of logits (n, classes) against labels (n,)."""
    logits = logits.astype("float64")
    high = logits.max(axis=1)
    log_sum = high + np.log(np.exp(logits - high[:, None]).sum(axis=1))
    return log_sum - logits[np.arange(len(y)), y]
