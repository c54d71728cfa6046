"""Attacks by their name on the command line, and what can be set in them.

Names alone, so that the command line can refuse a wrong one before a backend starts.
"""

_LEAST_LIKELY = {"labels": "least_likely", "targeted": True}
_RANDOM = {"labels": "random", "targeted": True}

# A class, and the settings that make it the named attack.
NAMES = {
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
    "carlini-wagner": ("CarliniWagner", {}),
    "jsma": ("JSMA", {}),
    "pixel-swap": ("PixelSwap", {}),
    "extreme-weights": ("ExtremeWeights", {}),
}

LOSSES = ("cross_entropy", "cw_margin", "dlr", "entropy", "kl_divergence")
LABELS = ("true", "predicted", "least_likely", "random")

_BOTH = {"norm": ("linf", "l2")}
_ONE_STEP = {"epsilon": float, "loss": LOSSES, "labels": LABELS, "targeted": bool}
_NOISE = {"norm": ("linf",), "epsilon": float, "restarts": int}

# What each class takes: the type of a value, or the names it may be. Those without "epsilon" look for the closest
# adversarial example.
HYPERPARAMETERS = {
    "APGD": {
        **_BOTH, "epsilon": float, "steps": int, "restarts": int, "loss": LOSSES, "targets": int, "rho": float,
    },
    "AutoAttack": {**_BOTH, "epsilon": float},
    "BasicIterative": {**_BOTH, **_ONE_STEP, "steps": int, "step_size": float},
    "CarliniWagner": {
        "norm": ("l2",), "steps": int, "binary_search_steps": int, "initial_constant": float, "step_size": float,
        "confidence": float, "abort_early": bool,
    },
    "DeepFool": {
        **_BOTH, "steps": int, "overshoot": float, "candidates": int, "labels": ("true", "predicted"),
    },
    "ExtremeWeights": {"norm": ("l0",), "epsilon": float},
    "FAB": {**_BOTH, "steps": int, "targets": int, "eta": float, "beta": float, "alpha_max": float},
    "FGSM": {**_BOTH, **_ONE_STEP},
    "FastGradient": {"norm": ("linf",), **_ONE_STEP, "scale": float},
    "JSMA": {
        "norm": ("l0",), "theta": float, "gamma": float, "output": ("probabilities", "logits"), "targeted": bool,
    },
    "MomentumIterative": {**_BOTH, **_ONE_STEP, "steps": int, "decay": float, "step_size": float},
    "PGD": {
        **_BOTH, **_ONE_STEP, "steps": int, "restarts": int, "random_start": bool, "step_size": float,
    },
    "PixelSwap": {"norm": ("l0",), "epsilon": float, "permutation": int},
    "SignNoise": _NOISE,
    "Square": {**_BOTH, "epsilon": float, "steps": int, "restarts": int, "start_share": float},
    "TruncatedNormalNoise": _NOISE,
}  # fmt: skip
