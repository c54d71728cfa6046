"""ConvPool-CNN on CIFAR-10, against a perturbation generator network (PGN, 2020).

    robust-zoo train allconv.pgn_cifar10 --output checkpoints/allconv.pgn_cifar10

Days on two cores; meant for a GPU.
"""

import functools

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, CarliniWagner, DeepFool, MomentumIterative
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import PGN
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

SOURCE = "PGN 2020, Table 3"

MODELS = [{}]


def get_recipe() -> Recipe:
    return Recipe(
        name="allconv.pgn_cifar10",
        dataset="cifar10",
        classifier=lambda: architectures.allconv(),
        defense=lambda classifier, total_steps: PGN(classifier, distortion_weight=50.0),
        paper="Perturbation Generator Networks, 2020",
        optimizer=lambda total_steps: keras.optimizers.Adam(5e-4, use_ema=True, ema_momentum=0.998),
        augment=functools.partial(flip_and_crop, pad=4),
        epochs=200,
        batch_size=128,
        dtype_policy="mixed_bfloat16",
        attacks=(
            FGSM(epsilon=0.5, norm="l2"),
            MomentumIterative(epsilon=0.5, norm="l2", steps=100, step_size=0.06),
            PGD(epsilon=0.5, norm="l2", steps=40, step_size=0.05),
            AutoAttack(epsilon=0.5, norm="l2"),
            DeepFool(steps=100),
            CarliniWagner(steps=100, binary_search_steps=5, step_size=5e-3, initial_constant=1e-2),
        ),
        n=(10_000, 1_000, 1_000, 1_000, 1_000, 1_000),
        reported=(
            Reported(source=SOURCE, setting="clean", accuracy=0.9186),
            Reported(source=SOURCE, setting="FGM-L2", accuracy=0.653),
            Reported(source=SOURCE, setting="MIM-L2", accuracy=0.596),
        ),
        deviations=(
            "49,000 training images, since 1,000 are held out",
            "images are shifted over black, not over their reflection",
            "trained in mixed_bfloat16, measured in float32",
        ),
    )
