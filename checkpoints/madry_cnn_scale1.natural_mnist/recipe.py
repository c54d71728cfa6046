"""Madry's MNIST network at scale 1 of 16, natural training: capacity study (arXiv:1706.06083, section 4).

    robust-zoo train madry_cnn_scale1.natural_mnist --output checkpoints/madry_cnn_scale1.natural_mnist

As madry_cnn.natural_mnist, but for the width.
"""

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.recipe import load_recipe

whole, _ = load_recipe("madry_cnn.natural_mnist")
recipe = whole.changed(
    name="madry_cnn_scale1.natural_mnist",
    classifier=lambda: architectures.madry_cnn(scale=1, initial="glorot"),
    attacks=(
        FGSM(epsilon=0.3),
        PGD(epsilon=0.3, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.3),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    reported=(),
    deviations=(
        "64 dense units and epsilon 0.3, as in later versions of the paper, not 8 and 0.1",
        *whole.deviations,
    ),
)
