"""How much of an attack's path a single gradient foretells (Madry et al., arXiv:1706.06083, appendix)."""

import weakref

import keras
import numpy as np

from robust_zoo import backend
from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.contract import check_batch_size, check_classifier, check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.evaluation.crafting import craft
from robust_zoo.inference import batch_sizes, in_batches, logits_of, once
from robust_zoo.typing import Tensor


def gradient_correlation(
    attack: FixedBudgetAttack,
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 128,
) -> np.ndarray:
    """Cosines between the perturbations that an attack ends with and the loss gradients of the clean images.

    1 where the attack goes along the gradient; near 0 where the loss is so curved that one step tells little.

    Args:
        attack: of a fixed budget.
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        seed: integer seed of the attack.
        batch_size: images in a batch, an integer >= 1.

    Returns:
        float64 (n,); NaN for an image that the attack leaves as it is, or whose cross-entropy has no gradient in float32.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` refuses, or an attack without a fixed budget.
    """
    model = in_float32(check_classifier(model))
    x = check_images(x, model)
    y = check_labels(y, model.output_shape[1], len(x))
    moved = craft(attack, model, x, y, seed=seed, batch_size=batch_size)
    reference = weakref.ref(model)

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            logits = logits_of(reference(), x)
            return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)

        return backend.value_and_input_gradient(loss, x)[1]

    compiled = once(
        model, x.shape[1:], "gradient of the loss", lambda: backend.function(gradient, model)
    )
    gradients = in_batches(compiled, batch_sizes(check_batch_size(batch_size)), x, y)
    change, slope = (each.reshape(len(x), -1).astype("float64") for each in (moved - x, gradients))
    lengths = np.linalg.norm(change, axis=1) * np.linalg.norm(slope, axis=1)
    products = (change * slope).sum(axis=1)
    return np.divide(products, lengths, out=np.full(len(x), np.nan), where=lengths > 0)
