"""CNN7 of half width on MNIST, trained for certificates in linf balls (Shi et al., arXiv:2103.17268).

    robust-zoo train cnn7_half.interval_bounds_mnist --output checkpoints/cnn7_half.interval_bounds_mnist

- interval_bounds is for balls of 0.3, interval_bounds_small for those of 0.1; both train on larger ones, 0.33 and 0.2.
- An epoch is 31e12 floating-point operations: three to four hours of two cores for all 70.
"""

from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.certification import initialise_for_bounds
from robust_zoo.defenses import IntervalBoundTraining, with_weight_decay
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

EPOCHS, RAMP = 70, 20

# The ball that is measured, the one that is trained on, and accuracies that others published for the whole width.
DEFENSES = {
    "interval_bounds": (0.3, 0.33, {"clean": 0.9767, "certified": 0.9310}),
    "interval_bounds_small": (0.1, 0.2, {"certified": 0.9795}),
}

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(defense: Literal[tuple(DEFENSES)] = "interval_bounds") -> Recipe:
    epsilon, trained, published = DEFENSES[defense]

    def classifier():
        made = architectures.cnn7(width=0.5)
        named = keras.Model(made.inputs[0], made.outputs[0], name="cnn7_half")
        return initialise_for_bounds(with_weight_decay(named, l1=2e-6))

    def intervals(classifier, total_steps):
        epoch = total_steps // EPOCHS
        return IntervalBoundTraining(
            classifier,
            epsilon=trained,
            clean_weight=0.3,
            falling=False,
            warmup_steps=epoch,
            ramp_steps=RAMP * epoch,
            regularization=0.5,
        )

    def optimizer(total_steps):
        cuts = [total_steps * epoch // EPOCHS for epoch in (50, 60)]
        rates = keras.optimizers.schedules.PiecewiseConstantDecay(cuts, [5e-4, 1e-4, 2e-5])
        return keras.optimizers.Adam(rates)

    return Recipe(
        name=f"cnn7_half.{defense}_mnist",
        dataset="mnist",
        classifier=classifier,
        defense=intervals,
        paper="arXiv:2103.17268",
        optimizer=optimizer,
        epochs=EPOCHS,
        batch_size=256,
        attacks=(
            FGSM(epsilon=epsilon),
            PGD(epsilon=epsilon, steps=40, step_size=epsilon / 30),
            AutoAttack(epsilon=epsilon),
            DeepFool(),
        ),
        n=(10_000, 10_000, 10_000, 1_000),
        certify=("ibp", "crown-ibp"),
        skip_certified=True,
        reported=tuple(
            Reported(source="Shi et al. 2021, the whole width", setting=setting, accuracy=accuracy)
            for setting, accuracy in published.items()
        ),
        deviations=(
            "half the width; 55,000 training images, since 5,000 are held out",
            "a loss of clean images with weight 0.3 and an L1 penalty of 2e-6, as Mao et al. (arXiv:2406.04848) tuned it",
            "gradients are not clipped, by the paper at a norm of 10: Keras clips each replica's by itself",
            f"epsilon {trained} in training, which the paper sets to 0.4 (0.2 for balls of 0.1)",
        ),
    )
