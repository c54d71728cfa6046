"""PreActResNet-18 on CIFAR-10 with smoothed labels and averaged weights.

    KERAS_BACKEND=jax robust-zoo train preact_resnet.pgd_cifar10 --output checkpoints/preact_resnet.pgd_cifar10

- pgd is adversarial training with PGD (Madry et al., arXiv:1706.06083): minutes on one GPU of 2023, days on a CPU.
- pgd_l2 is the same in L2, at a quarter of the width: hours on two cores.
- nfgsm is one-step training with noise (N-FGSM, de Jorge et al., arXiv:2202.01181) at half the width: four to twelve
  hours on two cores, by their kind; `--max-minutes` and `--resume` take it in parts.
"""

import functools
from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import AdversarialTraining, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported


def one_cycle(rate: float):
    """SGD whose learning rate rises to `rate` in the first tenth of training and falls to 0."""
    return lambda total_steps: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(
            0.0, total_steps * 9 // 10, warmup_target=rate, warmup_steps=total_steps // 10
        ),
        momentum=0.9,
        use_ema=True,
        ema_momentum=0.998,
    )


def benchmark(network: str, clean: float, autoattack: float) -> tuple[Reported, ...]:
    source = f"FastAT benchmark, {network}, 100 epochs"
    return (
        Reported(source=source, setting="clean", accuracy=clean),
        Reported(source=source, setting="AutoAttack", accuracy=autoattack),
    )


COMMON = {
    "dataset": "cifar10",
    "label_smoothing": 0.4,
    "augment": functools.partial(flip_and_crop, pad=4, border="reflect"),
    "validation_attack": PGD(epsilon=8 / 255, steps=10, step_size=2 / 255),
    "attacks": (
        FGSM(epsilon=8 / 255),
        PGD(epsilon=8 / 255, steps=20, step_size=2 / 255),
        AutoAttack(epsilon=8 / 255),
        DeepFool(),
    ),
}

DEFENSES = {
    "nfgsm": {
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=FGSM(epsilon=8 / 255), noise=2.0
        ),
        "paper": "arXiv:2202.01181",
        "optimizer": one_cycle(0.1),
        "epochs": 30,
        "batch_size": 128,
        "n": (10_000, 10_000, 1_000, 1_000),
        "reported": benchmark("ResNet-18", 0.786, 0.478),
        "deviations": (
            "half the filters (2.8 million parameters) and SiLU, not ReLU",
            "30 epochs with a one-cycle rate of 0.1, label smoothing 0.4 and averaged weights (0.998)",
            "49,000 training images, since 1,000 are held out",
        ),
    },
    "pgd": {
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=PGD(epsilon=8 / 255, steps=5, step_size=2.5 / 255)
        ),
        "paper": "arXiv:1706.06083",
        "optimizer": one_cycle(0.2),
        "epochs": 36,
        "batch_size": 256,
        "dtype_policy": "mixed_bfloat16",
        "n": (10_000, 2_000, 1_000, 1_000),
        "reported": benchmark("ResNet-18, PGD-10 and averaged weights", 0.824, 0.505),
        "deviations": (
            "PreActResNet-18 with SiLU, not the paper's ResNet",
            "PGD of 5 steps of 2.5/255, not 7 of 2/255",
            "36 epochs with a one-cycle rate of 0.2, label smoothing 0.4 and averaged weights (0.998)",
            "49,000 training images, since 1,000 are held out",
            "trained in mixed_bfloat16, measured in float32",
            "AutoAttack ran with JAX on the GPU, the other attacks with TensorFlow on a CPU, where its images were "
            "seen to fool the model",
        ),
    },
    "pgd_l2": {
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=PGD(epsilon=0.5, norm="l2", steps=5, step_size=0.2)
        ),
        "paper": "arXiv:1706.06083",
        "optimizer": one_cycle(0.2),
        "epochs": 30,
        "batch_size": 128,
        "dtype_policy": "mixed_bfloat16",
        "label_smoothing": 0.2,
        "validation_attack": PGD(epsilon=0.5, norm="l2", steps=10, step_size=0.1),
        "attacks": (
            FGSM(epsilon=0.5, norm="l2"),
            PGD(epsilon=0.5, norm="l2", steps=20, step_size=0.1),
            AutoAttack(epsilon=0.5, norm="l2"),
            DeepFool(),
        ),
        "n": (10_000, 2_000, 1_000, 1_000),
        "reported": (
            Reported(
                source="Rice et al. 2020, RobustBench, width 64", setting="clean", accuracy=0.8867
            ),
            Reported(
                source="Rice et al. 2020, RobustBench, width 64",
                setting="AutoAttack",
                accuracy=0.6768,
            ),
        ),
        "deviations": (
            "PreActResNet-18 with SiLU and a quarter of the filters (0.7 million parameters)",
            "PGD in L2, epsilon 0.5: 5 steps of 0.2",
            "30 epochs with a one-cycle rate of 0.2, label smoothing 0.2 and averaged weights (0.998)",
            "49,000 training images, since 1,000 are held out",
            "trained in mixed_bfloat16, measured in float32",
        ),
    },
}
WIDTHS = {"nfgsm": 32, "pgd": 64, "pgd_l2": 16}

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(defense: Literal[tuple(DEFENSES)] = "pgd", width: int | None = None) -> Recipe:
    """Args: defense, and width, filters of the first stage: 64 in the published network."""
    filters = WIDTHS[defense] if width is None else width
    return Recipe(
        name=f"preact_resnet.{defense}_cifar10",
        classifier=lambda: with_weight_decay(
            architectures.preact_resnet(width=filters, activation="silu"), l2=5e-4
        ),
        **(COMMON | DEFENSES[defense]),
    )
