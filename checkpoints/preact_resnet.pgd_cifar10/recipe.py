"""PreActResNet-18 on CIFAR-10, adversarial training with PGD (arXiv:1706.06083), smoothed labels and averaged weights.

    KERAS_BACKEND=jax robust-zoo train preact_resnet.pgd_cifar10 --output checkpoints/preact_resnet.pgd_cifar10

Minutes on one GPU of 2023, days on a CPU.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import AdversarialTraining, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="preact_resnet.pgd_cifar10",
    dataset="cifar10",
    classifier=lambda: with_weight_decay(
        architectures.preact_resnet(width=64, activation="silu"), l2=5e-4
    ),
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier, attack=PGD(epsilon=8 / 255, steps=5, step_size=2.5 / 255)
    ),
    paper="arXiv:1706.06083",
    optimizer=lambda total_steps: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(
            0.0, total_steps * 9 // 10, warmup_target=0.2, warmup_steps=total_steps // 10
        ),
        momentum=0.9,
        use_ema=True,
        ema_momentum=0.998,
    ),
    label_smoothing=0.4,
    augment=lambda images, rng: flip_and_crop(images, rng, pad=4, border="reflect"),
    epochs=36,
    batch_size=256,
    dtype_policy="mixed_bfloat16",
    validation_attack=PGD(epsilon=8 / 255, steps=10, step_size=2 / 255),
    attacks=(
        FGSM(epsilon=8 / 255),
        PGD(epsilon=8 / 255, steps=20, step_size=2 / 255),
        AutoAttack(epsilon=8 / 255),
        DeepFool(),
    ),
    n=(10_000, 2_000, 1_000, 1_000),
    reported=(
        Reported(
            source="FastAT benchmark, ResNet-18, PGD-10 and averaged weights, 100 epochs",
            setting="clean",
            accuracy=0.824,
        ),
        Reported(
            source="FastAT benchmark, ResNet-18, PGD-10 and averaged weights, 100 epochs",
            setting="AutoAttack",
            accuracy=0.505,
        ),
    ),
    deviations=(
        "PreActResNet-18 with SiLU, not the paper's ResNet",
        "PGD of 5 steps of 2.5/255, not 7 of 2/255",
        "36 epochs with a one-cycle rate of 0.2, label smoothing 0.4 and averaged weights (0.998)",
        "49,000 training images, since 1,000 are held out",
        "trained in mixed_bfloat16, measured in float32",
        "AutoAttack ran with JAX on the GPU, the other attacks with TensorFlow on a CPU, where its images were seen to "
        "fool the model",
    ),
)
