"""Attacks by their name on the command line: a class, and the settings that make it the named attack.

Names alone, so that the command line can refuse a wrong one before a backend starts.
"""

_LEAST_LIKELY = {"labels": "least_likely", "targeted": True}
_RANDOM = {"labels": "random", "targeted": True}

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

WITHOUT_BUDGET = ("fab-t", "deepfool", "carlini-wagner", "jsma")
"""Those that look for the closest adversarial example, and have no epsilon."""
