"""CNN-L2 of Galloway et al. on CIFAR-10, second phase: 200 adversarial epochs (arXiv:1804.03308).

    robust-zoo train galloway_cnn.l2_cifar10 --output checkpoints/galloway_cnn.l2_cifar10

Hours on two cores. Needs galloway_cnn.natural_cifar10: give its directory with --set start=DIR where the zoo
does not have it. The optimizer starts afresh, as the authors' did.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="galloway_cnn.l2_cifar10",
    dataset="cifar10",
    classifier=lambda: architectures.galloway_cnn(weight_decay=1e-3),
    start="galloway_cnn.natural_cifar10",
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier,
        attack=PGD(epsilon=8 / 255, steps=7, step_size=2 / 255, labels="predicted"),
        clean_weight=0.5,
    ),
    paper="arXiv:1804.03308",
    optimizer=lambda total_steps: keras.optimizers.Adam(1e-3),
    label_smoothing=1 / 9,
    epochs=200,
    batch_size=128,
    dtype_policy="mixed_bfloat16",
    attacks=(
        FGSM(epsilon=8 / 255),
        PGD(epsilon=8 / 255, steps=20, step_size=2 / 255),
        AutoAttack(epsilon=8 / 255),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    reported=(
        Reported(
            source="Galloway et al. 2018 (released checkpoints)", setting="clean", accuracy=0.6914
        ),
        Reported(
            source="Galloway et al. 2018 (released checkpoints)",
            setting="PGD-20, true labels",
            accuracy=0.196,
        ),
        Reported(
            source="Galloway et al. 2018 (released checkpoints)",
            setting="FGSM, true labels",
            accuracy=0.267,
        ),
    ),
    deviations=(
        "45,000 training images, since 5,000 are held out: as many epochs, a tenth fewer steps",
        "label smoothing of 0.1, which the authors' checkpoints do not tell",
        "the random start is uniform in the ball, not in ten times the ball and cut to it",
        "trained in mixed_bfloat16, measured in float32",
    ),
)
