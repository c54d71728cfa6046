"""Gradient-masking checks: signs that a model only looks robust because attacks cannot see its gradient.

After Athalye et al., "Obfuscated gradients give a false sense of security" (arXiv:1802.00420, section
3.1) and the flags of AutoAttack (arXiv:2003.01690). Each check returns a record that says what was
measured, when it fires and what to do.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from robust_zoo.attacks import FGSM, FixedBudgetAttack
from robust_zoo.attacks.expectation import share_right
from robust_zoo.attacks.flags import (
    gradient_checks,
    logit_scale,
    randomness,
    softmax_output,
)
from robust_zoo.describe import describe_attack
from robust_zoo.evaluation.binarisation import binarisation_test
from robust_zoo.evaluation.crafting import craft
from robust_zoo.layers import layers_in_order
from robust_zoo.record import Accuracy, Check, Curve, ThreatModel, wilson_interval

N_EXAMPLES = 256  # how many of the evaluated examples the checks look at
_LEAST = 32  # examples that a passed check of accuracies needs
_ORDER = (
    "zero_gradients", "gradients_not_finite", "softmax_output", "logit_scale", "randomness", "clean_above_chance",
    "pgd_at_least_as_strong_as_fgsm", "no_label_leaking", "accuracy_reaches_chance", "curve_agrees_with_attacks",
    "binarisation_test",
)  # fmt: skip


def checks_of_model(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    logits: np.ndarray,
    moved: np.ndarray | None,
    threat: ThreatModel | None,
    attacks: Sequence[FixedBudgetAttack],
    *,
    seed: int,
    batch_size: int,
    progress: bool,
    samples: int = 1,
) -> tuple[Check, ...]:
    """The checks that need the model, and a few images.

    Args:
        model: float32 classifier.
        x: float32 (n, height, width, channels) in [0, 1], at most `N_EXAMPLES`.
        y: int32 (n,).
        logits: float32 (n, classes) of `x`.
        moved: bool (n,), see `right_after_fgsm`; None where FGSM does not have the norm.
        threat: norm and epsilon, or None.
        attacks: those with that budget.
        seed: integer seed of the attacks.
        batch_size: of the attacks.
        progress: whether to show progress bars.
        samples: draws of a random model, by whose majority images are classified.
    """
    checks: list[Check | None] = [
        *gradient_checks(model, x, y, batch_size=batch_size),
        softmax_output(logits),
        logit_scale(logits),
        randomness(
            model, x, averaged=bool(attacks) and all(attack.samples > 1 for attack in attacks)
        ),
    ]
    if moved is not None:
        right = share_right(model, x, y, samples=samples, seed=seed, batch_size=batch_size)
        checks.append(no_label_leaking(right >= 0.5, moved))
    if threat is not None and attacks:
        options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "progress": progress}
        checks.append(binarisation_test(model, x, attacks, threat, **options))
    return tuple(check for check in checks if check is not None)


def right_after_fgsm(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    samples: int = 1,
) -> np.ndarray:
    """Of which images what FGSM makes of them is classified correctly, bool (n,).

    `samples`: draws of a random model that it averages over, by the majority of as many of which images are classified.
    """
    attack = FGSM(epsilon=threat.epsilon, norm=threat.norm, samples=samples)
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size}
    x_adv = craft(attack, model, x, y, **options)
    return share_right(model, x_adv, y, samples=samples, **options) >= 0.5


def in_order(checks: Sequence[Check]) -> list[Check]:
    """Checks in the order that records have them in."""
    return sorted(checks, key=lambda check: _ORDER.index(check.name))


def certificates_hold(broken: int, n: int) -> Check:
    """Whether nothing broke an image that bounds certify; `broken` counts those of `n` images that something did."""
    return Check(
        name="certificates_hold",
        passed=broken == 0,
        value=float(broken),
        explanation=f"Of {n} images, {broken} are certified and yet misclassified within the ball. They do not count as "
        "certified; if there are any, the bounds are wrong for this model, and no other certificate is to be trusted.",
    )


def _verdict(passed: bool, n: int) -> bool | None:
    """What a comparison by intervals says: None where the sample is too small to acquit."""
    return None if passed and n < _LEAST else passed


def pgd_beats_fgsm(one_step: np.ndarray, many_steps: np.ndarray, name: str) -> Check:
    """Accuracy under FGSM minus accuracy under PGD, at one epsilon.

    Args:
        one_step: bool (n,), which images withstand FGSM.
        many_steps: bool (n,), which withstand the curve's PGD.
        name: of that, in words.
    """
    n, first, last = len(one_step), float(one_step.mean()), float(many_steps.mean())
    low, _ = wilson_interval(int(many_steps.sum()), n)
    return Check(
        name="pgd_at_least_as_strong_as_fgsm",
        passed=_verdict(low <= first, n),
        value=first - last,
        explanation=f"Accuracy on {n} images: {first:.4f} under FGSM, {last:.4f} under {name}. "
        f"If {name} is weaker by more than chance, the gradient misleads beyond the first step: use attacks without gradients.",
    )


def no_label_leaking(clean: np.ndarray, moved: np.ndarray) -> Check:
    """Accuracy on the images of FGSM minus that on the images themselves.

    A model that trained against one step can learn to read the label from the step (Kurakin et al.,
    arXiv:1611.01236, section 4.2).

    Args:
        clean: bool (n,), which images are classified correctly.
        moved: bool (n,), of which the image that FGSM made is.
    """
    n, before, after = len(clean), float(clean.mean()), float(moved.mean())
    low, _ = wilson_interval(int(moved.sum()), n)
    return Check(
        name="no_label_leaking",
        passed=_verdict(low <= before, n),
        value=after - before,
        explanation=f"Accuracy on {n} images: {before:.4f} clean, {after:.4f} on what FGSM makes of them. "
        "If it rises by more than chance, the step gives the label away: accuracy under one step says nothing here.",
    )


def reaches_chance(curve: Curve, y: np.ndarray) -> Check:
    """Accuracy where the ball holds every image, the curve's last point, against the commonest class in `y`."""
    last = curve.points[-1]
    labels = y[: last.n_examples]
    chance = _chance(labels)
    points = ", ".join(f"{point.accuracy:.4f} at {point.epsilon:.4g}" for point in curve.points)
    return Check(
        name="accuracy_reaches_chance",
        passed=_verdict(last.ci95[0] <= chance, last.n_examples),
        value=last.accuracy,
        explanation=f"Accuracy on {last.n_examples} images under {describe_attack(curve)}: {points}. At the last "
        f"epsilon every image is allowed, so that accuracy must fall to chance ({chance:.4f}) or below; if it does "
        "not, the attack is blind.",
    )


