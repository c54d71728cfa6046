"""Logistic regression on MNIST 3 against 7 (Galloway et al., arXiv:1804.03308): weight decay against adversarial training.

robust-zoo train logistic.fgsm_mnist37 --output checkpoints/logistic.fgsm_mnist37
"""

from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool, FastGradient
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import AdversarialTraining, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

DATASET = "mnist:7,3"


def expert():
    """The mean image of 3 less that of 7 as initial weights, and weight decay."""
    train = load_dataset(DATASET, "train")
    model = architectures.logistic(expert=(train.images, train.labels))
    return with_weight_decay(model, l2=0.05)


def reported(source: str, clean: float, fgsm: float) -> tuple[Reported, ...]:
    return (
        Reported(source=source, setting="clean", accuracy=clean),
        Reported(source=source, setting="FGSM", accuracy=fgsm),
    )


ALL_IMAGES = (
    "batches of all training images but the 1,042 held out; an index slip in the authors' code draws them from "
    "about 214 images",
)

DEFENSES = {
    "natural": {
        "reported": reported(
            "Goodfellow et al. 2015, as cited by Galloway et al. 2018", 0.984, 0.01
        ),
        "deviations": ("the 1,042 images held out are not trained on",),
    },
    "l1": {
        "classifier": lambda: with_weight_decay(
            architectures.logistic(), l1=3.25, l1_reduction="mean"
        ),
        "reported": reported("Galloway et al. 2018 (released code)", 0.9642, 0.5805),
        "deviations": ALL_IMAGES,
    },
    "expert_l2": {
        "classifier": expert,
        "epochs": 114,
        "reported": reported("Galloway et al. 2018 (released code)", 0.9603, 0.4087),
        "deviations": ALL_IMAGES,
    },
    "fgsm": {
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=FGSM(epsilon=0.25)
        ),
        "reported": reported("Galloway et al. 2018 (released checkpoint)", 0.9647, 0.7198),
        "deviations": ALL_IMAGES,
    },
}

COMMON = {
    "dataset": DATASET,
    "classifier": lambda: architectures.logistic(),
    "paper": "arXiv:1804.03308",
    "optimizer": lambda total_steps: keras.optimizers.Adam(1e-5),
    "epochs": 569,
    "batch_size": 128,
    "attacks": (
        FGSM(epsilon=0.25),
        FastGradient(epsilon=0.25, scale=100.0),
        PGD(epsilon=0.25, steps=20, step_size=0.025),
        AutoAttack(epsilon=0.25),
        DeepFool(),
    ),
}

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(defense: Literal[tuple(DEFENSES)] = "fgsm") -> Recipe:
    return Recipe(name=f"logistic.{defense}_mnist37", **(COMMON | DEFENSES[defense]))
