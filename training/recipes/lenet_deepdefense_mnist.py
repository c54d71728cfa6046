"""LeNet on MNIST, fine-tuned with DeepDefense (Yan et al., arXiv:1803.00404).

    robust-zoo train lenet.deepdefense_mnist --output checkpoints/lenet.deepdefense_mnist

Half an hour on two cores. Needs lenet.natural_mnist: give its directory with --set start=DIR
where the zoo does not have it.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import DeepDefense, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="lenet.deepdefense_mnist",
    dataset="mnist",
    classifier=lambda: with_weight_decay(architectures.lenet(), l2=5e-4),
    start="lenet.natural_mnist",
    defense=lambda classifier, total_steps: DeepDefense(classifier, strength=15, c=25, d=5),
    paper="arXiv:1803.00404",
    optimizer=lambda total_steps: keras.optimizers.SGD(
        keras.optimizers.schedules.PiecewiseConstantDecay([total_steps * 4 // 5], [5e-3, 2.5e-3]),
        momentum=0.9,
    ),
    epochs=5,
    batch_size=100,
    attacks=(
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.1),
        DeepFool(steps=5),
    ),
    n=(10_000, 10_000, 1_000, 10_000),
    reported=(Reported(source="Yan et al. 2018, Table 1", setting="clean", accuracy=0.9934),),
    deviations=(
        "55,000 training images, since 5,000 are held out; biases do not decay",
        "images in [0, 1] and a learning rate of 5e-3, not 0..255 less the mean image and 5e-4",
        "r is relative to the norm of the image in [0, 1], not less the mean image",
    ),
)
