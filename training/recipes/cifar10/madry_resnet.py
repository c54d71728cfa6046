"""Madry's narrow ResNet on CIFAR-10: natural, FGSM and PGD training (arXiv:1706.06083, section 5, Table 2).

    robust-zoo train madry_resnet.pgd_cifar10 --output checkpoints/madry_resnet.pgd_cifar10

pgd_copy is pgd with another seed, a black box's source. Hours on two cores; `--set epochs=210` has as many
steps as the paper, for a GPU.
"""

import functools
from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import AdversarialTraining, with_weight_decay
from robust_zoo.recipe import Recipe

ATTACKS = {
    "fgsm": FGSM(epsilon=8 / 255),
    "pgd": PGD(epsilon=8 / 255, steps=7, step_size=2 / 255),
}
DEFENSES = ("natural", "fgsm", "pgd", "pgd_copy")

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(defense: Literal[DEFENSES] = "pgd", epochs: int = 30) -> Recipe:
    """Args: defense; epochs."""
    attack = ATTACKS.get(defense.removesuffix("_copy"))
    shorter = () if epochs == 210 else (f"{epochs} epochs, not 210",)
    through = (
        () if attack is None else ("the attack sees moving statistics, not those of the batch",)
    )
    return Recipe(
        name=f"madry_resnet.{defense}_cifar10",
        dataset="cifar10",
        classifier=lambda: with_weight_decay(architectures.madry_resnet(), l2=2e-4),
        defense=attack
        and (lambda classifier, total_steps: AdversarialTraining(classifier, attack=attack)),
        paper="arXiv:1706.06083",
        optimizer=lambda total_steps: keras.optimizers.SGD(
            keras.optimizers.schedules.PiecewiseConstantDecay(
                [total_steps // 2, total_steps * 3 // 4], [0.1, 0.01, 0.001]
            ),
            momentum=0.9,
        ),
        augment=functools.partial(flip_and_crop, pad=2),
        epochs=epochs,
        batch_size=128,
        seed=int(defense == "pgd_copy"),
        attacks=(
            FGSM(epsilon=8 / 255),
            PGD(epsilon=8 / 255, steps=20, step_size=2 / 255),
            AutoAttack(epsilon=8 / 255),
            DeepFool(),
        ),
        n=(10_000, 10_000, 1_000, 1_000),
        deviations=(
            *shorter,
            *through,
            "49,000 training images, since 1,000 are held out",
        ),
    )
