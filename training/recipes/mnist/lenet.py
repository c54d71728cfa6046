"""LeNet on MNIST: DeepDefense (Yan et al., arXiv:1803.00404, Table 1) and what it is compared with, and the mixed minibatches of Kurakin et al. (arXiv:1611.01236), whose paper trains Inception v3 on ImageNet.

    robust-zoo train lenet.deepdefense_mnist --output checkpoints/lenet.deepdefense_mnist

deepdefense, deepfool and parseval are fine-tuned from lenet.natural_mnist.
"""

from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, BasicIterative, DeepFool
from robust_zoo.defenses import (
    AdversarialTraining,
    DeepDefense,
    FixedSetTraining,
    ParsevalTraining,
    with_weight_decay,
)
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

COMMON = {
    "dataset": "mnist",
    "classifier": lambda: architectures.lenet(),
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
    "classifier": lambda: with_weight_decay(architectures.lenet(), l2=5e-4),
    "start": "lenet.natural_mnist",
    "optimizer": lambda total_steps: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(5e-3, total_steps), momentum=0.9
    ),
    "epochs": 3,
    "deviations": (
        "55,000 training images, since 5,000 are held out; biases do not decay",
        "images in [0, 1], not 0..255 less the mean image, and so relative sizes without the mean image too",
        "3 epochs with cosine decay from a learning rate of 5e-3, not 5 at 5e-4 and 2.5e-4",
    ),
}


def mixed(**attack):
    """What Kurakin et al. train with: half of a minibatch adversarial, with a random epsilon."""
    return {
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier,
            attack=FGSM(epsilon=0.3, **attack),
            fraction=0.5,
            relative_weight=0.3,
            random_epsilon=True,
            delay_steps=total_steps // 15,
        ),
        "paper": "arXiv:1611.01236",
        "optimizer": lambda total_steps: keras.optimizers.Adam(1e-3),
        "epochs": 20,
        "batch_size": 32,
        "attacks": (
            FGSM(epsilon=0.3, labels="least_likely", targeted=True),
            FGSM(epsilon=0.3),
            FGSM(epsilon=0.3, labels="predicted"),
            BasicIterative(epsilon=0.3),
            PGD(epsilon=0.3, steps=40, step_size=0.01),
            AutoAttack(epsilon=0.3),
        ),
        "n": (10_000, 10_000, 10_000, 1_000, 1_000, 1_000),
        "deviations": (
            "LeNet on MNIST, not Inception v3 on ImageNet: no batch normalisation",
            "Adam at a constant 1e-3 for 20 epochs in batches of 32, not RMSProp at a falling rate for 150,000 steps "
            "of 32 images on each of 50 devices; no label smoothing, no dropout",
            "epsilon at most 0.3, not 16/255",
        ),
    }


DEFENSES = {
    "natural": {
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
    "fgsm": mixed(),
    "step_ll": mixed(labels="least_likely", targeted=True),
}

# Clean accuracy in Yan et al.'s Table 1.
REPORTED = {"natural": 0.9902, "deepdefense": 0.9934, "deepfool": 0.9918, "parseval": 0.9910}

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(defense: Literal[tuple(DEFENSES)] = "deepdefense") -> Recipe:
    reported = ()
    if defense in REPORTED:
        source = {"source": "Yan et al. 2018, Table 1", "setting": "clean"}
        reported = (Reported(**source, accuracy=REPORTED[defense]),)
    return Recipe(name=f"lenet.{defense}_mnist", reported=reported, **(COMMON | DEFENSES[defense]))
