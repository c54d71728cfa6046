"""Clean accuracy against distance to adversarial examples (PGN paper, figures 5 and 7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from robust_zoo.record import RobustnessRecord

_SHARE = 0.99  # of the examples that an attack must have fooled a model on


@dataclass(frozen=True)
class RobustnessCurve:
    """Models of one method, of several strengths; of two methods the better one has the outer curve.

    Attributes:
        names: of the models, by rising distance.
        distances: mean distance to the adversarial examples that an attack found. Examples that are misclassified
            to begin with count as found: at distance 0 by an attack on true labels (C&W; the paper's rho), at their
            distance to another class by one on predicted labels (DeepFool).
        accuracies: on clean images.
    """

    names: tuple[str, ...]
    distances: tuple[float, ...]
    accuracies: tuple[float, ...]

    def distance_at(self, accuracy: float) -> float | None:
        """The largest distance at a clean accuracy, on straight lines between models; None beyond the curve.

        Methods are only comparable at the same clean accuracy.
        """
        pairs = list(zip(self.distances, self.accuracies, strict=True))
        found = [distance for distance, value in pairs if value == accuracy]
        for (near, start), (far, end) in pairwise(pairs):
            if min(start, end) < accuracy < max(start, end):
                found.append(near + (far - near) * (accuracy - start) / (end - start))
        return max(found, default=None)


def robustness_curve(
    records: Sequence[RobustnessRecord], *, attack: str = "DeepFool"
) -> RobustnessCurve:
    """The curve of models of one method.

    Args:
        records: of models that were measured on the same examples with one setting of a minimum-norm attack.
        attack: its class name, such as "DeepFool", which the records of the zoo have, or the paper's,
            "CarliniWagner".

    Raises:
        ValueError: no records, one without that attack or on which it failed for more than 1% of the examples, or
            records of other examples or settings.
    """
    points, settings = [], []
    for record in records:
        outcome = next((item for item in record.minimum_norm if item.name == attack), None)
        if outcome is None or outcome.found.mean is None:
            raise ValueError(f"records must have distances under {attack}, got {record.name!r}.")
        if outcome.found.n_examples < _SHARE * outcome.n_examples:
            raise ValueError(
                f"records must have distances of at least {_SHARE:.0%} of the examples, got "
                f"{outcome.found.n_examples} of {outcome.n_examples} of {record.name!r}: the mean of a few easy ones "
                "says nothing."
            )
        points.append((outcome.found.mean, record.clean.accuracy, record.name))
        measured_on = (record.dataset, outcome.n_examples, outcome.seed)
        settings.append((*measured_on, outcome.norm, outcome.config))
    if not points or any(other != settings[0] for other in settings):
        given = [record.name for record in records]
        raise ValueError(
            f"records must be at least one, measured on the same examples with one setting of {attack}, got {given}."
        )
    distances, accuracies, names = zip(*sorted(points), strict=True)
    return RobustnessCurve(names, distances, accuracies)
