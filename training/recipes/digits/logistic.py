"""Logistic regression on digits 3 against 7, expert initialisation and weight decay (arXiv:1804.03308).

    robust-zoo train logistic.expert_l2_digits --output checkpoints/logistic.expert_l2_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, DeepFool, FastGradient
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import with_weight_decay
from robust_zoo.recipe import Recipe

MODELS = [{}]


def get_recipe(l2: float = 0.05) -> Recipe:
    def expert():
        """The mean image of 3 less that of 7 as initial weights, and weight decay."""
        train = load_dataset("digits:7,3", "train")
        model = architectures.logistic((8, 8, 1), expert=(train.images, train.labels))
        return with_weight_decay(model, l2=l2)

    return Recipe(
        name="logistic.expert_l2_digits",
        dataset="digits:7,3",
        classifier=expert,
        paper="arXiv:1804.03308",
        optimizer=lambda total_steps: keras.optimizers.Adam(1e-4),
        epochs=100,
        batch_size=32,
        attacks=(
            FGSM(epsilon=0.1),
            FastGradient(epsilon=0.1, scale=100.0),
            PGD(epsilon=0.1, steps=20, step_size=0.01),
            DeepFool(),
        ),
    )
