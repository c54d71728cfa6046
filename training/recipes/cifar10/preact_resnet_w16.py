"""A narrow PreActResNet-18 on CIFAR-10, trained with Gaussian noise for randomized smoothing (Cohen et al.,
arXiv:1902.02918).

    robust-zoo train preact_resnet_w16.gaussian_cifar10 --output checkpoints/preact_resnet_w16.gaussian_cifar10

An hour of two cores, and as long to certify 500 images.
"""

import functools
from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import PGD
from robust_zoo.certification import Smoothing
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import GaussianAugmentation, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

SIGMA = 0.25
RADII = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
SOURCE = "Cohen et al. 2019, ResNet-110, sigma 0.25, n 100,000"

MODELS = [{"defense": "gaussian"}]


def get_recipe(defense: Literal["gaussian"] = "gaussian", epochs: int = 20) -> Recipe:
    """Args: defense; epochs."""

    def classifier():
        made = architectures.preact_resnet(width=16, activation="silu")
        named = keras.Model(made.inputs[0], made.outputs[0], name="preact_resnet_w16")
        return with_weight_decay(named, l2=5e-4)

    def optimizer(total_steps):
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, total_steps * 9 // 10, warmup_target=0.2, warmup_steps=total_steps // 10
        )
        return keras.optimizers.SGD(rate, momentum=0.9, use_ema=True, ema_momentum=0.998)

    return Recipe(
        name=f"preact_resnet_w16.{defense}_cifar10",
        dataset="cifar10",
        classifier=classifier,
        defense=lambda classifier, total_steps: GaussianAugmentation(classifier, sigma=SIGMA),
        paper="arXiv:1902.02918",
        optimizer=optimizer,
        augment=functools.partial(flip_and_crop, pad=4, border="reflect"),
        epochs=epochs,
        dtype_policy="mixed_bfloat16",
        attacks=(PGD(epsilon=0.25, norm="l2", steps=20, step_size=0.05),),
        n=1_000,
        smoothing=Smoothing(SIGMA, n=1_000, images=500, radii=RADII),
        reported=tuple(
            Reported(source=SOURCE, setting=f"certified at l2 {radius}", accuracy=accuracy)
            for radius, accuracy in ((0.0, 0.75), (0.25, 0.60), (0.5, 0.43))
        ),
        deviations=(
            "PreActResNet-18 with SiLU and a quarter of the filters (0.7 million parameters), not ResNet-110",
            f"{epochs} epochs with a one-cycle rate of 0.2 and averaged weights (0.998), not 90",
            "49,000 training images, since 1,000 are held out",
            "1,000 votes an image, not 100,000, on 500 test images drawn with a seed",
            "trained in mixed_bfloat16, measured in float32",
        ),
    )
