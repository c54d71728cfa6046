"""MLP on digits, fast adversarial training (Wong et al., arXiv:2001.03994).

    robust-zoo train mlp.fast_digits --output checkpoints/mlp.fast_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.fast_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier, attack=PGD(epsilon=0.1, steps=1, step_size=0.125)
    ),
    paper="arXiv:2001.03994",
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
    deviations=("Adam with cosine decay, not SGD with a cyclic rate",),
)
