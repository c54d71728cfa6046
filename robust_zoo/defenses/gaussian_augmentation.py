"""Training on noisy images, for randomized smoothing (Cohen et al., arXiv:1902.02918, section 3.3)."""

from typing import Any

import keras

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.backend import random
from robust_zoo.defenses.batch import Batch
from robust_zoo.defenses.natural_training import NaturalTraining
from robust_zoo.defenses.tools import check_number

_NOISE = 2  # folded into the keys, which attacks draw from, too


@keras.saving.register_keras_serializable("robust_zoo")
class GaussianAugmentation(NaturalTraining):
    """Minimises the loss at images with Gaussian noise, so that `robust_zoo.smooth` certifies the classifier.

    The noise leaves [0, 1], as that of smoothing does. "accuracy" and "val_accuracy" in the logs are those on noisy
    images: how often the smoothed classifier's votes are right.

    Args:
        classifier: see `Defense`.
        sigma: standard deviation of the noise, in [0, 1] pixel units, > 0; that which `smooth` is given later.
        attack: see `NaturalTraining`; it attacks the images without noise.
        attack_mode, seed: see `Defense`.

    Example:
        >>> defense = GaussianAugmentation(classifier, sigma=0.25)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> defense.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
        >>> history = defense.fit(x, y, verbose=0)
        >>> smooth(classifier, sigma=0.25, n=1000).certify(x, y).accuracy(0.1).n_examples == len(x)
        True
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        sigma: float,
        attack: FixedBudgetAttack | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(classifier, attack=attack, **kwargs)
        self.sigma = check_number("sigma", sigma, above=0)

    def prepare(self, data: Any, training: bool) -> tuple[Batch, Any, Any]:
        batch, y, sample_weight = super().prepare(data, training)
        images = batch["clean"]
        keys = random.fold_in(self.keys(images, training), _NOISE)
        batch["clean"] = images + self.sigma * random.normal(keys, images.shape[1:])
        return batch, y, sample_weight

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sigma": self.sigma}
