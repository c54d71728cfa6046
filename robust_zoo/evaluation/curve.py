"""Accuracy against epsilon."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from robust_zoo.attacks import PGD
from robust_zoo.attacks.norms import get_norm
from robust_zoo.record import Accuracy, Curve, CurvePoint, ThreatModel

N_EXAMPLES = 1000  # how many of the evaluated examples the curve is measured on
STEPS = 20
_PARTS = (0.25, 0.5, 0.75, 1.0)  # of the threat model's epsilon
_BEYOND = 3  # more radii, up to the one that covers every image


@dataclass(frozen=True)
class Evidence:
    """What an attack found: the distance (n,) of its adversarial examples, infinite where it found none."""

    distance: np.ndarray

    def broken(self, epsilon: float, n: int) -> np.ndarray:
        """Which of the first `n` images have an adversarial example within epsilon, bool (n,)."""
        found = np.zeros(n, dtype=bool)
        known = self.distance[:n] <= epsilon * (1 + 1e-5) + 1e-7
        found[: len(known)] = known
        return found


def accuracy_curve(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    threat: ThreatModel,
    evidence: Sequence[Evidence] = (),
    *,
    seed: int,
    batch_size: int,
    progress: bool,
) -> tuple[Curve, list[Accuracy]]:
    """Accuracy as epsilon grows until the ball holds every image: under PGD, and whatever else is known.

    An example that was fooled within one radius is fooled within every larger one, and is not attacked again.

    Args:
        model: float32 classifier.
        x: float32 (n, height, width, channels) in [0, 1]; the first `N_EXAMPLES` are used.
        y: int32 (n,).
        threat: norm, one that PGD has, and epsilon.
        evidence: of other attacks on the same images, in the same norm.
        seed: integer seed of the attack.
        batch_size: of the attack.
        progress: whether to show progress bars.

    Returns:
        The curve, no point of which is above what any of the evidence leaves, and its points as PGD alone has them.
    """
    x, y = x[:N_EXAMPLES], y[:N_EXAMPLES]
    alone, held = np.ones(len(x), dtype=bool), np.ones(len(x), dtype=bool)
    points, own = [], []
    for epsilon in radii(threat, x.shape[1:]):
        rows = np.flatnonzero(alone)
        if len(rows):
            attack = PGD(epsilon=epsilon, norm=threat.norm, steps=STEPS)
            options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "progress": progress}
            alone[rows] = ~attack.run(model, x[rows], y[rows], **options).success
        held &= alone
        for part in evidence:
            held &= ~part.broken(epsilon, len(x))
        own.append(Accuracy.count(int(alone.sum()), len(x)))
        points.append(CurvePoint.count(int(held.sum()), len(x), epsilon=epsilon))
    config = PGD(epsilon=threat.epsilon, norm=threat.norm, steps=STEPS).get_config()
    return Curve(name="PGD", config=config, seed=seed, points=tuple(points)), own


def radii(threat: ThreatModel, shape: tuple[int, ...]) -> list[float]:
    """Where the curve is measured; in the last ball every image of `shape` reaches every other."""
    ones = np.ones((1, *shape), "float32")
    everything = float(get_norm(threat.norm).distance(ones, np.zeros_like(ones))[0])
    below = [part * threat.epsilon for part in _PARTS if part * threat.epsilon < everything]
    if threat.epsilon >= everything:
        return [*below, everything]
    beyond = np.geomspace(threat.epsilon, everything, _BEYOND + 1)[1:-1].tolist()
    return [*below, *beyond, everything]
