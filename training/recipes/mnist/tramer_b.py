"""Model B of Tramer et al., natural training: another architecture for black-box attacks (arXiv:1706.06083).

    robust-zoo train tramer_b.natural_mnist --output checkpoints/tramer_b.natural_mnist

Madry et al. attack their network from it (Table 1, source B).
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.recipe import Recipe

MODELS = [{}]


def get_recipe() -> Recipe:
    return Recipe(
        name="tramer_b.natural_mnist",
        dataset="mnist",
        classifier=lambda: architectures.tramer_b(),
        optimizer=lambda total_steps: keras.optimizers.Adam(
            keras.optimizers.schedules.PiecewiseConstantDecay(
                [total_steps // 2, total_steps * 3 // 4], [1e-3, 2e-4, 4e-5]
            )
        ),
        epochs=6,
        batch_size=64,
        dtype_policy="mixed_bfloat16",
        attacks=(
            FGSM(epsilon=0.3),
            PGD(epsilon=0.3, steps=40, step_size=0.01),
            AutoAttack(epsilon=0.3),
            DeepFool(),
        ),
        n=(10_000, 10_000, 1_000, 1_000),
        deviations=(
            "the number of epochs, the batch size and the learning rate, which the papers do not give",
            "trained in mixed_bfloat16, measured in float32",
        ),
    )
