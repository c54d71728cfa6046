"""The independent copy of madry_cnn.pgd_mnist that black-box examples are made on (arXiv:1706.06083, Table 1, A').

    robust-zoo train madry_cnn.pgd_copy_mnist --output checkpoints/madry_cnn.pgd_copy_mnist

The same recipe with another seed: other initial weights, order of the data and random starts.
"""

from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.recipe import load_recipe

first, _ = load_recipe("madry_cnn.pgd_mnist")
recipe = first.changed(
    name="madry_cnn.pgd_copy_mnist",
    seed=1,
    attacks=(
        FGSM(epsilon=0.3),
        PGD(epsilon=0.3, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.3),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    reported=(),
)
