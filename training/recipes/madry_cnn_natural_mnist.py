"""Madry's MNIST network, natural training (arXiv:1706.06083, Table 1's counterpart).

    robust-zoo train madry_cnn.natural_mnist --output checkpoints/madry_cnn.natural_mnist

The paper reports 99.2% clean and 6.4% under FGSM at epsilon 0.3; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

SOURCE = "Madry et al. 2017, section 4"

recipe = Recipe(
    name="madry_cnn.natural_mnist",
    dataset="mnist",
    classifier=lambda: architectures.madry_cnn(initial="glorot"),
    optimizer=lambda total_steps: keras.optimizers.Adam(
        keras.optimizers.schedules.PiecewiseConstantDecay(
            [total_steps // 2, total_steps * 3 // 4], [1e-3, 2e-4, 4e-5]
        )
    ),
    epochs=5,
    batch_size=128,
    dtype_policy="mixed_bfloat16",
    attacks=(
        FGSM(epsilon=0.3),
        PGD(epsilon=0.3, steps=40, step_size=0.01),
        PGD(epsilon=0.3, steps=100, step_size=0.01, restarts=20),
        AutoAttack(epsilon=0.3),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000, 1_000),
    reported=(
        Reported(source=SOURCE, setting="clean", accuracy=0.992),
        Reported(source=SOURCE, setting="FGSM", accuracy=0.064),
    ),
    deviations=(
        "Glorot-uniform initial kernels and zero biases, not a truncated normal of 0.1 and 0.1",
        "5 epochs with Adam at 1e-3, cut to 2e-4 and 4e-5, in batches of 128",
        "trained in mixed_bfloat16, measured in float32",
    ),
)
