"""LeNet on MNIST, natural training: the reference of DeepDefense (arXiv:1803.00404).

robust-zoo train lenet.natural_mnist --output checkpoints/lenet.natural_mnist
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="lenet.natural_mnist",
    dataset="mnist",
    classifier=lambda: architectures.lenet(),
    optimizer=lambda total_steps: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(1e-3, total_steps)
    ),
    epochs=20,
    batch_size=100,
    attacks=(
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.1),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    reported=(Reported(source="Yan et al. 2018, Table 1", setting="clean", accuracy=0.9902),),
    deviations=(
        "55,000 training images, since 5,000 are held out",
        "images in [0, 1], not 0..255 less the mean image; Glorot-uniform initial kernels",
        "Adam with cosine decay, not SGD at 1e-3",
    ),
)
