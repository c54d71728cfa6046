"""What a classifier was trained with, noted on it when `fit` ends."""

import time
from typing import TYPE_CHECKING

from robust_zoo import backend
from robust_zoo.record import DefenseInfo, Origin, Training
from robust_zoo.weights import variables_sha256

if TYPE_CHECKING:
    from robust_zoo.defenses.trainer import Defense


class TrainingNote:
    """Measures one `fit` of a defense, from when it is made.

    Args:
        defense: the trainer.
    """

    def __init__(self, defense: "Defense") -> None:
        self.defense, self.started = defense, time.perf_counter()
        before = getattr(defense.classifier, "origin", None)
        current = before is not None and before.weights == variables_sha256(defense.classifier)
        self.before = before if current else None

    def write(self, epochs: int) -> None:
        """Puts the defense, and epochs and seconds with it so far, on the classifier."""
        defense, classifier = self.defense, self.defense.classifier
        info = DefenseInfo(name=type(defense).__name__, config=defense.hyperparameters())
        seconds = time.perf_counter() - self.started
        earlier: tuple[str, ...] = ()
        if self.before is not None:
            trained, before = self.before.training, self.before.defense
            earlier = trained.deviations
            if before == info:
                epochs += trained.epochs
                seconds += trained.seconds
            else:
                earlier += (f"after {before.name} ({trained.epochs} epochs)",)
        training = Training(
            recipe="",
            commit="",
            epochs=epochs,
            seconds=round(seconds, 1),
            hardware=backend.hardware(defense),
            backend=backend.name,
            deviations=earlier,
        )
        classifier.origin = Origin(info, training, variables_sha256(classifier))
        defense.steps_noted = defense.steps_trained
