"""MLP on digits, fine-tuned with DeepDefense (Yan et al., arXiv:1803.00404).

    robust-zoo train mlp.deepdefense_digits --output checkpoints/mlp.deepdefense_digits

A minute on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import DeepDefense
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.deepdefense_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    start="mlp.natural_digits",
    defense=lambda classifier, total_steps: DeepDefense(classifier, strength=15, c=25, d=5),
    paper="arXiv:1803.00404",
    optimizer=lambda total_steps: keras.optimizers.Adam(
        keras.optimizers.schedules.PiecewiseConstantDecay([total_steps * 4 // 5], [5e-4, 2.5e-4])
    ),
    epochs=30,
    batch_size=64,
    attacks=(
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01, restarts=5),
        AutoAttack(epsilon=0.1),
        DeepFool(),
        DeepFool(steps=5),
    ),
    deviations=("Adam, not SGD with momentum and weight decay", "30 epochs, not 5"),
)
