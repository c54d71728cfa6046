"""Inception v3 on ImageNet, with the mixed minibatches of Kurakin et al. (arXiv:1611.01236).

    robust-zoo train inception_v3.step_ll_imagenet --output checkpoints/inception_v3.step_ll_imagenet --hosts

Needs the TFDS dataset imagenet2012. A batch is 32 images on each of the paper's 50 devices; 150,000 steps are 187 passes
over the 1.28 million images, 1.2e19 floating-point operations: about two weeks of one modern GPU for each of the two.
"""

from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, BasicIterative
from robust_zoo.datasets import RandomResizedCrop
from robust_zoo.defenses import AdversarialTraining, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

EPSILON = 16 / 255
STEP_LL = FGSM(epsilon=EPSILON, labels="least_likely", targeted=True)
STEPS = 150_000
PASS = 801  # steps of 1,600 images
DEFENSES = ("natural", "step_ll")

MODELS = [{"defense": defense} for defense in DEFENSES]

# Top 1, clean and under the one-step attack at 16/255 (Table 1).
REPORTED = {"natural": (0.784, 0.295), "step_ll": (0.776, 0.739)}


def get_recipe(defense: Literal[DEFENSES] = "step_ll", devices: int = 50) -> Recipe:
    """Args: defense; devices, each with 32 images of a batch."""

    def classifier():
        made = architectures.inception_v3(num_classes=1000, dropout=0.2)
        return with_weight_decay(made, l2=4e-5)

    def mixed(classifier, total_steps):
        return AdversarialTraining(
            classifier,
            attack=STEP_LL,
            fraction=1 / 2,
            relative_weight=0.3,
            random_epsilon=True,
            delay_steps=10_000,
        )

    def optimizer(total_steps):
        rate = keras.optimizers.schedules.ExponentialDecay(0.045, 2 * PASS, 0.94, staircase=True)
        return keras.optimizers.RMSprop(
            rate, rho=0.9, epsilon=1.0, use_ema=True, ema_momentum=0.9999
        )

    source = "Kurakin et al. 2017, Table 1, top 1"
    clean, attacked = REPORTED[defense]
    return Recipe(
        name=f"inception_v3.{defense}_imagenet",
        dataset="imagenet2012",
        classifier=classifier,
        defense=None if defense == "natural" else mixed,
        paper="arXiv:1611.01236",
        optimizer=optimizer,
        label_smoothing=0.1,
        augment=RandomResizedCrop(),
        epochs=STEPS // 500,
        steps_per_epoch=500,
        central_crop=0.875,
        batch_size=32 * devices,
        attacks=(
            STEP_LL,
            FGSM(epsilon=EPSILON),
            BasicIterative(epsilon=EPSILON),
            PGD(epsilon=EPSILON, steps=20, step_size=2 / 255),
            AutoAttack(epsilon=EPSILON),
        ),
        n=(50_000, 50_000, 1_000, 1_000, 1_000),
        reported=(
            Reported(source=source, setting="clean", accuracy=clean),
            Reported(source=source, setting="step l.l.", accuracy=attacked),
        ),
        deviations=(
            "no auxiliary logits; colours stay as they are",
            "decay of RMSProp, its epsilon, weight decay and averaging as in Szegedy et al. 2016 and its code, since the paper "
            "names none of them",
            "gradients are not clipped, as there at a norm of 2: Keras clips each replica's by itself",
        ),
    )
