"""Weight decay as a defense, for natural training and for every other defense."""

from typing import Any

import keras
import numpy as np

from robust_zoo.copies import copy_model
from robust_zoo.defenses.tools import check_number, kernels_of

REDUCTIONS = ("sum", "mean")


def with_weight_decay(
    classifier: keras.Model, *, l2: float = 0.0, l1: float = 0.0, l1_reduction: str = "sum"
) -> keras.Model:
    """A copy of a classifier whose kernels are penalised: coupled weight decay (arXiv:1804.03308).

    The penalty l2 * sum(w ** 2) / 2 + l1 * (sum or mean)|w| of each kernel is part of any loss that the copy is
    trained with, and so of its gradient; that of optimizers such as AdamW is not. Biases are spared.

    Args:
        classifier: functional `keras.Model`; its own kernel regularizers are replaced.
        l2: factor of half the sum of squares, >= 0, as the authors' code has it; Keras's L2 has no half.
        l1: factor of the absolute values, >= 0.
        l1_reduction: "sum", or "mean" over the kernel's entries as the authors' code has it.

    Raises:
        ValueError: a factor that is negative or not finite, both 0, or an unknown reduction; weight matrices outside
            Dense and Conv layers, two such layers of the same name, or none; or a model that cannot be copied.

    Example:
        >>> decayed = with_weight_decay(architectures.logistic(), l1=3.25, l1_reduction="mean")
        >>> decayed.get_layer("z").kernel_regularizer is not None
        True
    """
    l2, l1 = check_number("l2", l2, least=0), check_number("l1", l1, least=0)
    if not l1 and not l2:
        raise ValueError("l2 or l1 must be > 0, got 0 for both.")
    if l1_reduction not in REDUCTIONS:
        raise ValueError(f"l1_reduction must be one of {REDUCTIONS}, got {l1_reduction!r}.")
    kernels = kernels_of(classifier)

    def penalised(layer: keras.layers.Layer, config: dict[str, Any]) -> dict[str, Any]:
        if layer.name in kernels and layer.kernel is kernels[layer.name]:
            size = np.prod(layer.kernel.shape) if l1_reduction == "mean" else 1
            regularizer = keras.regularizers.L1L2(l1=l1 / float(size), l2=l2 / 2)
            config["kernel_regularizer"] = keras.saving.serialize_keras_object(regularizer)
        return config

    return copy_model(classifier, penalised)
