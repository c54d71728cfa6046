"""Madry's MNIST network, adversarial training with FGSM (arXiv:1706.06083, section 4 and figure 4).

    robust-zoo train madry_cnn.fgsm_mnist --output checkpoints/madry_cnn.fgsm_mnist

The paper trains it to show that it learns to withstand FGSM and not PGD.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="madry_cnn.fgsm_mnist",
    dataset="mnist",
    classifier=lambda: architectures.madry_cnn(initial="glorot"),
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier, attack=FGSM(epsilon=0.3), ramp_steps=total_steps // 5
    ),
    paper="arXiv:1706.06083",
    optimizer=lambda total_steps: keras.optimizers.Adam(
        keras.optimizers.schedules.PiecewiseConstantDecay(
            [total_steps * 7 // 10, total_steps * 9 // 10], [1e-3, 2e-4, 4e-5]
        )
    ),
    epochs=10,
    batch_size=128,
    dtype_policy="mixed_bfloat16",
    attacks=(
        FGSM(epsilon=0.3),
        PGD(epsilon=0.3, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.3),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    deviations=(
        "Glorot-uniform initial kernels and zero biases, not a truncated normal of 0.1 and 0.1",
        "epsilon is ramped up from 0 over the first fifth of training",
        "10 epochs with Adam at 1e-3, cut to 2e-4 and 4e-5, in batches of 128",
        "trained in mixed_bfloat16, measured in float32",
    ),
)
