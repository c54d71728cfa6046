"""Madry's narrow ResNet on CIFAR-10, adversarial training with PGD (arXiv:1706.06083).

    robust-zoo train madry_resnet.pgd_cifar10 --output checkpoints/madry_resnet.pgd_cifar10

Two days on two cores; meant for a GPU. The paper reports 79.4% clean and 43.7% under PGD for this width.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="madry_resnet.pgd_cifar10",
    dataset="cifar10",
    classifier=lambda: architectures.madry_resnet(),
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
    augment=lambda images, rng: flip_and_crop(images, rng, pad=2),
    epochs=228,
    batch_size=128,
    attacks=(
        FGSM(epsilon=8 / 255),
        PGD(epsilon=8 / 255, steps=20, step_size=2 / 255),
        AutoAttack(epsilon=8 / 255),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    reported=(
        Reported(source="Madry et al. 2017, Figure 4 (arXiv)", setting="clean", accuracy=0.794),
        Reported(source="Madry et al. 2017, Figure 4 (arXiv)", setting="PGD", accuracy=0.437),
    ),
    deviations=("the attack sees moving statistics, not those of the batch",),
)
