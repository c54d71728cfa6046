"""Madry's MNIST network (arXiv:1706.06083): Table 1, the capacity study of section 4, TRADES and weight perturbation.

    robust-zoo train madry_cnn.pgd_mnist --output checkpoints/madry_cnn.pgd_mnist
    robust-zoo train madry_cnn_scale4.fgsm_mnist --output checkpoints/madry_cnn_scale4.fgsm_mnist

- natural, fgsm and pgd exist at every scale; FGSM training learns to withstand FGSM and not PGD. madry_cnn_dense8 are the
  same networks with an eighth of the dense units, at epsilon 0.1 in place of 0.3.
- pgd_copy is the independent copy of pgd that black-box examples are made on (Table 1, A'): another seed.
- awp fine-tunes pgd in a ball of 0.4 (Wu et al., arXiv:2004.05884). A network that is trained at 0.3 is at the edge of
  what it withstands there; perturbed and averaged weights keep it from overfitting.
- trades is Zhang et al.'s (arXiv:1901.08573); AutoAttack finds 92.8% on the weights that its authors published.
"""

from typing import Literal

import keras

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool, NormalStartPGD
from robust_zoo.defenses import TRADES, AdversarialTraining, AdversarialWeightPerturbation
from robust_zoo.recipe import Recipe
from robust_zoo.record import Reported

WHOLE = 16  # the scale of the paper's network
SCALES = (1, 2, 4, 8, WHOLE)
START = "Glorot-uniform initial kernels and zero biases, not a truncated normal of 0.1 and 0.1"
RAMP = "epsilon is ramped up from 0 over the first fifth of training"
MIXED = "trained in mixed_bfloat16, measured in float32"


