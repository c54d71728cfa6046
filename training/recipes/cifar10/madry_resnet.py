"""Madry's narrow ResNet on CIFAR-10, adversarial training with PGD (arXiv:1706.06083).

    robust-zoo train madry_resnet.pgd_cifar10 --output checkpoints/madry_resnet.pgd_cifar10

Two days on two cores; meant for a GPU.
"""

import functools

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import AdversarialTraining, with_weight_decay
from robust_zoo.recipe import Recipe

MODELS = [{}]


def get_recipe() -> Recipe:
    return Recipe(
        name="madry_resnet.pgd_cifar10",
        dataset="cifar10",
        classifier=lambda: with_weight_decay(architectures.madry_resnet(), l2=2e-4),
        defense=lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=PGD(epsilon=8 / 255, steps=7, step_size=2 / 255)
        ),
        paper="arXiv:1706.06083",
        optimizer=lambda total_steps: keras.optimizers.SGD(
            keras.optimizers.schedules.PiecewiseConstantDecay(
                [total_steps // 2, total_steps * 3 // 4], [0.1, 0.01, 0.001]
            ),
            momentum=0.9,
        ),
        augment=functools.partial(flip_and_crop, pad=2),
        epochs=210,
        batch_size=128,
        attacks=(
            FGSM(epsilon=8 / 255),
            PGD(epsilon=8 / 255, steps=20, step_size=2 / 255),
            AutoAttack(epsilon=8 / 255),
            DeepFool(),
        ),
        n=(10_000, 10_000, 1_000, 1_000),
        deviations=(
            "the attack sees moving statistics, not those of the batch",
            "49,000 training images, since 1,000 are held out; as many steps as in the paper",
        ),
    )
