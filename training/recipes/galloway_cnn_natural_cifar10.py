"""CNN-L2 of Galloway et al. on CIFAR-10, first phase: 50 natural epochs (arXiv:1804.03308).

    robust-zoo train galloway_cnn.natural_cifar10 --output checkpoints/galloway_cnn.natural_cifar10

Half an hour on two cores.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="galloway_cnn.natural_cifar10",
    dataset="cifar10",
    classifier=lambda: architectures.galloway_cnn(weight_decay=1e-3),
    paper="arXiv:1804.03308",
    optimizer=lambda total_steps: keras.optimizers.Adam(1e-3),
    # The true class keeps 0.9, the others share the rest.
    label_smoothing=1 / 9,
    epochs=50,
    batch_size=128,
    attacks=(
        FGSM(epsilon=8 / 255),
        PGD(epsilon=8 / 255, steps=20, step_size=2 / 255),
        AutoAttack(epsilon=8 / 255),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    deviations=(
        "45,000 training images, since 5,000 are held out: as many epochs, a tenth fewer steps",
        "label smoothing of 0.1, which the authors' checkpoints do not tell",
    ),
)
