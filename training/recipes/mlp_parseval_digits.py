"""MLP on digits, Parseval training (Cisse et al., arXiv:1704.08847).

    robust-zoo train mlp.parseval_digits --output checkpoints/mlp.parseval_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import ParsevalTraining
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.parseval_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    start="mlp.natural_digits",
    defense=lambda classifier, total_steps: ParsevalTraining(classifier, beta=1e-2),
    paper="arXiv:1704.08847",
    optimizer=lambda total_steps: keras.optimizers.Adam(5e-4),
    epochs=30,
    batch_size=64,
    attacks=(
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01, restarts=5),
        AutoAttack(epsilon=0.1),
        DeepFool(),
        DeepFool(steps=5),
    ),
    deviations=(
        "Adam, not SGD with momentum and weight decay",
        "30 epochs, not 5",
        "beta 1e-2, not 1e-4",
    ),
)
