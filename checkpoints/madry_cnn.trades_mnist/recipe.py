"""Madry's MNIST network, TRADES (Zhang et al., arXiv:1901.08573).

    robust-zoo train madry_cnn.trades_mnist --output checkpoints/madry_cnn.trades_mnist

AutoAttack finds 92.8% on the weights that the authors published.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool, NormalStartPGD
from robust_zoo.defenses import TRADES
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="madry_cnn.trades_mnist",
    dataset="mnist",
    classifier=lambda: architectures.madry_cnn(initial="glorot"),
    defense=lambda classifier, total_steps: TRADES(
        classifier,
        attack=NormalStartPGD(epsilon=0.3, steps=10, step_size=0.06, loss="kl_divergence"),
        beta=1.0,
    ),
    paper="arXiv:1901.08573",
    optimizer=lambda total_steps: keras.optimizers.Adam(
        keras.optimizers.schedules.PiecewiseConstantDecay(
            [total_steps * 7 // 10, total_steps * 9 // 10], [1e-3, 2e-4, 4e-5]
        )
    ),
    epochs=15,
    batch_size=128,
    dtype_policy="mixed_bfloat16",
    attacks=(
        FGSM(epsilon=0.3),
        PGD(epsilon=0.3, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.3),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    reported=(
        Reported(source="AutoAttack on the authors' weights", setting="AutoAttack", accuracy=0.928),
    ),
    deviations=(
        "55,000 training images, since 5,000 are held out",
        "Madry's network, not the paper's small CNN",
        "10 steps of 0.06 in training, not 40 of 0.01",
        "15 epochs with Adam, not 100 with SGD",
        "trained in mixed_bfloat16, measured in float32",
    ),
)
