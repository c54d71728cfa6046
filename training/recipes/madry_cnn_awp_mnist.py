"""Madry's MNIST network, PGD training in a ball of 0.4 with adversarial weight perturbation (arXiv:2004.05884).

    robust-zoo train madry_cnn.awp_mnist --output checkpoints/madry_cnn.awp_mnist

Fine-tunes madry_cnn.pgd_mnist. A network that is trained at 0.3 is at the edge of what it withstands there;
in a larger ball it is not. Perturbed and averaged weights keep it from overfitting.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import AdversarialTraining, AdversarialWeightPerturbation
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="madry_cnn.awp_mnist",
    dataset="mnist",
    classifier=lambda: architectures.madry_cnn(initial="glorot"),
    start="madry_cnn.pgd_mnist",
    defense=lambda classifier, total_steps: AdversarialWeightPerturbation(
        AdversarialTraining(classifier, attack=PGD(epsilon=0.4, steps=10, step_size=0.1)),
        gamma=1e-2,
    ),
    paper="arXiv:2004.05884",
    optimizer=lambda total_steps: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(5e-4, total_steps),
        use_ema=True,
        ema_momentum=0.998,
    ),
    epochs=6,
    batch_size=128,
    dtype_policy="mixed_bfloat16",
    attacks=(
        FGSM(epsilon=0.3),
        PGD(epsilon=0.3, steps=40, step_size=0.01),
        AutoAttack(epsilon=0.3),
        DeepFool(),
    ),
    n=(10_000, 10_000, 1_000, 1_000),
    deviations=(
        "on MNIST, where the paper has CIFAR-10 and larger networks; gamma 0.01, not 0.005",
        "trained in a ball of 0.4 with 10 steps of 0.1, measured at 0.3",
        "6 epochs of fine-tuning with Adam, cosine decay from 5e-4 and averaged weights",
        "trained in mixed_bfloat16, measured in float32",
    ),
)
