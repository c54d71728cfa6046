"""MLP on digits, weight decay as the only defense (Galloway et al., arXiv:1804.03308).

    robust-zoo train mlp.l2_digits --output checkpoints/mlp.l2_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import with_weight_decay
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.l2_digits",
    dataset="digits",
    classifier=lambda: with_weight_decay(architectures.mlp((8, 8, 1)), l2=0.01),
    paper="arXiv:1804.03308",
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
