"""Attacks by their name on the command line, and what can be set in them.

Names, bounds and defaults alone, so that the command line can refuse a wrong one, and a record can be put in words,
before a backend starts.
"""

import math
from dataclasses import dataclass
from importlib import metadata
from typing import Any

_LEAST_LIKELY = {"labels": "least_likely", "targeted": True}
_RANDOM = {"labels": "random", "targeted": True}

# A class, and the settings that make it the named attack.
NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "autoattack": ("AutoAttack", {}),
    "apgd-ce": ("APGD", {}),
    "apgd-dlr": ("APGD", {"loss": "dlr"}),
    "apgd-t": ("APGD", {"loss": "dlr", "targets": 9}),
    "fab-t": ("FAB", {}),
    "square": ("Square", {}),
    "pgd": ("PGD", {}),
    "pgd-targeted": ("PGD", _RANDOM),
    "pgd-cw": ("PGD", {"loss": "cw_margin"}),
    "pgd-cw+": ("PGD", {"loss": {"name": "cw_margin", "confidence": 50.0}}),
    "basic-iterative": ("BasicIterative", {}),
    "iterative-ll": ("BasicIterative", _LEAST_LIKELY),
    "momentum-iterative": ("MomentumIterative", {}),
    "fgsm": ("FGSM", {}),
    "fgsm-pred": ("FGSM", {"labels": "predicted"}),
    "fast-entropy": ("FGSM", {"loss": "entropy"}),
    "fast-gradient-l2": ("FGSM", {"norm": "l2"}),
    "fast-gradient-linf": ("FastGradient", {}),
    "fast-gradient-scaled": ("FastGradient", {"scale": 100.0}),
    "step-ll": ("FGSM", _LEAST_LIKELY),
    "step-rnd": ("FGSM", _RANDOM),
    "sign-noise": ("SignNoise", {}),
    "truncated-normal-noise": ("TruncatedNormalNoise", {}),
    "deepfool": ("DeepFool", {}),
    "ddn": ("DDN", {}),
    "fmn": ("FMN", {}),
    "sigma-zero": ("SigmaZero", {}),
    "carlini-wagner": ("CarliniWagner", {}),
    "jsma": ("JSMA", {}),
    "pixel-swap": ("PixelSwap", {}),
    "extreme-weights": ("ExtremeWeights", {}),
}

LOSSES = ("cross_entropy", "cw_margin", "dlr", "entropy", "kl_divergence", "probability_margin")
ORDERS = ("logits", "malt")
LABELS = ("true", "predicted", "least_likely", "random")


@dataclass(frozen=True)
class Number:
    """What a hyperparameter that is a number may be.

    Attributes:
        kind: `int` or `float`.
        above, least, most, below: its bounds; by default every finite number is allowed.
    """

    kind: type = float
    above: float = -math.inf
    least: float = -math.inf
    most: float = math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        finite = abs(value) < math.inf
        return finite and self.above < value < self.below and self.least <= value <= self.most

    def __str__(self) -> str:
        bounds = {">": self.above, ">=": self.least, "<": self.below, "<=": self.most}
        words = [f"{sign} {bound:g}" for sign, bound in bounds.items() if math.isfinite(bound)]
        return " ".join(["an integer" if self.kind is int else "a number", " and ".join(words)])


_COUNT, _POSITIVE, _SHARE = Number(int, least=1), Number(above=0), Number(above=0, most=1)

_BOTH = {"norm": ("linf", "l2")}
_THREE = {"norm": ("linf", "l2", "l1")}
_ONE_STEP = {"epsilon": _POSITIVE, "loss": LOSSES, "labels": LABELS, "targeted": bool}
_NOISE = {"norm": ("linf",), "epsilon": _POSITIVE, "restarts": _COUNT}

# What each class takes: the numbers, or the names, that a value may be. Those without "epsilon" look for the closest
# adversarial example.
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "APGD": {
        **_THREE, "epsilon": _POSITIVE, "steps": _COUNT, "restarts": _COUNT, "loss": LOSSES,
        "targets": Number(int, least=0), "order": ORDERS, "rho": _SHARE,
    },
    "AutoAttack": {**_THREE, "epsilon": _POSITIVE, "version": ("standard", "rand")},
    "BasicIterative": {**_BOTH, **_ONE_STEP, "steps": _COUNT, "step_size": _POSITIVE},
    "CarliniWagner": {
        "norm": ("l2",), "steps": _COUNT, "binary_search_steps": _COUNT, "initial_constant": _POSITIVE,
        "step_size": _POSITIVE, "confidence": Number(least=0), "abort_early": bool,
    },
    "DDN": {
        "norm": ("l2",), "steps": _COUNT, "gamma": Number(above=0, below=1), "initial_epsilon": _POSITIVE,
        "levels": Number(int, least=0),
    },
    "DeepFool": {
        **_BOTH, "steps": _COUNT, "overshoot": Number(least=0), "candidates": Number(int, least=2),
        "labels": ("true", "predicted"),
    },
    "ExtremeWeights": {"norm": ("l0",), "epsilon": _POSITIVE},
    "FAB": {
        **_THREE, "steps": _COUNT, "targets": _COUNT, "eta": Number(least=1), "beta": Number(above=0, below=1),
        "alpha_max": Number(least=0, most=1),
    },
    "FGSM": {**_THREE, **_ONE_STEP},
    "FMN": {
        "norm": ("linf", "l2", "l1", "l0"), "steps": _COUNT, "step_size": _POSITIVE, "gamma": Number(above=0, below=1),
    },
    "FastGradient": {"norm": ("linf",), **_ONE_STEP, "scale": _POSITIVE},
    "JSMA": {
        "norm": ("l0",), "theta": Number(least=-1, most=1), "gamma": _SHARE, "output": ("probabilities", "logits"),
        "targeted": bool,
    },
    "MomentumIterative": {
        **_BOTH, **_ONE_STEP, "steps": _COUNT, "decay": Number(least=0), "step_size": _POSITIVE,
    },
    "PGD": {
        **_BOTH, **_ONE_STEP, "steps": _COUNT, "restarts": _COUNT, "random_start": bool, "step_size": _POSITIVE,
    },
    "PixelSwap": {"norm": ("l0",), "epsilon": _POSITIVE, "permutation": Number(int, least=0)},
    "SigmaZero": {
        "norm": ("l0",), "steps": _COUNT, "step_size": _POSITIVE, "sigma": _POSITIVE, "threshold": _SHARE,
        "threshold_step": _POSITIVE,
    },
    "SignNoise": _NOISE,
    "Square": {
        **_THREE, "epsilon": _POSITIVE, "steps": _COUNT, "restarts": _COUNT, "start_share": _SHARE,
    },
    "TruncatedNormalNoise": _NOISE,
}  # fmt: skip

