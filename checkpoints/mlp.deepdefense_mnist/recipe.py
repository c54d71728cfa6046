"""MLP on MNIST, fine-tuned with DeepDefense (Yan et al., arXiv:1803.00404).

    robust-zoo train mlp.deepdefense_mnist --output checkpoints/mlp.deepdefense_mnist

Starts from mlp.natural_mnist.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import DeepDefense, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

recipe = Recipe(
    name="mlp.deepdefense_mnist",
    dataset="mnist",
    classifier=lambda: with_weight_decay(architectures.mlp(), l2=5e-4),
    start="mlp.natural_mnist",
    defense=lambda classifier, total_steps: DeepDefense(classifier, strength=15, c=25, d=5),
    paper="arXiv:1803.00404",
    optimizer=lambda total_steps: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(5e-3, total_steps), momentum=0.9
    ),
    epochs=10,
    batch_size=100,
    attacks=(
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.1),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    reported=(Reported(source="Yan et al. 2018, Table 1", setting="clean", accuracy=0.9865),),
    deviations=(
        "55,000 training images, since 5,000 are held out; biases do not decay",
        "images in [0, 1], not 0..255 less the mean image, and so relative sizes without the mean image too",
        "10 epochs with cosine decay from a learning rate of 5e-3, not 5 at 5e-4 and 2.5e-4",
    ),
)
