"""Adversarial attacks: written once in `keras.ops`, for every backend."""

from robust_zoo.attacks.base import Attack, AttackResult
from robust_zoo.attacks.gradient import FGSM, PGD, BasicIterative, MomentumIterative
from robust_zoo.attacks.losses import DLR, CrossEntropy, CWMargin, Loss

ATTACKS = {
    "fgsm": FGSM,
    "basic-iterative": BasicIterative,
    "pgd": PGD,
    "momentum-iterative": MomentumIterative,
}
"""Attacks by their name on the command line."""

__all__ = [
    "ATTACKS",
    "DLR",
    "FGSM",
    "PGD",
    "Attack",
    "AttackResult",
    "BasicIterative",
    "CWMargin",
    "CrossEntropy",
    "Loss",
    "MomentumIterative",
]
