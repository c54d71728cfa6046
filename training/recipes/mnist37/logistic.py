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
    """The mean image of 3 less that of 7 as initial weights."""
    train = load_dataset(DATASET, "train")
    return architectures.logistic(expert=(train.images, train.labels))


def reported(source: str, clean: float | None, fgsm: float) -> tuple[Reported, ...]:
    found = {"clean": clean, "FGSM": fgsm}
    return tuple(
        Reported(source=source, setting=setting, accuracy=accuracy)
        for setting, accuracy in found.items()
        if accuracy is not None
    )


def l1(factor: float):
    """Logistic regression with that penalty on the mean size of its weights."""
    return with_weight_decay(architectures.logistic(), l1=factor, l1_reduction="mean")


RELEASED = "Galloway et al. 2018 (released code)"


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
    "l2": {
        "classifier": lambda: with_weight_decay(architectures.logistic(), l2=3.25),
        "reported": reported(RELEASED, 0.9603, 0.3572),
        "deviations": ALL_IMAGES,
    },
    "l1": {
        "classifier": lambda: l1(3.25),
        "reported": reported(RELEASED, 0.9642, 0.5805),
        "deviations": ALL_IMAGES,
    },
    "l1_15": {"classifier": lambda: l1(15.0), "deviations": ALL_IMAGES},
    "l1_32": {
        "classifier": lambda: l1(32.0),
        "reported": reported("Galloway et al. 2018", None, 0.75),
        "deviations": ALL_IMAGES,
    },
    "expert": {
        "classifier": expert,
        # The initial weights are the model.
        "optimizer": lambda total_steps: keras.optimizers.SGD(0.0),
        "epochs": 1,
        "reported": reported(RELEASED, 0.9485, 0.396),
    },
    "expert_l2": {
        "classifier": lambda: with_weight_decay(expert(), l2=0.05),
        "epochs": 114,
        "reported": reported(RELEASED, 0.9603, 0.4087),
        "deviations": ALL_IMAGES,
    },
    "binary": {
        "classifier": lambda: architectures.logistic(binary=True),
        "reported": reported(RELEASED, 0.9696, 0.0),
        "deviations": ALL_IMAGES,
    },
    "fast_gradient": {
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=FastGradient(epsilon=0.25, scale=100.0)
        ),
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
