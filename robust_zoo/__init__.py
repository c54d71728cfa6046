"""A Keras model zoo of image classifiers that withstand adversarial attack.

Load a robust model with its robustness measured and attached, attack and measure any Keras
classifier, and fine-tune or harden it with `fit`. See `robust_zoo.load_model`, `evaluate`, `attacks`
and `defenses`.
"""

import importlib

__version__ = "0.1.0"

# Public names by the module that has them, imported on first use: importing the package stays cheap,
# and the command line can quieten TensorFlow before it starts.
_MODULES = {
    "Dataset": "robust_zoo.datasets",
    "RobustnessRecord": "robust_zoo.record",
    "architectures": None,
    "as_classifier": "robust_zoo.classifier",
    "attacks": None,
    "backend": None,
    "datasets": None,
    "defenses": None,
    "evaluate": "robust_zoo.evaluation",
    "evaluation": None,
    "list_models": "robust_zoo.zoo",
    "load_attack": "robust_zoo.zoo",
    "load_dataset": "robust_zoo.datasets",
    "load_model": "robust_zoo.zoo",
    "load_record": "robust_zoo.zoo",
    "plots": None,
    "publish": "robust_zoo.zoo",
    "save_model": "robust_zoo.zoo",
    "verify": "robust_zoo.evaluation",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES[name]
    if module is None:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
