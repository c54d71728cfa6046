"""A narrow PreActResNet-18 on CIFAR-10, trained with the mixed minibatches of Kurakin et al. (arXiv:1611.01236), whose paper trains Inception v3 on ImageNet.

    robust-zoo train preact_resnet_w8.step_ll_cifar10 --output checkpoints/preact_resnet_w8.step_ll_cifar10

natural, fgsm and step_ll; and of step_ll variants: k4 and k24, how many of 32 images are adversarial (else 16), even,
with lambda 1 (else 0.3), and the activations relu6, elu and decay (ReluDecay of 0.01).
"""

import functools
from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.architectures import ReluDecay
from robust_zoo.attacks import FGSM, PGD, AutoAttack, BasicIterative
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import AdversarialTraining, with_weight_decay
from robust_zoo.recipe import Recipe

EPSILON = 8 / 255
STEP_LL = FGSM(epsilon=EPSILON, labels="least_likely", targeted=True)

# Share of adversarial images, and lambda, their weight.
MIXTURES = {"step_ll_k4": (1 / 8, 0.3), "step_ll_k24": (3 / 4, 0.3), "step_ll_even": (1 / 2, 1.0)}
ACTIVATIONS = {
    "step_ll_relu6": "relu6",
    "step_ll_elu": "elu",
    "step_ll_decay": ReluDecay(0.01),
}
DEFENSES = ("natural", "fgsm", "step_ll", *MIXTURES, *ACTIVATIONS)

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(defense: Literal[DEFENSES] = "step_ll", width: int = 8, epochs: int = 15) -> Recipe:
    """Args: defense; filters of the first stage; epochs."""
    fraction, weight = MIXTURES.get(defense, (1 / 2, 0.3))

    def classifier():
        activation = ACTIVATIONS.get(defense, "relu")
        made = architectures.preact_resnet(width=width, activation=activation)
        named = keras.Model(made.inputs[0], made.outputs[0], name="preact_resnet_w8")
        return with_weight_decay(named, l2=5e-4)

    def mixed(classifier, total_steps):
        return AdversarialTraining(
            classifier,
            attack=FGSM(epsilon=EPSILON) if defense == "fgsm" else STEP_LL,
            fraction=fraction,
            relative_weight=weight,
            random_epsilon=True,
            delay_steps=total_steps // 15,
        )

    return Recipe(
        name=f"preact_resnet_w8.{defense}_cifar10",
        dataset="cifar10",
        classifier=classifier,
        defense=None if defense == "natural" else mixed,
        paper="arXiv:1611.01236",
        optimizer=lambda total_steps: keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(2e-3, total_steps)
        ),
        augment=functools.partial(flip_and_crop, pad=4, border="reflect"),
        epochs=epochs,
        batch_size=64,
        attacks=(
            STEP_LL,
            FGSM(epsilon=EPSILON),
            FGSM(epsilon=EPSILON, labels="predicted"),
            BasicIterative(epsilon=EPSILON),
            PGD(epsilon=EPSILON, steps=20, step_size=2 / 255),
            AutoAttack(epsilon=EPSILON),
        ),
        n=(10_000, 10_000, 10_000, 1_000, 1_000, 1_000),
        deviations=(
            f"PreActResNet-18 with {width} filters on CIFAR-10, not Inception v3 on ImageNet",
            f"Adam with cosine decay from 2e-3 for {epochs} epochs in batches of 64, not RMSProp at a falling rate for "
            "150,000 steps of 32 images on each of 50 devices; no label smoothing, no dropout",
            "epsilon at most 8/255, not 16/255",
            "49,000 training images, since 1,000 are held out",
        ),
    )
