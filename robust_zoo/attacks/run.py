"""An attack on a whole set of images: what is checked before and after it, and what it found."""

import pathlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from robust_zoo.attacks.state_file import StateFile, identity
from robust_zoo.backend import random
from robust_zoo.contract import (
    check_batch_size,
    check_classifier,
    check_images,
    check_labels,
    check_numbers,
    check_precision,
)
from robust_zoo.copies import in_bfloat16, in_float32
from robust_zoo.fingerprint import fingerprint
from robust_zoo.inference import once
from robust_zoo.record import Check, wilson_interval
from robust_zoo.sentences import html_table
from robust_zoo.typing import Tensor

if TYPE_CHECKING:
    from robust_zoo.attacks.attack import Attack


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What `Attack.run` found, as NumPy arrays over the n images in their order.

    Attributes:
        x_adv: float32 (n, height, width, channels) in [0, 1]. Where the attack failed, the candidate of
            highest loss among those that its attempts ended with (fixed budget) or the clean image (minimum
            norm); where the clean image is misclassified already, that image.
        success: bool (n,), whether some candidate fooled the model; the closest one seen is in `x_adv`.
        distance: float64 (n,), from the clean image in the attack's norm.
        queries: int64 (n,), passes through the model spent on each image (a gradient counts as one; the
            pass that chooses labels is not counted).
        seconds: wall-clock time, that before an interruption included.
        fooled: of an attack that averages over draws of a random model (`samples` > 1), float64 (n,): the share of as many
            fresh draws in which `x_adv` fools it, by the majority of which `success` goes; else None.
        components: of an ensemble, the accuracy that is left after each of its attacks, in their order.
        flags: signs that the verdict cannot be trusted; those that fired have `passed` false.
    """

    x_adv: np.ndarray
    success: np.ndarray
    distance: np.ndarray
    queries: np.ndarray
    seconds: float
    fooled: np.ndarray | None = field(default=None, kw_only=True)
    components: dict[str, float] = field(default_factory=dict, kw_only=True)
    flags: tuple[Check, ...] = field(default=(), kw_only=True)

    def _repr_html_(self) -> str:
        n, broken = len(self.success), int(self.success.sum())
        rows = [(f"after {name}", f"{left:.2%}", "", "") for name, left in self.components.items()]
        low, high = wilson_interval(n - broken, n)
        found = self.distance[self.success & (self.distance > 0)]
        mean = f"{found.mean():.4g}" if len(found) else ""
        rows.append(("accuracy left", f"{1 - broken / n:.2%}", f"{low:.2%} to {high:.2%}", mean))
        failed = [flag.name for flag in self.flags if flag.passed is False]
        below = f"failed: {', '.join(failed)}" if failed else ""
        headings = ("", "accuracy", "95% interval", "mean distance of those found")
        return html_table(headings, rows, caption=f"{n:,} images", below=below)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(n={len(self.success)}, success={self.success.mean():.4f}, "
            f"max_distance={self.distance.max():.6g}, seconds={self.seconds:.1f})"
        )


def run(
    attack: "Attack",
    model: keras.Model,
    x: Tensor,
    y: Tensor | None,
    *,
    numbers: Tensor | None,
    seed: int,
    batch_size: int,
    precision: str,
    progress: bool,
    state_file: str | pathlib.Path | None,
    with_flags: bool,
) -> AttackResult:
    """`Attack.run`, whose arguments these are."""
    started = time.perf_counter()
    model = in_float32(check_classifier(model))
    x = check_images(x, model)
    y = None if y is None else check_labels(y, model.output_shape[1], len(x))
    batch_size = check_batch_size(batch_size)
    check_precision(precision)
    random.key(seed)  # refuses what is no seed before any work
    numbers = check_numbers(np.arange(len(x)) if numbers is None else numbers, len(x))
    if y is None and attack.reaches_given_labels:
        raise ValueError("labels are needed: they are the targets of a targeted attack, got None.")
    attack.check_model(model)
    attack.check_shape(x.shape[1:])
    rough = bfloat16_copy(model) if precision == "bfloat16" else None
    state = StateFile(state_file, lambda: identity(attack, model, x, y, numbers, seed, precision))
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "progress": progress}
    found = attack.search(model, x, y, rough=rough, numbers=numbers, state=state, **options)
    distance = attack.geometry.distance(found["x_adv"], x)
    attack.verify(found["x_adv"], distance)
    if with_flags:
        signs = attack.find_flags(model, x, y, batch_size=batch_size)
        found["flags"] = (*signs, *found.get("flags", ()))
    seconds = state.seconds_before + time.perf_counter() - started
    return attack.result(**found, distance=distance, seconds=seconds)


def bfloat16_copy(model: keras.Model) -> keras.Model:
    """`robust_zoo.copies.in_bfloat16` of a model, made once for its weights as they now are."""
    weights = fingerprint(*model.get_weights(), array=np.asarray)
    kept: dict[str, keras.Model] = once(model, (), "bfloat16", dict)
    if weights not in kept:
        kept.clear()
        kept[weights] = in_bfloat16(model)
    return kept[weights]
