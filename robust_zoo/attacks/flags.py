"""Signs that an attack's verdict on a model cannot be trusted, as records.

After Athalye et al., "Obfuscated gradients give a false sense of security" (arXiv:1802.00420, section
3.1) and the flags of AutoAttack (arXiv:2003.01690). Each says when it fires, why, and what to do.
"""

import weakref

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks.losses import CWMargin, span_of
from robust_zoo.contract import softmax_deviation
from robust_zoo.inference import batch_sizes, batches, call, logits_of, once
from robust_zoo.record import Check, wilson_interval
from robust_zoo.typing import Tensor

_REPETITIONS, _REPEATED = 5, 32  # forward passes, and images in each
_SQUARE_MARGIN = 0.002
_SQUARE_LEAST = 500  # images; of fewer, one is more than the margin
_SMALL_SPREAD = 0.5


def gradient_checks(
    model: keras.Model, x: np.ndarray, y: np.ndarray, *, batch_size: int
) -> tuple[Check, Check]:
    """At which share of clean images the gradient is zero in every pixel, and at which it is not finite.

    The first is that of the cross-entropy, the second that of the margin, which no scale of the logits hides.
    """
    reference = weakref.ref(model)

    def cross_entropy(x: Tensor, y: Tensor) -> Tensor:
        logits = logits_of(reference(), x)
        return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)

    def margin(x: Tensor, y: Tensor) -> Tensor:
        logits = logits_of(reference(), x)
        return CWMargin(confidence=np.inf)(logits, y)

    def find(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        _, gradient = backend.value_and_input_gradient(lambda x: cross_entropy(x, y), x)
        _, raw = backend.value_and_input_gradient(lambda x: margin(x, y), x, cleaned=False)
        rows = (ops.shape(x)[0], -1)
        zero = ops.all(ops.equal(ops.reshape(gradient, rows), 0), axis=1)
        finite = ops.all(ops.isfinite(ops.reshape(raw, rows)), axis=1)
        return zero, ops.logical_not(finite)

    sizes = batch_sizes(batch_size)
    compiled = once(model, x.shape[1:], "gradient_checks", lambda: backend.function(find, model))
    found = [call(compiled, sizes, rows, x, y) for rows in batches(sizes, len(x))]
    zeros, bad = (int(np.concatenate(parts).sum()) for parts in zip(*found, strict=True))
    return (
        Check(
            name="zero_gradients",
            passed=zeros == 0,
            value=zeros / len(x),
            explanation=f"{zeros} of {len(x)} clean images have a cross-entropy gradient of exactly zero. Attacks "
            "that follow it go nowhere there; if this fires, trust only margin losses and attacks without "
            "gradients.",
        ),
        Check(
            name="gradients_not_finite",
            passed=bad == 0,
            value=bad / len(x),
            explanation=f"{bad} of {len(x)} clean images have a gradient with NaN or infinite entries. Attacks go on "
            "with 0 for NaN and the image's largest finite entry for infinity, which is a guess; if this fires, a "
            "root, a logarithm or a power has an infinite slope at some pixels: trust attacks without gradients.",
        ),
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


def logit_scale(logits: np.ndarray) -> Check:
    """Median over images of the span of an image's logits (see `span_of`)."""
    spread = float(np.median(ops.convert_to_numpy(span_of(logits.astype("float32")))))
    return Check(
        name="logit_scale",
        passed=spread >= _SMALL_SPREAD,
        value=spread,
        explanation=f"The logits of an image span {spread:.3g} (median). Below {_SMALL_SPREAD} all classes are about "
        "equally probable, and cross-entropy pulls towards all of them at once, not to the nearest: if this fires, "
        "trust the margin losses (cw_margin, dlr), which no scale changes.",
    )


def randomness(model: keras.Model, x: np.ndarray, *, averaged: bool = False) -> Check:
    """Largest difference of the logits between forward passes of the same images.

    `averaged`: whether the attacks average over draws of the model's randomness, which makes up for it.
    """
    tensor = ops.convert_to_tensor(x[:_REPEATED])
    # Not compiled: a compiled function of the variables would start from the same random state each time.
    passes = [ops.convert_to_numpy(model(tensor, training=False)) for _ in range(_REPETITIONS)]
    spread = float(np.ptp(np.stack(passes), axis=0).max())
    return Check(
        name="randomness",
        passed=averaged or spread <= 1e-4,
        value=spread,
        explanation=f"Largest spread of a logit over {_REPETITIONS} passes of the same images; above 1e-4 the model is "
        "random and a single gradient misleads"
        + (
            ", which is why the attacks average over draws of its randomness."
            if averaged
            else ": average gradients over its randomness, by EOT(attack) or AutoAttack's version rand."
        ),
    )


def square_stronger(before: float, after: float, n: int) -> Check:
    """Whether Square, which needs no gradient, broke more than 0.2% of `n` that the gradient attacks did not."""
    gained = round((before - after) * n)
    low, _ = wilson_interval(gained, n)
    passed = low <= _SQUARE_MARGIN
    return Check(
        name="square_stronger_than_white_box",
        passed=None if passed and n < _SQUARE_LEAST else passed,
        value=gained / n,
        explanation=f"Accuracy was {before:.4f} after the attacks that use gradients and {after:.4f} after Square, "
        f"which broke {gained} of {n} images more. If that is more than {_SQUARE_MARGIN:.1%}, by more than chance, "
        "gradients mislead and the true accuracy may be lower still: use more queries and attacks made for the "
        f"model. Below {_SQUARE_LEAST} images nobody can tell unless it is many.",
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
