"""PreActResNet-18 of half the usual width on CIFAR-10, one-step training with noise (N-FGSM, arXiv:2202.01181).

    robust-zoo train preact_resnet.nfgsm_cifar10 --output checkpoints/preact_resnet.nfgsm_cifar10

Four to twelve hours on two cores, by their kind; `--max-minutes` and `--resume` take it in parts.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import AdversarialTraining, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="preact_resnet.nfgsm_cifar10",
    dataset="cifar10",
    classifier=lambda: with_weight_decay(
        architectures.preact_resnet(width=32, activation="silu"), l2=5e-4
    ),
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier, attack=FGSM(epsilon=8 / 255), noise=2.0
    ),
    paper="arXiv:2202.01181",
    optimizer=lambda total_steps: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(
            0.0, total_steps * 9 // 10, warmup_target=0.1, warmup_steps=total_steps // 10
        ),
        momentum=0.9,
        use_ema=True,
        ema_momentum=0.998,
    ),
    label_smoothing=0.4,
    augment=lambda images, rng: flip_and_crop(images, rng, pad=4, border="reflect"),
    epochs=30,
    batch_size=128,
    validation_attack=PGD(epsilon=8 / 255, steps=10, step_size=2 / 255),
    attacks=(
        FGSM(epsilon=8 / 255),
        PGD(epsilon=8 / 255, steps=20, step_size=2 / 255),
        AutoAttack(epsilon=8 / 255),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    reported=(
        Reported(source="FastAT benchmark, ResNet-18, 100 epochs", setting="clean", accuracy=0.786),
        Reported(
            source="FastAT benchmark, ResNet-18, 100 epochs", setting="AutoAttack", accuracy=0.478
        ),
    ),
    deviations=(
        "half the filters (2.8 million parameters) and SiLU, not ReLU",
        "30 epochs with a one-cycle rate of 0.1, label smoothing 0.4 and averaged weights (0.998)",
        "49,000 training images, since 1,000 are held out",
    ),
)