for _taken in HYPERPARAMETERS.values():
    _taken["samples"] = _COUNT


# What those are where they are not given, besides what other hyperparameters make them: of all attacks with any.
DEFAULTS: dict[str, dict[str, Any]] = {
    "APGD": {"order": "logits", "rho": 0.75},
    "AutoAttack": {"version": "standard"},
    "BasicIterative": {"labels": "true"},
    "CarliniWagner": {
        "binary_search_steps": 9, "initial_constant": 1e-3, "confidence": 0.0, "abort_early": True,
    },
    "DDN": {"gamma": 0.05, "initial_epsilon": 1.0, "levels": 0},
    "DeepFool": {"overshoot": 0.02, "candidates": 10, "labels": "predicted"},
    "FAB": {"eta": 1.05, "beta": 0.9, "alpha_max": 0.1},
    "FGSM": {"labels": "true"},
    "FMN": {"gamma": 0.05},
    "FastGradient": {"labels": "true"},
    "GeneratorAttack": {"gradient_scale": 2**-7},
    "JSMA": {"theta": 1.0, "gamma": 0.1, "output": "probabilities"},
    "MomentumIterative": {"labels": "true", "decay": 1.0},
    "NormalStartPGD": {"labels": "true", "start_deviation": 1e-3},
    "PGD": {"labels": "true"},
    "PixelSwap": {"permutation": 0},
    "SigmaZero": {"sigma": 1e-3, "threshold": 0.3, "threshold_step": 0.01},
    "Square": {"start_share": 0.8},
}  # fmt: skip


def outside() -> dict[str, metadata.EntryPoint]:
    """Attacks of other packages that are installed, by their names, not loaded; see `robust_zoo.attacks.registry`."""
    found = {point.name: point for point in metadata.entry_points(group="robust_zoo.attacks")}
    return {name: point for name, point in found.items() if name not in NAMES}


def check_settings(name: str, settings: dict) -> None:
    """ValueError for settings of one of `NAMES` that do not go together, each of which is allowed by itself."""
    kind, own = NAMES[name]
    settings = own | settings
    labels, targeted = settings.get("labels", "true"), settings.get("targeted", False)
    if kind != "JSMA" and labels in ("least_likely", "random") and not targeted:
        raise ValueError(f"labels={labels} needs targeted=true: the class is a target.")
    if labels == "predicted" and targeted:
        raise ValueError("labels=predicted cannot be targeted: it is reached already.")
    starts_elsewhere = kind == "PGD" and settings.get("random_start", True)
    if settings.get("loss") == "kl_divergence" and (targeted or not starts_elsewhere):
        raise ValueError(
            "loss=kl_divergence needs a random start and no targets: its gradient is zero at the image."
        )
    if settings.get("order", "logits") != "logits" and not settings.get("targets", 0):
        raise ValueError("order needs targets, of at least 1: it is their order.")
    if settings.get("levels") == 1:
        raise ValueError("levels must be 0, which does not round, or at least 2.")
    if settings.get("theta") == 0:
        raise ValueError("theta must not be 0.")


def check_epsilon(epsilon: float, norm: str) -> float:
    """Epsilon as a float, after checking that it is a size in [0, 1] pixel units (l0: a number of values).

    Raises:
        ValueError: not > 0, not finite, (linf) above 1, or (l0) no whole number.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be > 0 and finite, got {epsilon!r}.")
    if norm == "linf" and epsilon > 1:
        raise ValueError(
            f"epsilon must be at most 1 for norm 'linf', got {epsilon!r}: images are in [0, 1], so write "
            f"{epsilon:g}/255 for {epsilon:g} of 255 levels."
        )
    if norm == "l0" and epsilon != int(epsilon):
        raise ValueError(
            f"epsilon must be a whole number of changed values for norm 'l0', got {epsilon!r}."
        )
    return float(epsilon)
