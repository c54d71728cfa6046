"""Accuracy against epsilon."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from robust_zoo.attacks import APGD, PGD
from robust_zoo.attacks.expectation import expected_logits
from robust_zoo.attacks.norms import get_norm
from robust_zoo.attacks.run import bfloat16_copy
from robust_zoo.attacks.working_set import WorkingSet
from robust_zoo.backend import random
from robust_zoo.record import Accuracy, Curve, CurvePoint, ThreatModel, allowed_distance

N_EXAMPLES = 512  # how many of the evaluated examples the curve is measured on
_STEPS, _STEPS_L1 = 20, 50  # these are divided between three balls
_PARTS = (0.25, 0.5, 0.75, 1.0)  # of the threat model's epsilon
_BEYOND = 3  # more radii, up to the one that covers every image


@dataclass(frozen=True)
class Evidence:
    """What an attack found: the distance (n,) of its adversarial examples, infinite where it found none."""

    distance: np.ndarray

    def broken(self, epsilon: float, n: int) -> np.ndarray:
        """Which of the first `n` images have an adversarial example within epsilon, bool (n,)."""
        found = np.zeros(n, dtype=bool)
        known = self.distance[:n] <= allowed_distance(epsilon)
        found[: len(known)] = known
        return found


def curve_radii(threat: ThreatModel, shape: tuple[int, ...]) -> list[float]:
    """Where the curve is measured; in the last ball every image of `shape` reaches every other."""
    ones = np.ones((1, *shape), "float32")
    everything = float(get_norm(threat.norm).distance(ones, np.zeros_like(ones))[0])
    below = [part * threat.epsilon for part in _PARTS if part * threat.epsilon < everything]
    if threat.epsilon >= everything:
        return [*below, everything]
    beyond = np.geomspace(threat.epsilon, everything, _BEYOND + 1)[1:-1].tolist()
    return [*below, *beyond, everything]


def curve_attack(threat: ThreatModel, samples: int = 1) -> PGD | APGD:
    """What the curve is measured with, in l1 APGD: at other radii its step is longer or shorter in proportion.

    `samples`: draws of a random model that it averages over.
    """
    budget: dict[str, Any] = {"epsilon": threat.epsilon, "norm": threat.norm, "samples": samples}
    return APGD(**budget, steps=_STEPS_L1) if threat.norm == "l1" else PGD(**budget, steps=_STEPS)


def broken_at(
    attack: PGD | APGD,
    radii: Sequence[float],
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    numbers: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    precision: str = "float32",
) -> np.ndarray:
    """The place of the least radius within which PGD fooled the model, int64 (n,); their number where it did not.

    What fools a model within one radius fools it within every larger one, so each image's place is looked for by
    bisection: a radius is left out where PGD fooled the model within a smaller one, or failed within a larger one.

    Args:
        attack: whose radius is replaced.
        radii: rising.
        model: float32 classifier.
        x: float32 (n, height, width, channels) in [0, 1].
        y: int32 (n,).
        numbers: of the images, see `Attack.run`.
        seed: integer seed of the attack.
        batch_size: images in a full batch.
        precision: "float32" (default) or "bfloat16", see `Attack.run`.
    """
    options: dict[str, Any] = {"key": random.key(seed), "batch_size": batch_size}
    if precision == "bfloat16":
        options["rough"] = bfloat16_copy(model)
    logits = expected_logits(model, x, samples=attack.samples, batch_size=batch_size)
    rising = np.asarray(radii)
    least, most = np.zeros(len(x), "int64"), np.full(len(x), len(radii))
    while len(rows := np.flatnonzero(least < most)):
        middle = (least[rows] + most[rows]) // 2
        working_set = WorkingSet(
            attack, model, x[rows], y[rows], numbers=numbers[rows], logits=logits[rows],
            epsilon=rising[middle], **options,
        )  # fmt: skip
        working_set.run()
        found = working_set.found()
        found |= attack.confirmed(model, x[rows], y[rows], found, seed, batch_size)
        fooled = found["success"]
        most[rows[fooled]] = middle[fooled]
        least[rows[~fooled]] = middle[~fooled] + 1
    return most


def accuracy_curve(
    broken_at: np.ndarray,
    radii: Sequence[float],
    threat: ThreatModel,
    evidence: Sequence[Evidence] = (),
    *,
    seed: int,
    samples: int = 1,
) -> tuple[Curve, list[Accuracy]]:
    """Accuracy as epsilon grows until the ball holds every image: under PGD, and whatever else is known.

    Args:
        broken_at: for each image the place among `radii` where PGD first fooled the model, see the function.
        radii: rising.
        threat: norm and epsilon.
        evidence: of other attacks on the same images, in the same norm.
        seed: of the attack.
        samples: see `curve_attack`.

    Returns:
        The curve, no point of which is above what any of the evidence leaves, and its points as PGD alone has them.
    """
    held, n = np.ones(len(broken_at), dtype=bool), len(broken_at)
    points, own = [], []
    for place, epsilon in enumerate(radii):
        alone = broken_at > place
        held &= alone
        for part in evidence:
            held &= ~part.broken(epsilon, n)
        own.append(Accuracy.count(int(alone.sum()), n))
        points.append(CurvePoint.count(int(held.sum()), n, epsilon=epsilon))
    attack = curve_attack(threat, samples)
    name, config = type(attack).__name__, attack.get_config()
    return Curve(name=name, config=config, seed=seed, points=tuple(points)), own
