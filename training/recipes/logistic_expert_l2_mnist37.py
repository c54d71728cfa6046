"""Logistic regression on MNIST 3 against 7, expert initialisation and L2 (arXiv:1804.03308).

robust-zoo train logistic.expert_l2_mnist37 --output checkpoints/logistic.expert_l2_mnist37
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool, FastGradient
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported


def expert():
    """The mean image of 3 less that of 7 as initial weights, and weight decay."""
    train = load_dataset("mnist:7,3", "train")
    model = architectures.logistic(expert=(train.images, train.labels))
    return with_weight_decay(model, l2=0.05)


recipe = Recipe(
    name="logistic.expert_l2_mnist37",
    dataset="mnist:7,3",
    classifier=expert,
    paper="arXiv:1804.03308",
    optimizer=lambda total_steps: keras.optimizers.Adam(1e-5),
    epochs=114,
    batch_size=128,
    attacks=(
        FGSM(epsilon=0.25),
        FastGradient(epsilon=0.25, scale=100.0),
        PGD(epsilon=0.25, steps=20, step_size=0.025),
        AutoAttack(epsilon=0.25),
        DeepFool(),
    ),
    reported=(
        Reported(source="Galloway et al. 2018 (released code)", setting="clean", accuracy=0.9603),
        Reported(source="Galloway et al. 2018 (released code)", setting="FGSM", accuracy=0.4087),
    ),
    deviations=(
        "batches of all training images but the 1,042 held out; an index slip in the authors' code draws them from "
        "about 214 images",
    ),
)
