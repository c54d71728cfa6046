"""ConvPool-CNN on CIFAR-10: the networks of the table of perturbation generator networks (PGN, 2020, Table 3).

    robust-zoo train allconv.pgn_cifar10 --output checkpoints/allconv.pgn_cifar10

natural, fgm and pgd (adversarial training in L2) and pgn; for the curves fgm005 and fgm02, of other epsilons, and
pgn20 and pgn200, of other distortion weights; pgn_blind, whose generator does not see the gradient. All at a quarter of the paper's width and for fewer epochs, for
two cores. The paper's own networks, for a GPU: `--set filters=64 --set generator_filters=128 --set epochs=200`.
"""

import functools
from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, CarliniWagner, DeepFool, MomentumIterative
from robust_zoo.datasets import flip_and_crop
from robust_zoo.defenses import PGN, AdversarialTraining
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

SOURCE = "PGN 2020, Table 3"
SETTINGS = ("clean", "FGM-L2", "MIM-L2")
ACCURACIES = {
    "natural": (0.9189, 0.293, 0.094),
    "fgm": (0.9180, 0.634, 0.554),
    "pgd": (0.9172, 0.626, 0.543),
    "pgn": (0.9186, 0.653, 0.596),
}
ATTACKS = {
    "fgm": FGSM(epsilon=0.1, norm="l2"),
    "pgd": PGD(epsilon=0.1, norm="l2", steps=10, step_size=0.1 / 10 * 5 / 3),
}
THROUGH_ATTACK = "the gradient does not pass through the attack, as the authors' does"
DEVIATIONS = {
    "fgm": (THROUGH_ATTACK,),
    "pgd": (THROUGH_ATTACK, "the random start is uniform in the ball, not on its surface"),
}

# Of the curves: epsilon, or the distortion weight and the scale of the gradient that the generator sees.
EPSILONS = {"fgm005": 0.05, "fgm": 0.1, "fgm02": 0.2}
GENERATORS = {"pgn": (50.0, 1 / 128), "pgn20": (20.0, 1 / 128), "pgn200": (200.0, 1 / 128)}
GENERATORS["pgn_blind"] = (50.0, 0.0)

DEFENSES = ("natural", "pgd", *EPSILONS, *GENERATORS)

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(
    defense: Literal[DEFENSES] = "pgn",
    filters: int = 16,
    generator_filters: int = 32,
    epochs: int = 20,
) -> Recipe:
    """Args: defense; filters of the first convolution of the classifier; of the generator's; epochs."""

    def trainer(classifier, total_steps):
        if defense in GENERATORS:
            weight, scale = GENERATORS[defense]
            generator = architectures.perturbation_generator(filters=generator_filters)
            return PGN(
                classifier, generator=generator, distortion_weight=weight, gradient_scale=scale
            )
        attack = ATTACKS["pgd" if defense == "pgd" else "fgm"]
        if defense in EPSILONS:
            attack = attack.replace(epsilon=EPSILONS[defense])
        return AdversarialTraining(classifier, attack=attack)

    smaller = [f"{filters} filters, not 64"] if filters != 64 else []
    if defense in GENERATORS and generator_filters != 128:
        smaller.append(f"{generator_filters} filters in the generator, not 128")
    if epochs != 200:
        smaller.append(f"{epochs} epochs, not 200")
    return Recipe(
        name=f"allconv.{defense}_cifar10",
        dataset="cifar10",
        classifier=lambda: architectures.allconv(filters=filters),
        defense=None if defense == "natural" else trainer,
        paper="Perturbation Generator Networks, 2020",
        optimizer=lambda total_steps: keras.optimizers.Adam(5e-4, use_ema=True, ema_momentum=0.998),
        augment=functools.partial(flip_and_crop, pad=4, border="reflect"),
        epochs=epochs,
        batch_size=128,
        dtype_policy="mixed_bfloat16",
        validation_attack=None if defense == "natural" else ATTACKS["pgd"],
        attacks=(
            FGSM(epsilon=0.5, norm="l2"),
            MomentumIterative(epsilon=0.5, norm="l2", steps=100, step_size=0.06),
            PGD(epsilon=0.5, norm="l2", steps=40, step_size=0.05),
            AutoAttack(epsilon=0.5, norm="l2"),
            DeepFool(steps=100),
            CarliniWagner(steps=100, binary_search_steps=5, step_size=5e-3, initial_constant=1e-2),
        ),
        n=(10_000, 1_000, 1_000, 1_000, 1_000, 1_000),
        reported=tuple(
            Reported(source=SOURCE, setting=setting, accuracy=accuracy)
            for setting, accuracy in zip(SETTINGS, ACCURACIES.get(defense, ()), strict=False)
        ),
        deviations=(
            *smaller,
            *DEVIATIONS.get(defense, DEVIATIONS["fgm"] if defense in EPSILONS else ()),
            "49,000 training images, since 1,000 are held out",
            "trained in mixed_bfloat16, measured in float32",
        ),
    )
