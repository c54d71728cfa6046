"""The small CNN of Galloway et al. on CIFAR-10 (arXiv:1804.03308): PGD training with and without weight decay.

    robust-zoo train galloway_cnn.l2_cifar10 --output checkpoints/galloway_cnn.l2_cifar10

pgd is the authors' CNN, l2 their CNN-L2. Both train for 50 natural epochs first, with the same penalty: natural and
natural_l2, from which they start with a fresh optimizer, as the authors' did. Where the zoo does not have these, train
them and give the directory: `--set start=DIR`. Half an hour for the first phase on two cores, hours for the second.
"""

from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

SOURCE = "Galloway et al. 2018 (released checkpoints)"

COMMON = {
    "dataset": "cifar10",
    "paper": "arXiv:1804.03308",
    "optimizer": lambda total_steps: keras.optimizers.Adam(1e-3),
    # The true class keeps 0.9, the others share the rest.
    "label_smoothing": 1 / 9,
    "batch_size": 128,
    "attacks": (
        FGSM(epsilon=8 / 255),
        PGD(epsilon=8 / 255, steps=20, step_size=2 / 255),
        AutoAttack(epsilon=8 / 255),
        DeepFool(),
    ),
    "n": (10_000, 10_000, 1_000, 1_000),
    "deviations": (
        "49,000 training images, since 1,000 are held out: as many epochs, a fiftieth fewer steps",
        "label smoothing of 0.1, which the authors' checkpoints do not tell",
    ),
}

PHASES = {
    "first": {"epochs": 50},
    "second": {
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier,
            attack=PGD(epsilon=8 / 255, steps=7, step_size=2 / 255, labels="predicted"),
            clean_weight=0.5,
        ),
        "epochs": 200,
        "deviations": (
            *COMMON["deviations"],
            "the random start is uniform in the ball, not in ten times the ball and cut to it",
        ),
    },
}

# Phase, weight decay, and what the released checkpoint has: clean, PGD-20 and FGSM with true labels.
NETWORKS = {
    "natural": ("first", 0.0, None),
    "natural_l2": ("first", 1e-3, None),
    "pgd": ("second", 0.0, (0.6625, 0.124, 0.201)),
    "l2": ("second", 1e-3, (0.6914, 0.196, 0.267)),
}
STARTS = {"pgd": "galloway_cnn.natural_cifar10", "l2": "galloway_cnn.natural_l2_cifar10"}

MODELS = [{"defense": defense} for defense in NETWORKS]


def get_recipe(defense: Literal[tuple(NETWORKS)] = "l2") -> Recipe:
    phase, weight_decay, accuracies = NETWORKS[defense]
    settings = ("clean", "PGD-20, true labels", "FGSM, true labels")
    return Recipe(
        name=f"galloway_cnn.{defense}_cifar10",
        classifier=lambda: architectures.galloway_cnn(weight_decay=weight_decay),
        start=STARTS.get(defense),
        reported=tuple(
            Reported(source=SOURCE, setting=setting, accuracy=accuracy)
            for setting, accuracy in zip(settings, accuracies or (), strict=False)
        ),
        **(COMMON | PHASES[phase]),
    )
