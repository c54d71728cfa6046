"""MLP on digits, mixed minibatches with step l.l. examples (Kurakin et al., arXiv:1611.01236).

    robust-zoo train mlp.step_ll_digits --output checkpoints/mlp.step_ll_digits

Seconds on two cores. No paper has these numbers; ours are in the model's card.
"""

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import Recipe

recipe = Recipe(
    name="mlp.step_ll_digits",
    dataset="digits",
    classifier=lambda: architectures.mlp((8, 8, 1)),
    defense=lambda classifier, total_steps: AdversarialTraining(
        classifier,
        attack=FGSM(epsilon=0.2, labels="least_likely", targeted=True),
        fraction=0.5,
        relative_weight=0.3,
        random_epsilon=True,
        delay_steps=total_steps // 15,
    ),
    paper="arXiv:1611.01236",
    optimizer=lambda total_steps: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(2e-3, total_steps)
    ),
    epochs=60,
    batch_size=64,
    attacks=(
        FGSM(epsilon=0.1, labels="least_likely", targeted=True),
        FGSM(epsilon=0.1),
        PGD(epsilon=0.1, steps=40, step_size=0.01, restarts=5),
        AutoAttack(epsilon=0.1),
        DeepFool(),
    ),
    deviations=("Adam, not RMSProp", "no batch normalisation"),
)
