"""Natural training, with robust accuracy in the logs."""

from typing import Any

import keras

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.defenses.batch import Batch
from robust_zoo.defenses.trainer import Defense
from robust_zoo.typing import Tensor


@keras.saving.register_keras_serializable("robust_zoo")
class NaturalTraining(Defense):
    """Minimises the loss at clean images: the baseline of every defense.

    Args:
        classifier: see `Defense`.
        attack: attack that robust accuracy is measured with in every step, at its cost; None (default) measures none.
        attack_mode, seed: see `Defense`.
    """

    trains_on_clean = True
    trains_on_adversarial = False

    def __init__(
        self, classifier: keras.Model, *, attack: FixedBudgetAttack | None = None, **kwargs: Any
    ) -> None:
        super().__init__(classifier, attack=attack, **kwargs)

    def objective(
        self, x: Batch, y: Tensor, y_pred: dict[str, Tensor], sample_weight: Tensor | None
    ) -> Tensor:
        return self.compiled_loss(x["clean"], y, y_pred["clean"], sample_weight)
