"""MLP on digits, TRADES with adversarial weight perturbation (Wu et al., arXiv:2004.05884).

    robust-zoo train mlp.awp_digits --output checkpoints/mlp.awp_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool, NormalStartPGD
from robust_zoo.defenses import TRADES, AdversarialWeightPerturbation
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.awp_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    defense=lambda classifier, total_steps: AdversarialWeightPerturbation(
        TRADES(
            classifier,
            attack=NormalStartPGD(epsilon=0.1, steps=10, step_size=0.02, loss="kl_divergence"),
            beta=6.0,
        ),
        gamma=5e-3,
    ),
    paper="arXiv:2004.05884",
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
    deviations=("Adam with cosine decay, not SGD with steps",),
)
