"""LeNet on MNIST, mixed minibatches with step l.l. examples (Kurakin et al., arXiv:1611.01236).

    robust-zoo train lenet.step_ll_mnist --output checkpoints/lenet.step_ll_mnist

The paper trains Inception v3 on ImageNet.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, BasicIterative
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="lenet.step_ll_mnist",
    dataset="mnist",
    classifier=lambda: architectures.lenet(),
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier,
        attack=FGSM(epsilon=0.3, labels="least_likely", targeted=True),
        fraction=0.5,
        relative_weight=0.3,
        random_epsilon=True,
        delay_steps=total_steps // 15,
    ),
    paper="arXiv:1611.01236",
    optimizer=lambda total_steps: keras.optimizers.Adam(1e-3),
    epochs=20,
    batch_size=32,
    attacks=(
        FGSM(epsilon=0.3, labels="least_likely", targeted=True),
        FGSM(epsilon=0.3),
        FGSM(epsilon=0.3, labels="predicted"),
        BasicIterative(epsilon=0.3),
        PGD(epsilon=0.3, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.3),
    ),
    n=(10_000, 10_000, 10_000, 1_000, 1_000, 1_000),
    deviations=(
        "LeNet on MNIST, not Inception v3 on ImageNet: no batch normalisation",
        "Adam at a constant 1e-3 for 20 epochs in batches of 32, not RMSProp at a falling rate for 150,000 steps "
        "of 32 images on each of 50 devices; no label smoothing, no dropout",
        "epsilon at most 0.3, not 16/255",
    ),
)
