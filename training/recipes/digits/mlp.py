"""MLP on digits under every defense, for comparison: small enough to train in seconds to a minute on two cores.

    robust-zoo train mlp.pgd_digits --output checkpoints/mlp.pgd_digits

No paper has these numbers; ours are in the models' cards.
"""

from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import (
    FGSM,
    PGD,
    AutoAttack,
    CarliniWagner,
    DeepFool,
    MomentumIterative,
    NormalStartPGD,
)
from robust_zoo.defenses import (
    PGN,
    TRADES,
    AdversarialTraining,
    AdversarialWeightPerturbation,
    DeepDefense,
    FixedSetTraining,
    FreeAdversarialTraining,
    ParsevalTraining,
    with_weight_decay,
)
from robust_zoo.recipe import Recipe


def constant(rate):
    return lambda total_steps: keras.optimizers.Adam(rate)


def cosine(total_steps):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, total_steps))


ATTACKS = (
    FGSM(epsilon=0.1),
    PGD(epsilon=0.1, steps=40, step_size=0.01, restarts=5),
    AutoAttack(epsilon=0.1),
    DeepFool(),
)
# As DeepDefense is measured in its paper.
FEW_STEPS = (*ATTACKS, DeepFool(steps=5))
# The inner maximisation of TRADES.
FARTHEST = NormalStartPGD(epsilon=0.1, steps=10, step_size=0.02, loss="kl_divergence")

COMMON = {
    "dataset": "digits",
    "classifier": lambda: architectures.mlp((8, 8, 1)),
    "optimizer": cosine,
    "epochs": 60,
    "batch_size": 64,
    "attacks": ATTACKS,
}

DEFENSES = {
    "natural": {"optimizer": constant(1e-3), "epochs": 30},
    "l2": {  # Galloway et al.: weight decay as the only defense
        "classifier": lambda: with_weight_decay(architectures.mlp((8, 8, 1)), l2=0.01),
        "paper": "arXiv:1804.03308",
        "optimizer": constant(1e-3),
        "epochs": 30,
    },
    "pgd": {  # Madry et al.
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier,
            attack=PGD(epsilon=0.1, steps=10, step_size=0.02),
            ramp_steps=total_steps // 4,
        ),
        "paper": "arXiv:1706.06083",
        "deviations": ("epsilon is ramped up from 0 over the first quarter of training",),
    },
    "fast": {  # Wong et al.
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=PGD(epsilon=0.1, steps=1, step_size=0.125)
        ),
        "paper": "arXiv:2001.03994",
        "deviations": ("Adam with cosine decay, not SGD with a cyclic rate",),
    },
    "free": {  # Shafahi et al.
        "defense": lambda classifier, total_steps: FreeAdversarialTraining(
            classifier, attack=PGD(epsilon=0.1, steps=10, step_size=0.02), batch_size=64, replays=4
        ),
        "paper": "arXiv:1904.12843",
        # The optimizer makes a step in each of the four replays.
        "optimizer": lambda total_steps: cosine(4 * total_steps),
        "epochs": 30,
        "deviations": ("Adam with cosine decay, not SGD with steps",),
    },
    "step_ll": {  # Kurakin et al.: mixed minibatches with examples of the least likely class
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier,
            attack=FGSM(epsilon=0.2, labels="least_likely", targeted=True),
            fraction=0.5,
            relative_weight=0.3,
            random_epsilon=True,
            delay_steps=total_steps // 15,
        ),
        "paper": "arXiv:1611.01236",
        "attacks": (FGSM(epsilon=0.1, labels="least_likely", targeted=True), *ATTACKS),
        "deviations": ("Adam, not RMSProp", "no batch normalisation"),
    },
    "trades": {  # Zhang et al.
        "defense": lambda classifier, total_steps: TRADES(classifier, attack=FARTHEST, beta=6.0),
        "paper": "arXiv:1901.08573",
        "deviations": ("Adam with cosine decay, not SGD with steps",),
    },
    "awp": {  # Wu et al.
        "defense": lambda classifier, total_steps: AdversarialWeightPerturbation(
            TRADES(classifier, attack=FARTHEST, beta=6.0), gamma=5e-3
        ),
        "paper": "arXiv:2004.05884",
        "deviations": ("Adam with cosine decay, not SGD with steps",),
    },
    "deepdefense": {  # Yan et al.
        "start": "mlp.natural_digits",
        "defense": lambda classifier, total_steps: DeepDefense(classifier, strength=15, c=25, d=5),
        "paper": "arXiv:1803.00404",
        "optimizer": lambda total_steps: keras.optimizers.Adam(
            keras.optimizers.schedules.PiecewiseConstantDecay(
                [total_steps * 4 // 5], [5e-4, 2.5e-4]
            )
        ),
        "epochs": 30,
        "attacks": FEW_STEPS,
        "deviations": ("Adam, not SGD with momentum and weight decay", "30 epochs, not 5"),
    },
    "deepfool": {  # Moosavi-Dezfooli et al., section 4: one fixed set of DeepFool examples
        "start": "mlp.natural_digits",
        "defense": lambda classifier, total_steps: FixedSetTraining(classifier, made_by=DeepFool()),
        "paper": "arXiv:1511.04599",
        "optimizer": constant(5e-4),
        "epochs": 5,
        "attacks": FEW_STEPS,
        "deviations": ("Adam, not SGD with momentum and weight decay",),
    },
    "parseval": {  # Cisse et al.
        "start": "mlp.natural_digits",
        "defense": lambda classifier, total_steps: ParsevalTraining(classifier, beta=1e-2),
        "paper": "arXiv:1704.08847",
        "optimizer": constant(5e-4),
        "epochs": 30,
        "attacks": FEW_STEPS,
        "deviations": (
            "Adam, not SGD with momentum and weight decay",
            "30 epochs, not 5",
            "beta 1e-2, not 1e-4",
        ),
    },
    "pgn": {  # perturbation generator networks
        "defense": lambda classifier, total_steps: PGN(
            classifier,
            generator=architectures.perturbation_generator((8, 8, 1), 10, filters=16, hidden=64),
            distortion_weight=0.5,
            gradient_scale=10.0,
        ),
        "paper": "Perturbation Generator Networks, 2020",
        "optimizer": lambda total_steps: keras.optimizers.Adam(
            2e-3, use_ema=True, ema_momentum=0.998
        ),
        "attacks": (
            MomentumIterative(epsilon=0.5, norm="l2", steps=100, step_size=0.06),
            PGD(epsilon=0.5, norm="l2", steps=40, step_size=0.05, restarts=5),
            AutoAttack(epsilon=0.5, norm="l2"),
            DeepFool(),
            CarliniWagner(steps=100, binary_search_steps=5, step_size=5e-3, initial_constant=1e-2),
        ),
        "deviations": (
            "the generator sees the gradient 1,280 times as large, and has 16 filters and 64 hidden units",
            "c_L 0.5, not 50: digits have 64 pixels",
        ),
    },
}

MODELS = [{"defense": defense} for defense in DEFENSES]


def get_recipe(defense: Literal[tuple(DEFENSES)] = "pgd") -> Recipe:
    return Recipe(name=f"mlp.{defense}_digits", **(COMMON | DEFENSES[defense]))
