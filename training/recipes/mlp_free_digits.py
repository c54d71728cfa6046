"""MLP on digits, free adversarial training (Shafahi et al., arXiv:1904.12843).

    robust-zoo train mlp.free_digits --output checkpoints/mlp.free_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import FreeAdversarialTraining
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.free_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    defense=lambda classifier, total_steps: FreeAdversarialTraining(
        classifier, attack=PGD(epsilon=0.1, steps=10, step_size=0.02), batch_size=64, replays=4
    ),
    paper="arXiv:1904.12843",
    # The optimizer makes a step in each of the four replays.
    optimizer=lambda total_steps: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(2e-3, 4 * total_steps)
    ),
    epochs=30,
    batch_size=64,
    attacks=(
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01, restarts=5),
        AutoAttack(epsilon=0.1),
        DeepFool(),
    ),
    deviations=("Adam with cosine decay, not SGD with steps",),
)
