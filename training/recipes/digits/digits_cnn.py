"""Small convolutional network on digits, adversarial training with PGD (Madry et al., arXiv:1706.06083).

    robust-zoo train digits_cnn.pgd_digits --output checkpoints/digits_cnn.pgd_digits

A minute on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe

MODELS = [{}]


def get_recipe(epsilon: float = 0.15) -> Recipe:
    return Recipe(
        name="digits_cnn.pgd_digits",
        dataset="digits",
        classifier=lambda: architectures.digits_cnn(),
        defense=lambda classifier, total_steps: AdversarialTraining(
            classifier,
            attack=PGD(epsilon=epsilon, steps=10, step_size=epsilon / 5),
            ramp_steps=total_steps // 4,
        ),
        paper="arXiv:1706.06083",
        optimizer=lambda total_steps: keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(2e-3, total_steps)
        ),
        epochs=60,
        batch_size=64,
        attacks=(
            FGSM(epsilon=epsilon),
            PGD(epsilon=epsilon, steps=40, step_size=epsilon / 10, restarts=5),
            AutoAttack(epsilon=epsilon),
            DeepFool(),
        ),
        deviations=("epsilon is ramped up from 0 over the first quarter of training",),
    )
