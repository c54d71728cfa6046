"""MLP on MNIST: DeepDefense (Yan et al., arXiv:1803.00404, Table 1) and what it is compared with.

    robust-zoo train mlp.deepdefense_mnist --output checkpoints/mlp.deepdefense_mnist

All but the natural one are fine-tuned from mlp.natural_mnist.
"""

from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import DeepDefense, FixedSetTraining, ParsevalTraining, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

COMMON = {
    "dataset": "mnist",
    "batch_size": 100,
    "attacks": (
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.1),
        DeepFool(),
    ),
    "n": (10_000, 10_000, 1_000, 1_000),
}

FINE_TUNED = {
    "classifier": lambda: with_weight_decay(architectures.mlp(), l2=5e-4),
    "start": "mlp.natural_mnist",
    "optimizer": lambda total_steps: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(5e-3, total_steps), momentum=0.9
    ),
    "epochs": 10,
    "deviations": (
        "55,000 training images, since 5,000 are held out; biases do not decay",
        "images in [0, 1], not 0..255 less the mean image, and so relative sizes without the mean image too",
        "10 epochs with cosine decay from a learning rate of 5e-3, not 5 at 5e-4 and 2.5e-4",
    ),
}

DEFENSES = {
    "natural": {
        "classifier": lambda: architectures.mlp(),
        "optimizer": lambda total_steps: keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(1e-3, total_steps)
        ),
        "epochs": 20,
        "deviations": (
            "55,000 training images, since 5,000 are held out",
            "images in [0, 1], not 0..255 less the mean image; Glorot-uniform initial kernels",
            "Adam with cosine decay, not SGD at 1e-3",
        ),
    },
    "deepdefense": {
        **FINE_TUNED,
        "defense": lambda classifier, total_steps: DeepDefense(classifier, strength=15, c=25, d=5),
        "paper": "arXiv:1803.00404",
    },
    "deepfool": {  # Moosavi-Dezfooli et al.: one fixed set of DeepFool examples
        **FINE_TUNED,
        "defense": lambda classifier, total_steps: FixedSetTraining(classifier, made_by=DeepFool()),
        "paper": "arXiv:1511.04599",
        "deviations": (
            *FINE_TUNED["deviations"],
            "the set is made by DeepFool with 50 steps that stay in [0, 1], not 5 that may leave it",
        ),
    },
    "parseval": {  # Cisse et al.
        **FINE_TUNED,
        "defense": lambda classifier, total_steps: ParsevalTraining(classifier, beta=1e-4),
        "paper": "arXiv:1704.08847",
    },
}

# Clean accuracy in the paper's Table 1.
REPORTED = {"natural": 0.9831, "deepdefense": 0.9865, "deepfool": 0.9849, "parseval": 0.9832}

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(defense: Literal[tuple(DEFENSES)] = "deepdefense") -> Recipe:
    source = {"source": "Yan et al. 2018, Table 1", "setting": "clean"}
    return Recipe(
        name=f"mlp.{defense}_mnist",
        reported=(Reported(**source, accuracy=REPORTED[defense]),),
        **(COMMON | DEFENSES[defense]),
    )
