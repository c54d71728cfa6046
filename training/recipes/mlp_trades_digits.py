"""MLP on digits, TRADES (Zhang et al., arXiv:1901.08573).

    robust-zoo train mlp.trades_digits --output checkpoints/mlp.trades_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool, NormalStartPGD
from robust_zoo.defenses import TRADES
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.trades_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    defense=lambda classifier, total_steps: TRADES(
        classifier,
        attack=NormalStartPGD(epsilon=0.1, steps=10, step_size=0.02, loss="kl_divergence"),
        beta=6.0,
    ),
    paper="arXiv:1901.08573",
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
