"""Madry's MNIST network, adversarial training with PGD (arXiv:1706.06083, Table 1).

    robust-zoo train madry_cnn.pgd_mnist --output checkpoints/madry_cnn.pgd_mnist

The paper reports 98.8% clean, 93.2% under PGD-40 and 89.3% under PGD-100 with 20 restarts at epsilon 0.3;
ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

SOURCE = "Madry et al. 2017, Table 1"

recipe = Recipe(
    name="madry_cnn.pgd_mnist",
    dataset="mnist",
    classifier=lambda: architectures.madry_cnn(initial="glorot"),
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier,
        attack=PGD(epsilon=0.3, steps=10, step_size=0.06),
        ramp_steps=total_steps // 5,
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
        PGD(epsilon=0.3, steps=100, step_size=0.01, restarts=20),
        AutoAttack(epsilon=0.3),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000, 1_000),
    reported=(
        Reported(source=SOURCE, setting="clean", accuracy=0.988),
        Reported(source=SOURCE, setting="FGSM", accuracy=0.956),
        Reported(source=SOURCE, setting="PGD-40", accuracy=0.932),
        Reported(source=SOURCE, setting="PGD-100 x 20", accuracy=0.893),
        Reported(
            source="AutoAttack on Madry et al.'s weights", setting="AutoAttack", accuracy=0.885
        ),
    ),
    deviations=(
        "Glorot-uniform initial kernels and zero biases, not a truncated normal of 0.1 and 0.1",
        "PGD-10 with step 0.06 inside training, not PGD-40 with step 0.01",
        "epsilon is ramped up from 0 over the first fifth of training",
        "10 epochs with Adam at 1e-3, cut to 2e-4 and 4e-5, in batches of 128; the paper's code takes 100,000 "
        "steps of Adam at 1e-4 on the summed loss in batches of 50",
        "trained in mixed_bfloat16, measured in float32",
    ),
)
