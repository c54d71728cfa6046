"""ConvNet on whitened CIFAR-10: DeepDefense (Yan et al., arXiv:1803.00404, Table 1) and what it is compared with.

    robust-zoo train convnet.deepdefense_cifar10 --output checkpoints/convnet.deepdefense_cifar10

deepdefense, deepfool and parseval are fine-tuned from convnet.natural_cifar10; where the zoo does not have it, train it
and give the directory: `--set start=DIR`. Images are whitened inside the models, as the authors' were, and DeepDefense's
perturbations live behind that.
"""

import functools
from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import (
    DeepDefense,
    FixedSetTraining,
    ParsevalTraining,
    with_weight_decay,
)
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

COMPONENTS = 1120  # of the whitening: all that are above its floor

COMMON = {
    "dataset": "cifar10",
    "augment": functools.partial(flip_and_crop, pad=0),
    "batch_size": 100,
    "attacks": (
        FGSM(epsilon=1 / 255),
        PGD(epsilon=1 / 255, steps=20, step_size=0.25 / 255),
        AutoAttack(epsilon=1 / 255),
        DeepFool(),
    ),
    "n": (10_000, 10_000, 1_000, 1_000),
}

FINE_TUNED = {
    "classifier": lambda: with_weight_decay(architectures.convnet(whitening=COMPONENTS), l2=5e-4),
    "start": "convnet.natural_cifar10",
    "optimizer": lambda total_steps: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(5e-3, total_steps), momentum=0.9
    ),
    "epochs": 10,
    "deviations": (
        "49,000 training images, since 1,000 are held out; biases do not decay",
        "whitened images in units of [0, 1], not of 0..255",
        "10 epochs with cosine decay from a learning rate of 5e-3, not 50 at 5e-4 and 2.5e-4",
    ),
}

DEFENSES = {
    "natural": {
        "classifier": lambda: with_weight_decay(
            architectures.convnet(whitening=COMPONENTS), l2=1e-4
        ),
        "optimizer": lambda total_steps: keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(1e-3, total_steps)
        ),
        "epochs": 30,
        "deviations": (
            "49,000 training images, since 1,000 are held out; biases do not decay",
            "whitened images in units of [0, 1], not of 0..255; Glorot-uniform initial kernels",
            "Adam with cosine decay from 1e-3 for 30 epochs, not SGD for 45",
        ),
    },
    "deepdefense": {
        **FINE_TUNED,
        "defense": lambda classifier, total_steps: DeepDefense(
            classifier, strength=15, c=25, d=5, behind="whitening"
        ),
        "paper": "arXiv:1803.00404",
    },
    "deepfool": {  # Moosavi-Dezfooli et al.: one fixed set of DeepFool examples
        **FINE_TUNED,
        "defense": lambda classifier, total_steps: FixedSetTraining(classifier, made_by=DeepFool()),
        "paper": "arXiv:1511.04599",
        "deviations": (
            *FINE_TUNED["deviations"],
            "the set is made of pixels, by DeepFool with 50 steps that stay in [0, 1], not of whitened images with 5",
        ),
    },
    "parseval": {  # Cisse et al.
        **FINE_TUNED,
        "defense": lambda classifier, total_steps: ParsevalTraining(classifier, beta=3e-4),
        "paper": "arXiv:1704.08847",
    },
}

# Clean accuracy in Yan et al.'s Table 1.
REPORTED = {"natural": 0.7974, "deepdefense": 0.8170, "deepfool": 0.8065, "parseval": 0.8048}

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(defense: Literal[tuple(DEFENSES)] = "deepdefense") -> Recipe:
    source = {"source": "Yan et al. 2018, Table 1", "setting": "clean"}
    return Recipe(
        name=f"convnet.{defense}_cifar10",
        reported=(Reported(**source, accuracy=REPORTED[defense]),),
        **(COMMON | DEFENSES[defense]),
    )
