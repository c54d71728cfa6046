"""MLP on digits, adversarial training with PGD (arXiv:1706.06083).

    robust-zoo train mlp.pgd_digits --output checkpoints/mlp.pgd_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.pgd_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier,
        attack=PGD(epsilon=0.1, steps=10, step_size=0.02),
        ramp_steps=total_steps // 4,
    ),
    paper="arXiv:1706.06083",
    optimizer=lambda total_steps: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(2e-3, total_steps)
    ),
    epochs=60,
    batch_size=64,
    attacks=(
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01, restarts=5),
        AutoAttack(epsilon=0.1),
        DeepFool(),
    ),
    deviations=("epsilon is ramped up from 0 over the first quarter of training",),
)
