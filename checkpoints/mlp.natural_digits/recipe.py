"""MLP on digits, natural training: the baseline beside mlp.pgd_digits.

    robust-zoo train mlp.natural_digits --output checkpoints/mlp.natural_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.natural_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    optimizer=lambda total_steps: keras.optimizers.Adam(1e-3),
    epochs=30,
    batch_size=64,
    attacks=(
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01, restarts=5),
        AutoAttack(epsilon=0.1),
        DeepFool(),
    ),
)
