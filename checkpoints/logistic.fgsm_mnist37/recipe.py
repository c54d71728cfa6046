"""Logistic regression on MNIST 3 against 7, FGSM adversarial training (arXiv:1804.03308).

robust-zoo train logistic.fgsm_mnist37 --output checkpoints/logistic.fgsm_mnist37
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool, FastGradient
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="logistic.fgsm_mnist37",
    dataset="mnist:7,3",
    classifier=lambda: architectures.logistic(),
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier, attack=FGSM(epsilon=0.25)
    ),
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
            source="Galloway et al. 2018 (released checkpoint)", setting="clean", accuracy=0.9647
        ),
        Reported(
            source="Galloway et al. 2018 (released checkpoint)", setting="FGSM", accuracy=0.7198
        ),
    ),
    deviations=(
        "batches of all training images but the 1,042 held out; an index slip in the authors' code draws them from "
        "about 214 images",
    ),
)
