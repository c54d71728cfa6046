"""Adversarial attacks: written once in `keras.ops`, for every backend."""

from functools import partial

from robust_zoo.attack_names import NAMES
from robust_zoo.attacks.apgd import APGD
from robust_zoo.attacks.attack import Attack, FixedBudgetAttack, MinimumNormAttack
from robust_zoo.attacks.autoattack import AutoAttack, AutoAttackResult
from robust_zoo.attacks.carlini_wagner import CarliniWagner
from robust_zoo.attacks.ddn import DDN
from robust_zoo.attacks.deepfool import DeepFool
from robust_zoo.attacks.expectation import EOT
from robust_zoo.attacks.fab import FAB
from robust_zoo.attacks.fmn import FMN
from robust_zoo.attacks.generator import GeneratorAttack
from robust_zoo.attacks.gradient import (
    FGSM,
    PGD,
    BasicIterative,
    FastGradient,
    MomentumIterative,
    NormalStartPGD,
)
from robust_zoo.attacks.jsma import JSMA
from robust_zoo.attacks.losses import (
    DLR,
    CrossEntropy,
    CWMargin,
    Entropy,
    KLDivergence,
    Loss,
    ProbabilityMargin,
)
from robust_zoo.attacks.noise import SignNoise, TruncatedNormalNoise
from robust_zoo.attacks.run import AttackResult
from robust_zoo.attacks.sigma_zero import SigmaZero
from robust_zoo.attacks.sparse import ExtremeWeights, PixelSwap
from robust_zoo.attacks.square import Square

ATTACKS = {name: partial(globals()[kind], **settings) for name, (kind, settings) in NAMES.items()}
"""Attacks by their name on the command line: a class, and the settings that make it the named attack."""

__all__ = [
    "APGD",
    "ATTACKS",
    "DDN",
    "DLR",
    "EOT",
    "FAB",
    "FGSM",
    "FMN",
    "JSMA",
    "PGD",
    "Attack",
    "AttackResult",
    "AutoAttack",
    "AutoAttackResult",
    "BasicIterative",
    "CWMargin",
    "CarliniWagner",
    "CrossEntropy",
    "DeepFool",
    "Entropy",
    "ExtremeWeights",
    "FastGradient",
    "FixedBudgetAttack",
    "GeneratorAttack",
    "KLDivergence",
    "Loss",
    "MinimumNormAttack",
    "MomentumIterative",
    "NormalStartPGD",
    "PixelSwap",
    "ProbabilityMargin",
    "SigmaZero",
    "SignNoise",
    "Square",
    "TruncatedNormalNoise",
]
