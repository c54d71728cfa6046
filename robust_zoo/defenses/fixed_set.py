"""Training on adversarial examples made once."""

from typing import Any

import keras
import numpy as np

from robust_zoo.attacks import Attack, DeepFool, FixedBudgetAttack
from robust_zoo.defenses.natural_training import NaturalTraining


@keras.saving.register_keras_serializable("robust_zoo")
class FixedSetTraining(NaturalTraining):
    """Fine-tuning on one fixed set of adversarial examples with their true labels, and no clean images.

    The set is made of the training images when `fit` begins, on the classifier as it then is
    (Moosavi-Dezfooli et al., arXiv:1511.04599, section 4; as a baseline in arXiv:1803.00404).

    Args:
        classifier: see `Defense`; trained already.
        made_by: any `Attack` that neither aims at the labels given nor has weights of its own; it makes the set.
            Default: `DeepFool()`. Where it fails, a minimum-norm attack leaves the clean image, and a fixed-budget
            attack gives its candidate of highest loss.
        attack: see `NaturalTraining`.
        seed: see `Defense`.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        made_by: Attack | None = None,
        attack: FixedBudgetAttack | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(classifier, attack=attack, **kwargs)
        made_by = DeepFool() if made_by is None else made_by
        if not isinstance(made_by, Attack):
            raise TypeError(f"made_by must be a robust_zoo attack, got {made_by!r}.")
        if made_by.reaches_given_labels or made_by.models:
            raise ValueError(
                f"made_by must neither aim at the labels given nor have weights of its own, got {made_by!r}."
            )
        made_by.check_model(classifier)
        self.made_by = made_by

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Keras's `fit` on the set made of the arrays `x` and `y`; see `Defense.fit`.

        Anything other than arrays is taken to be the set itself, made with `training_images`. To resume an interrupted
        training, pass the set made at its start: the classifier has changed since, and would give another set.
        """
        if hasattr(x, "__array__"):
            x = self.training_images(x, y)
        return super().fit(x, y, *args, **kwargs)

    def training_images(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The adversarial training set, float32 in the shape of `x`, that `made_by` makes from images and labels."""
        return self.made_by.run(self.classifier, x, y, seed=self.seed).x_adv

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "made_by": keras.saving.serialize_keras_object(self.made_by),
        }