def _chance(y: np.ndarray) -> float:
    """Accuracy of always saying the commonest class."""
    return float(np.bincount(y).max() / len(y))


def clean_above_chance(correct: int, y: np.ndarray, hint: str) -> Check:
    """Accuracy on all clean images, `correct` of them right, against the commonest class.

    `hint` says what to do, see `range_hint`.
    """
    chance = _chance(y)
    low, _ = wilson_interval(correct, len(y))
    return Check(
        name="clean_above_chance",
        passed=_verdict(low > chance, len(y)),
        value=correct / len(y),
        explanation=f"{correct} of {len(y)} clean images are classified correctly; the commonest class alone gives "
        f"{chance:.4f}. If it is not better than that by more than chance, nothing else here means anything, and the "
        f"model probably does not get the pixels it was trained on: {hint}.",
    )


def range_hint(model: keras.Model) -> str:
    """What to do about pixels of the wrong range."""
    found = trained_range(model)
    if found is None:
        return (
            "give as_classifier the input_range that it was trained on (--input-range on the command line), or look "
            "at the order of classes"
        )
    return (
        f"its first layer {found[0]!r} takes pixels of {found[1]:g} to {found[2]:g}: "
        f"as_classifier(model, input_range=({found[1]:g}, {found[2]:g})), on the command line --input-range "
        f"{found[1]:g},{found[2]:g}"
    )


def trained_range(model: keras.Model) -> tuple[str, float, float] | None:
    """The layer that first scales pixels, and their range, if it was made for another one than [0, 1]."""
    for layer in layers_in_order(model):
        if isinstance(layer, keras.layers.Rescaling):
            scale, offset = (
                np.ravel(value).astype("float64") for value in (layer.scale, layer.offset)
            )
            factor = float(np.abs(scale).mean())
            if 0 < factor < 1 / 50:  # 1/255, 1/127.5, or those over a deviation; 1/65535 likewise
                return layer.name, 0.0, 255.0 if factor > 1 / 5000 else 65535.0
            if factor == 1.0 and np.allclose(offset, 0):
                continue
            return None
        if isinstance(layer, keras.layers.Normalization):
            mean = getattr(layer, "mean", None)
            if mean is not None and float(keras.ops.max(mean)) > 2:
                return layer.name, 0.0, 255.0
            return None
        if layer.weights:
            return None
    return None


def curve_agrees(curve: Curve, alone: Sequence[Accuracy]) -> Check:
    """Whether PGD alone, along the curve, leaves more than what all attacks of the record leave together."""
    name = describe_attack(curve)
    gaps = [own.accuracy - point.accuracy for own, point in zip(alone, curve.points, strict=True)]
    fits = all(
        own.ci95[0] <= point.accuracy for own, point in zip(alone, curve.points, strict=True)
    )
    worst = int(np.argmax(gaps))
    return Check(
        name="curve_agrees_with_attacks",
        passed=_verdict(fits, curve.points[0].n_examples),
        value=gaps[worst],
        explanation=f"At epsilon {curve.points[worst].epsilon:.4g}, {name} alone leaves {alone[worst].accuracy:.4f} of "
        f"{curve.points[worst].n_examples} images, all attacks within that ball together "
        f"{curve.points[worst].accuracy:.4f}. The curve is drawn at the lower; if they differ by more than chance, "
        f"{name} is too weak for this model, and the rest of the curve is too high.",
    )