def falling(*percents: int):
    """Adam at 1e-3, cut to 2e-4 and 4e-5 after these percents of training."""

    def optimizer(total_steps):
        cuts = [total_steps * percent // 100 for percent in percents]
        rates = keras.optimizers.schedules.PiecewiseConstantDecay(cuts, [1e-3, 2e-4, 4e-5])
        return keras.optimizers.Adam(rates)

    return optimizer


def measured_with(epsilon: float):
    return (
        FGSM(epsilon=epsilon),
        PGD(epsilon=epsilon, steps=40, step_size=0.01),
        AutoAttack(epsilon=epsilon),
        DeepFool(),
    )


ATTACKS = measured_with(0.3)
# The paper's strongest attack as well, for the network of its Table 1.
TABLE_1 = {
    "attacks": (
        *ATTACKS[:2],
        PGD(epsilon=0.3, steps=100, step_size=0.01, restarts=20),
        *ATTACKS[2:],
    ),
    "n": (10_000, 10_000, 1_000, 1_000, 1_000),
}

COMMON = {
    "dataset": "mnist",
    "optimizer": falling(70, 90),
    "epochs": 10,
    "batch_size": 128,
    "dtype_policy": "mixed_bfloat16",
    "attacks": ATTACKS,
    "n": (10_000, 10_000, 1_000, 1_000),
}


def against(attack):
    """Adversarial training against an attack, with a ramp."""

    def defense(classifier, total_steps):
        return AdversarialTraining(classifier, attack=attack, ramp_steps=total_steps // 5)

    return defense


PGD_TRAINING = {
    "defense": against(PGD(epsilon=0.3, steps=10, step_size=0.06)),
    "paper": "arXiv:1706.06083",
    "deviations": (
        START,
        "PGD-10 with step 0.06 inside training, not PGD-40 with step 0.01",
        RAMP,
        "10 epochs with Adam at 1e-3, cut to 2e-4 and 4e-5, in batches of 128; the paper's code takes 100,000 "
        "steps of Adam at 1e-4 on the summed loss in batches of 50",
        MIXED,
    ),
}

DEFENSES = {
    "natural": {
        "optimizer": falling(50, 75),
        "epochs": 5,
        "deviations": (
            START,
            "5 epochs with Adam at 1e-3, cut to 2e-4 and 4e-5, in batches of 128",
            MIXED,
        ),
    },
    "fgsm": {
        "defense": against(FGSM(epsilon=0.3)),
        "paper": "arXiv:1706.06083",
        "deviations": (
            START,
            RAMP,
            "10 epochs with Adam at 1e-3, cut to 2e-4 and 4e-5, in batches of 128",
            MIXED,
        ),
    },
    "pgd": PGD_TRAINING,
    "pgd_copy": {**PGD_TRAINING, "seed": 1},
    "awp": {
        "start": "madry_cnn.pgd_mnist",
        "defense": lambda classifier, total_steps: AdversarialWeightPerturbation(
            AdversarialTraining(classifier, attack=PGD(epsilon=0.4, steps=10, step_size=0.1)),
            gamma=1e-2,
        ),
        "paper": "arXiv:2004.05884",
        "optimizer": lambda total_steps: keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(5e-4, total_steps),
            use_ema=True,
            ema_momentum=0.998,
        ),
        "epochs": 6,
        "deviations": (
            "on MNIST, where the paper has CIFAR-10 and larger networks; gamma 0.01, not 0.005",
            "trained in a ball of 0.4 with 10 steps of 0.1, measured at 0.3",
            "6 epochs of fine-tuning with Adam, cosine decay from 5e-4 and averaged weights",
            MIXED,
        ),
    },
    "trades": {
        "defense": lambda classifier, total_steps: TRADES(
            classifier,
            attack=NormalStartPGD(epsilon=0.3, steps=10, step_size=0.06, loss="kl_divergence"),
            beta=1.0,
        ),
        "paper": "arXiv:1901.08573",
        "epochs": 15,
        "deviations": (
            "55,000 training images, since 5,000 are held out",
            "Madry's network, not the paper's small CNN",
            "10 steps of 0.06 in training, not 40 of 0.01",
            "15 epochs with Adam, not 100 with SGD",
            MIXED,
        ),
    },
}


def reported(source: str, **accuracies: float) -> tuple[Reported, ...]:
    return tuple(
        Reported(source=source, setting=setting, accuracy=accuracy)
        for setting, accuracy in accuracies.items()
    )


# Of the whole network.
AUTHORS = {
    "natural": {
        **TABLE_1,
        "reported": reported("Madry et al. 2017, section 4", clean=0.992, FGSM=0.064),
    },
    "pgd": {
        **TABLE_1,
        "reported": (
            *reported(
                "Madry et al. 2017, Table 1",
                **{"clean": 0.988, "FGSM": 0.956, "PGD-40": 0.932, "PGD-100 x 20": 0.893},
            ),
            *reported("AutoAttack on Madry et al.'s weights", AutoAttack=0.885),
        ),
    },
    "trades": {"reported": reported("AutoAttack on the authors' weights", AutoAttack=0.928)},
}

MODELS = [
    *({"defense": defense} for defense in DEFENSES),
    *(
        {"defense": defense, "scale": scale}
        for defense in ("natural", "fgsm", "pgd")
        for scale in SCALES[:-1]
    ),
    *(
        {"defense": defense, "scale": scale, "dense_base": 8}
        for defense in ("natural", "fgsm", "pgd")
        for scale in SCALES
    ),
]

# The capacity study of the paper's first text, in which epsilon is 0.1.
WORKSHOP = {
    "natural": {},
    "fgsm": {"defense": against(FGSM(epsilon=0.1))},
    "pgd": {
        "defense": against(PGD(epsilon=0.1, steps=10, step_size=0.02)),
        "deviations": (
            START,
            "PGD-10 with step 0.02 inside training, not PGD-40",
            *PGD_TRAINING["deviations"][2:],
        ),
    },
}


def workshop(defense: str, scale: int) -> Recipe:
    if defense not in WORKSHOP:
        raise ValueError(
            f"defense must be one of {tuple(WORKSHOP)} with dense_base 8, got {defense!r}."
        )
    values = {
        **COMMON,
        **DEFENSES[defense],
        **WORKSHOP[defense],
        "name": f"madry_cnn_dense8_scale{scale}.{defense}_mnist",
        "classifier": lambda: architectures.madry_cnn(scale=scale, dense_base=8, initial="glorot"),
        "attacks": measured_with(0.1),
    }
    return Recipe(**values)


def get_recipe(
    defense: Literal[tuple(DEFENSES)] = "pgd", scale: int = WHOLE, dense_base: Literal[64, 8] = 64
) -> Recipe:
    """Args: defense; scale, sixteenths of the paper's width; and dense units at scale 1, with 8 of which epsilon is 0.1."""
    if dense_base == 8:
        return workshop(defense, scale)
    values = {
        **COMMON,
        **DEFENSES[defense],
        "name": f"madry_cnn{'' if scale == WHOLE else f'_scale{scale}'}.{defense}_mnist",
        "classifier": lambda: architectures.madry_cnn(scale=scale, initial="glorot"),
    }
    if scale == WHOLE:
        return Recipe(**(values | AUTHORS.get(defense, {})))
    study = "64 dense units and epsilon 0.3, as in later versions of the paper, not 8 and 0.1"
    return Recipe(**(values | {"deviations": (study, *values["deviations"])}))
