"""Logistic regression on MNIST 3 against 7, natural training (Galloway et al., arXiv:1804.03308).

robust-zoo train logistic.natural_mnist37 --output checkpoints/logistic.natural_mnist37
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool, FastGradient
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="logistic.natural_mnist37",
    dataset="mnist:7,3",
    classifier=lambda: architectures.logistic(),
    paper="arXiv:1804.03308",
    optimizer=lambda total_steps: keras.optimizers.Adam(1e-5),
    epochs=569,
    batch_size=128,
    attacks=(
        FGSM(epsilon=0.25),
        FastGradient(epsilon=0.25, scale=100.0),
        PGD(epsilon=0.25, steps=20, step_size=0.025),
        AutoAttack(epsilon=0.25),
        DeepFool(),
    ),
    reported=(
        Reported(
            source="Goodfellow et al. 2015, as cited by Galloway et al. 2018",
            setting="clean",
            accuracy=0.984,
        ),
        Reported(
            source="Goodfellow et al. 2015, as cited by Galloway et al. 2018",
            setting="FGSM",
            accuracy=0.01,
        ),
    ),
    deviations=("the 1,042 images held out are not trained on",),
)
