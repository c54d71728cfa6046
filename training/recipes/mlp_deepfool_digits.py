"""MLP on digits, fine-tuned on one fixed set of DeepFool examples (arXiv:1511.04599, section 4).

    robust-zoo train mlp.deepfool_digits --output checkpoints/mlp.deepfool_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import FixedSetTraining
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.deepfool_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    start="mlp.natural_digits",
    defense=lambda classifier, total_steps: FixedSetTraining(classifier, made_by=DeepFool()),
    paper="arXiv:1511.04599",
    optimizer=lambda total_steps: keras.optimizers.Adam(5e-4),
    epochs=5,
    batch_size=64,
    attacks=(
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01, restarts=5),
        AutoAttack(epsilon=0.1),
        DeepFool(),
        DeepFool(steps=5),
    ),
    deviations=("Adam, not SGD with momentum and weight decay",),
)
