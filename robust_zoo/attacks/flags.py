"""Signs that an attack's verdict on a model cannot be trusted, as records.

After Athalye et al., "Obfuscated gradients give a false sense of security" (arXiv:1802.00420, section
3.1) and the flags of AutoAttack (arXiv:2003.01690). Each says when it fires, why, and what to do.
"""

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks.working_set import batch_sizes, batches, call
from robust_zoo.contract import softmax_deviation
from robust_zoo.record import Check

_REPETITIONS, _REPEATED = 5, 32  # forward passes, and images in each
_SQUARE_MARGIN = 0.002


def zero_gradients(model, x, y, *, batch_size: int) -> Check:
    """Share of clean images at which the gradient of the cross-entropy is zero in every pixel."""

    def cross_entropy(x, y):
        logits = ops.cast(model(x, training=False), "float32")
        return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)

    def is_zero(x, y):
        _, gradient = backend.value_and_input_gradient(lambda x: cross_entropy(x, y), x)
        return ops.all(ops.equal(ops.reshape(gradient, (ops.shape(x)[0], -1)), 0), axis=1)

    sizes, compiled = batch_sizes(batch_size), backend.function(is_zero, model)
    zeros = sum(int(call(compiled, sizes, rows, x, y).sum()) for rows in batches(sizes, len(x)))
    share = zeros / len(x)
    return Check(
        name="zero_gradients",
        passed=zeros == 0,
        value=share,
        explanation=f"{zeros} of {len(x)} clean images have a cross-entropy gradient of exactly zero. Attacks "
        "that follow it go nowhere there; if this fires, trust only margin losses and attacks without "
        "gradients.",
    )


def softmax_output(logits: np.ndarray) -> Check:
    """Distance of the outputs from probabilities."""
    deviation = softmax_deviation(logits)
    return Check(
        name="softmax_output",
        passed=deviation > 1e-5,
        value=deviation,
        explanation="Outputs within 1e-5 of probabilities would be a softmax, whose saturation hides "
        "gradients; if this fires, attack the logits (as_classifier removes a final softmax).",
    )


def randomness(model, x) -> Check:
    """Largest difference of the logits between forward passes of the same images."""
    tensor = ops.convert_to_tensor(x[:_REPEATED])
    # Not compiled: a compiled function of the variables would start from the same random state each time.
    passes = [ops.convert_to_numpy(model(tensor, training=False)) for _ in range(_REPETITIONS)]
    spread = float(np.ptp(np.stack(passes), axis=0).max())
    return Check(
        name="randomness",
        passed=spread <= 1e-4,
        value=spread,
        explanation=f"Largest spread of a logit over {_REPETITIONS} passes of the same images; above 1e-4 the model is "
        "random and a single gradient misleads: average gradients over its randomness.",
    )


def square_stronger(before: float, after: float) -> Check:
    """Whether Square, which needs no gradient, broke more than 0.2% that the gradient attacks did not."""
    gained = before - after
    return Check(
        name="square_stronger_than_white_box",
        passed=gained <= _SQUARE_MARGIN + 1e-9,  # 2 of 1000 is 0.2%, not more
        value=gained,
        explanation=f"Accuracy was {before:.4f} after the attacks that use gradients and {after:.4f} after Square. "
        f"If Square gains more than {_SQUARE_MARGIN}, gradients mislead and the true accuracy may be lower "
        "still: use more queries and attacks made for the model.",
    )


def too_few_classes(num_classes: int, changes: list[str]) -> Check:
    """Whether AutoAttack had to be changed because the model has fewer classes than it is made for."""
    return Check(
        name="too_few_classes",
        passed=not changes,
        value=float(num_classes),
        explanation=f"The standard version needs 10 classes, the model has {num_classes}. "
        + ("; ".join(changes) + ". " if changes else "")
        + "If this fires, compare the number only with others that were made this way.",
    )
