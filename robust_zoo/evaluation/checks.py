"""Gradient-masking checks: signs that a model only looks robust because attacks cannot see its gradient.

After Athalye et al., "Obfuscated gradients give a false sense of security" (arXiv:1802.00420, section
3.1) and the flags of AutoAttack (arXiv:2003.01690). Each check returns a record that says what was
measured, when it fires and what to do.
"""

import keras
import numpy as np

from robust_zoo.attacks import FGSM, PGD
from robust_zoo.attacks.flags import randomness, softmax_output, zero_gradients
from robust_zoo.attacks.norms import get_norm
from robust_zoo.record import Check, ThreatModel, wilson_interval

N_EXAMPLES = 256  # how many of the evaluated examples the checks look at
_EPSILONS = 4  # radii from the threat model's to the one that covers every image
_STEPS = 20


def run_checks(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    logits: np.ndarray,
    threat: ThreatModel | None,
    *,
    seed: int,
    batch_size: int,
    progress: bool,
) -> tuple[Check, ...]:
    """All checks on the first `N_EXAMPLES` images; those that attack only if PGD has the threat model's norm.

    Args:
        model: float32 classifier.
        x: float32 (n, height, width, channels) in [0, 1].
        y: int32 (n,).
        logits: float32 (n, classes) of `x`.
        threat: norm and epsilon, or None.
        seed: of the attacks.
        batch_size: of the attacks.
        progress: whether to show progress bars.
    """
    x, y, logits = x[:N_EXAMPLES], y[:N_EXAMPLES], logits[:N_EXAMPLES]
    checks = [
        zero_gradients(model, x, y, batch_size=batch_size),
        softmax_output(logits),
        randomness(model, x),
    ]
    if threat is not None and threat.norm in PGD.norms:
        options = {"seed": seed, "batch_size": batch_size, "progress": progress}
        checks += [
            pgd_beats_fgsm(model, x, y, threat, **options),
            reaches_chance(model, x, y, threat, **options),
        ]
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
        explanation=f"Accuracy on {len(x)} images: {one_step:.4f} under FGSM, {many_steps:.4f} under PGD-{_STEPS}. If PGD is "
        "weaker by more than chance, the gradient misleads beyond the first step: use attacks without gradients.",
    )


def reaches_chance(model, x, y, threat: ThreatModel, **options) -> Check:
    """Accuracy under PGD as epsilon grows until the ball holds every image."""
    # From any image, a distance of 1 in every pixel reaches every other.
    everything = float(get_norm(threat.norm).distance(np.ones_like(x[:1]), np.zeros_like(x[:1]))[0])
    start = min(threat.epsilon, everything)
    epsilons = np.geomspace(start, everything, _EPSILONS).tolist() if start < everything else [1.0]
    epsilons[-1] = everything
    curve = [
        (
            epsilon,
            _accuracy(PGD(epsilon=epsilon, norm=threat.norm, steps=_STEPS), model, x, y, **options),
        )
        for epsilon in epsilons
    ]
    chance = float(np.bincount(y).max() / len(y))
    final = curve[-1][1]
    low, _ = wilson_interval(round(final * len(x)), len(x))
    points = ", ".join(f"{accuracy:.4f} at {epsilon:.4g}" for epsilon, accuracy in curve)
    return Check(
        name="accuracy_reaches_chance",
        passed=low <= chance,
        value=final,
        explanation=f"Accuracy on {len(x)} images under PGD-{_STEPS}: {points}. At the last epsilon every image is "
        f"allowed, so that accuracy must fall to chance ({chance:.4f}) or below; if it does not, the attack is "
        "blind.",
    )
