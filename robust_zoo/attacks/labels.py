"""Label policies: which class an attack moves away from, or towards if it is targeted."""

from keras import ops

from robust_zoo.backend import random
from robust_zoo.typing import Tensor


def choose_labels(policy: str, logits: Tensor, y: Tensor, keys: Tensor) -> Tensor:
    """The label that `policy` names, int32 (batch,), fixed from the clean image.

    Args:
        policy: "true" (the labels given), "predicted", "least_likely", or "random" (uniform over the
            classes other than the predicted one, so that the true label is not used).
        logits: float32 (batch, classes) of the clean images; unused by "true".
        y: int32 (batch,); used by "true" alone.
        keys: (batch, 2); used by "random" alone.
    """
    if policy == "true":
        return y
    predicted = ops.cast(ops.argmax(logits, axis=1), "int32")
    if policy == "predicted":
        return predicted
    if policy == "least_likely":
        return ops.cast(ops.argmin(logits, axis=1), "int32")
    num_classes = logits.shape[1]
    shift = 1 + random.integers(keys, num_classes - 1)
    return (predicted + shift) % num_classes


def ranked_class(logits: Tensor, rank: Tensor | int) -> Tensor:
    """The class of a rank among the logits (batch, classes), int32 (batch,); rank 0 is the highest.

    `rank` is an int or an integer scalar tensor below the number of classes.
    """
    order = ops.argsort(-logits, axis=1)
    return ops.cast(ops.take(order, rank, axis=1), "int32")
