"""MLP on digits, against a perturbation generator network (PGN, 2020).

    robust-zoo train mlp.pgn_digits --output checkpoints/mlp.pgn_digits

A minute on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import PGD, AutoAttack, CarliniWagner, DeepFool, MomentumIterative
from robust_zoo.defenses import PGN
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.pgn_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    defense=lambda classifier, total_steps: PGN(
        classifier,
        generator=architectures.perturbation_generator((8, 8, 1), 10, filters=16, hidden=64),
        distortion_weight=0.5,
        gradient_scale=10.0,
    ),
    paper="Perturbation Generator Networks, 2020",
    optimizer=lambda total_steps: keras.optimizers.Adam(2e-3, use_ema=True, ema_momentum=0.998),
    epochs=60,
    batch_size=64,
    attacks=(
        MomentumIterative(epsilon=0.5, norm="l2", steps=100, step_size=0.06),
        PGD(epsilon=0.5, norm="l2", steps=40, step_size=0.05, restarts=5),
        AutoAttack(epsilon=0.5, norm="l2"),
        DeepFool(),
        CarliniWagner(steps=100, binary_search_steps=5, step_size=5e-3, initial_constant=1e-2),
    ),
    deviations=(
        "the generator sees the gradient 1,280 times as large, and has 16 filters and 64 hidden units",
        "c_L 0.5, not 50: digits have 64 pixels",
    ),
)
