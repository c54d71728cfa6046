"""Adversarial attacks: written once in `keras.ops`, for every backend."""

from functools import partial

from robust_zoo.attacks.apgd import APGD
from robust_zoo.attacks.autoattack import AutoAttack, AutoAttackResult
from robust_zoo.attacks.base import Attack, AttackResult, FixedBudgetAttack, MinimumNormAttack
from robust_zoo.attacks.carlini_wagner import CarliniWagner
from robust_zoo.attacks.deepfool import DeepFool
from robust_zoo.attacks.fab import FAB
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
from robust_zoo.attacks.losses import DLR, CrossEntropy, CWMargin, Entropy, KLDivergence, Loss
from robust_zoo.attacks.noise import SignNoise, TruncatedNormalNoise
from robust_zoo.attacks.sparse import ExtremeWeights, PixelSwap
from robust_zoo.attacks.square import Square

_LEAST_LIKELY = {"labels": "least_likely", "targeted": True}
_RANDOM = {"labels": "random", "targeted": True}

ATTACKS = {
    "autoattack": partial(AutoAttack),
    "apgd-ce": partial(APGD),
    "apgd-dlr": partial(APGD, loss="dlr"),
    "apgd-t": partial(APGD, loss="dlr", targets=9),
    "fab-t": partial(FAB),
    "square": partial(Square),
    "pgd": partial(PGD),
    "pgd-targeted": partial(PGD, **_RANDOM),
    "pgd-cw": partial(PGD, loss="cw_margin"),
    "pgd-cw+": partial(PGD, loss=CWMargin(confidence=50.0)),
    "basic-iterative": partial(BasicIterative),
    "iterative-ll": partial(BasicIterative, **_LEAST_LIKELY),
    "momentum-iterative": partial(MomentumIterative),
    "fgsm": partial(FGSM),
    "fgsm-pred": partial(FGSM, labels="predicted"),
    "fast-entropy": partial(FGSM, loss="entropy"),
    "fast-gradient-l2": partial(FGSM, norm="l2"),
    "fast-gradient-linf": partial(FastGradient),
    "fast-gradient-scaled": partial(FastGradient, scale=100.0),
    "step-ll": partial(FGSM, **_LEAST_LIKELY),
    "step-rnd": partial(FGSM, **_RANDOM),
    "sign-noise": partial(SignNoise),
    "truncated-normal-noise": partial(TruncatedNormalNoise),
    "deepfool": partial(DeepFool),
    "carlini-wagner": partial(CarliniWagner),
    "jsma": partial(JSMA),
    "pixel-swap": partial(PixelSwap),
    "extreme-weights": partial(ExtremeWeights),
}
"""Attacks by their name on the command line: a class, and the settings that make it the named attack."""

__all__ = [
    "APGD",
    "ATTACKS",
    "DLR",
    "FAB",
    "FGSM",
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
    "SignNoise",
    "Square",
    "TruncatedNormalNoise",
]
