"""Targeted JSMA at several budgets (Galloway et al., arXiv:1804.03308, table 2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import JSMA
from robust_zoo.backend import random
from robust_zoo.contract import check_batch_size, check_classifier, check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.inference import batch_sizes, in_batches, logits_of
from robust_zoo.typing import Tensor


@dataclass(frozen=True)
class JSMARow:
    """What JSMA does within one budget, over all images and every class but the true one as a target.

    Attributes:
        gamma: largest share of the values that may change.
        success_rate: share of the trials that end in their target.
        changed: mean share of the values that change in a trial, successful or not.
        changed_by_successes: the same over the successful trials; None without any.
        paper_changed: `changed` as the paper averages it, with a zero for each image's true class.
        paper_changed_by_successes: likewise, failed trials counted as zeros.
        n_examples: images; the trials are (classes - 1) times as many.
    """

    gamma: float
    success_rate: float
    changed: float
    changed_by_successes: float | None
    paper_changed: float
    paper_changed_by_successes: float
    n_examples: int


def jsma_table(
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    *,
    gammas: Sequence[float] = (0.01, 0.02, 0.03, 0.04, 0.05),
    batch_size: int = 128,
) -> list[JSMARow]:
    """Attacks every image towards every class but its label, misclassified images included.

    Values are set to white (theta 1). JSMA is greedy, so that one run with the largest budget contains those with
    the smaller ones.

    Args:
        model: classifier, images in [0, 1] to logits.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        gammas: shares of the values that may change, in (0, 1].
        batch_size: images in a batch, an integer >= 1; it changes no count, and distances only by rounding.

    Raises:
        TypeError, ValueError: inputs that `robust_zoo.contract` or JSMA refuses.
    """
    attacks = [JSMA(gamma=gamma, targeted=True) for gamma in gammas]
    if not attacks:
        raise ValueError("gammas must be at least one, got none.")
    model = in_float32(check_classifier(model))
    x = check_images(x, model)
    classes, values = model.output_shape[1], int(np.prod(x.shape[1:]))
    y = check_labels(y, classes, len(x))
    for attack in attacks:
        attack.check_shape(x.shape[1:])
    largest = max(attacks, key=lambda attack: attack.gamma)

    def trial(x: Tensor, target: Tensor) -> Tensor:
        state, _ = largest.trajectory(model, x, target, random.key(0))
        x_adv = state["x_adv"]
        changed = ops.sum(ops.cast(x_adv != x, "float32"), axis=(1, 2, 3))
        logits = logits_of(model, x_adv)
        reached = ops.cast(largest.succeeded(logits, target), "float32")
        return ops.stack([changed, reached], axis=1)

    compiled, sizes = backend.function(trial, model), batch_sizes(check_batch_size(batch_size))
    # One row an image, one column a target: every class but the label.
    targets = (y[:, None] + np.arange(1, classes)) % classes
    found = np.stack(
        [in_batches(compiled, sizes, x, column.astype("int32")) for column in targets.T], axis=1
    )
    changed, reached = found[..., 0].astype("float64"), found[..., 1] > 0
    rows = []
    for attack in attacks:
        budget = 2 * attack.steps_on(x.shape[1:])
        success = reached & (changed <= budget)
        share = np.minimum(changed, budget) / values
        with_true_class = (classes - 1) / classes
        rows.append(
            JSMARow(
                gamma=attack.gamma,
                success_rate=float(success.mean()),
                changed=float(share.mean()),
                changed_by_successes=float(share[success].mean()) if success.any() else None,
                paper_changed=float(share.mean() * with_true_class),
                paper_changed_by_successes=float((share * success).mean() * with_true_class),
                n_examples=len(x),
            )
        )
    return rows
