"""Gradient-masking checks: signs that a model only looks robust because attacks cannot see its gradient.

After Athalye et al., "Obfuscated gradients give a false sense of security" (arXiv:1802.00420, section
3.1) and the flags of AutoAttack (arXiv:2003.01690). Each check returns a record that says what was
measured, when it fires and what to do.
"""

import keras
import numpy as np

from robust_zoo.attacks import FGSM, PGD
from robust_zoo.attacks.flags import randomness, softmax_output, zero_gradients
from robust_zoo.describe import describe_attack
from robust_zoo.evaluation.transfer import transfer_accuracy
from robust_zoo.record import Check, Curve, ThreatModel, wilson_interval

N_EXAMPLES = 256  # how many of the evaluated examples the checks look at
_STEPS = 20


def run_checks(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    logits: np.ndarray,
    threat: ThreatModel | None,
    curve: Curve | None,
    *,
    seed: int,
    batch_size: int,
    progress: bool,
) -> tuple[Check, ...]:
    """All checks on the first `N_EXAMPLES` images; those that attack only where there is a curve.

    Args:
        model: float32 classifier.
        x: float32 (n, height, width, channels) in [0, 1].
        y: int32 (n,).
        logits: float32 (n, classes) of `x`.
        threat: norm and epsilon, or None.
        curve: accuracy against epsilon on some of these images, or None if PGD does not have the norm.
        seed: of the attacks.
        batch_size: of the attacks.
        progress: whether to show progress bars.
    """
    few, labels = x[:N_EXAMPLES], y[:N_EXAMPLES]
    checks = [
        zero_gradients(model, few, labels, batch_size=batch_size),
        softmax_output(logits[:N_EXAMPLES]),
        randomness(model, few),
    ]
    if curve is not None:
        options = {"seed": seed, "batch_size": batch_size, "progress": progress}
        checks.append(pgd_beats_fgsm(model, few, labels, threat, **options))
        clean = float((logits[:N_EXAMPLES].argmax(1) == labels).mean())
        checks.append(
            no_label_leaking(model, few, labels, clean, threat, seed=seed, batch_size=batch_size)
        )
        checks.append(reaches_chance(curve, y))
    return tuple(checks)


def _accuracy(attack, model, x, y, **options) -> float:
    return float(1 - attack.run(model, x, y, **options).success.mean())


def pgd_beats_fgsm(model, x, y, threat: ThreatModel, **options) -> Check:
    """Accuracy under FGSM minus accuracy under PGD at the threat model's epsilon."""
    budget = {"epsilon": threat.epsilon, "norm": threat.norm}
    one_step = _accuracy(FGSM(**budget), model, x, y, **options)
    many_steps = _accuracy(PGD(steps=_STEPS, **budget), model, x, y, **options)
    low, _ = wilson_interval(round(many_steps * len(x)), len(x))
    return Check(
        name="pgd_at_least_as_strong_as_fgsm",
        passed=low <= one_step,
        value=one_step - many_steps,
        explanation=f"Accuracy on {len(x)} images: {one_step:.4f} under FGSM, {many_steps:.4f} under PGD-{_STEPS}. "
        "If PGD is weaker by more than chance, the gradient misleads beyond the first step: use attacks without gradients.",
    )


def no_label_leaking(
    model, x, y, clean: float, threat: ThreatModel, *, seed: int, batch_size: int
) -> Check:
    """Accuracy on the images of FGSM at the threat model's epsilon minus `clean`, that on the images themselves.

    A model that trained against one step can learn to read the label from the step (Kurakin et al.,
    arXiv:1611.01236, section 4.2).
    """
    attack = FGSM(epsilon=threat.epsilon, norm=threat.norm)
    moved = transfer_accuracy(attack, model, model, x, y, seed=seed, batch_size=batch_size)
    return Check(
        name="no_label_leaking",
        passed=moved.ci95[0] <= clean,
        value=moved.accuracy - clean,
        explanation=f"Accuracy on {len(x)} images: {clean:.4f} clean, {moved.accuracy:.4f} on what FGSM makes of them. "
        "If it rises by more than chance, the step gives the label away: accuracy under one step says nothing here.",
    )


def reaches_chance(curve: Curve, y: np.ndarray) -> Check:
    """Accuracy where the ball holds every image, the curve's last point, against the commonest class in `y`."""
    last = curve.points[-1]
    labels = y[: last.n_examples]
    chance = float(np.bincount(labels).max() / len(labels))
    points = ", ".join(f"{point.accuracy:.4f} at {point.epsilon:.4g}" for point in curve.points)
    return Check(
        name="accuracy_reaches_chance",
        passed=last.ci95[0] <= chance,
        value=last.accuracy,
        explanation=f"Accuracy on {last.n_examples} images under {describe_attack(curve)}: {points}. At the last "
        f"epsilon every image is allowed, so that accuracy must fall to chance ({chance:.4f}) or below; if it does "
        "not, the attack is blind.",
    )
