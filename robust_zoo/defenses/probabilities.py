"""Losses and metrics that would take logits for probabilities: the usual spelling, and silently wrong."""

import inspect
import types
from collections.abc import Callable
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

# Have no from_logits.
_NEVER = (
    "kl_divergence",
    "poisson",
    "dice",
    "tversky",
    "KLDivergence",
    "Poisson",
    "Dice",
    "Tversky",
    "categorical_generalized_cross_entropy",
    "CategoricalGeneralizedCrossEntropy",
)


def check_compiled(classes: int, loss: Any, *metrics: Any) -> None:
    """Raises ValueError for a loss, or a metric in (nested) collections of them, that takes probabilities.

    Args:
        classes: of the classifier.
        loss: as in `compile`.
        *metrics: as in `compile`.
    """
    for part in keras.tree.flatten(loss):
        if _takes_probabilities(part, keras.losses.get) or _clips_or_normalises(part, classes):
            raise ValueError(
                f"loss must take logits, which is what a classifier returns here, got {_name(part)}, which takes "
                "probabilities: give the class with from_logits=True, such as "
                "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
            )
    for part in keras.tree.flatten(metrics):
        if _takes_probabilities(part, keras.metrics.get):
            raise ValueError(
                f"metrics must take logits, which is what a classifier returns here, got {_name(part)}, which takes "
                "probabilities: give the class with from_logits=True, or with a threshold on logits, such as 0."
            )


def _takes_probabilities(part: Any, get: Callable[[str], Any]) -> bool:
    if part is None:
        return False
    if isinstance(part, str):
        if part.lower() in ("crossentropy", "ce"):
            return True
        try:
            part = get(part)
        except ValueError:
            return False  # Keras will say so
    if isinstance(part, type):
        part = part()
    if getattr(part, "__name__", type(part).__name__) in _NEVER:
        return True
    for name in ("from_logits", "_from_logits"):
        if hasattr(part, name):
            return not getattr(part, name)
    if _thresholds(part):
        return True
    wrapped = getattr(part, "_fn", getattr(part, "fn", part))
    given = {**(getattr(part, "_fn_kwargs", None) or {}), **(getattr(part, "keywords", None) or {})}
    if "from_logits" in given:
        return not given["from_logits"]
    if not callable(wrapped):
        return False
    try:
        argument = inspect.signature(wrapped).parameters.get("from_logits")
    except (TypeError, ValueError):
        return False
    return argument is not None and argument.default is False


def _clips_or_normalises(loss: Any, classes: int) -> bool:
    """Whether the values of a loss, not one of Keras's, show that it takes probabilities.

    On logits it has no value (a logarithm of what is negative), is the same for all above 1 (which it clips), or is
    the same for their multiples, of either sign (which it divides by their sum).
    """
    if not callable(loss) or (getattr(loss, "__module__", None) or "").startswith("keras."):
        return False
    z = np.random.default_rng(0).uniform(2, 5, (classes + 1, classes)).astype("float32")
    labels = z.argmin(axis=1)  # wrong ones: a hinge has a value
    for y in (labels, np.eye(classes, dtype="float32")[labels]):
        try:
            first, *others = (
                np.asarray(ops.convert_to_numpy(loss(ops.convert_to_tensor(y), value)))
                for value in map(ops.convert_to_tensor, (z, 2 * z, z[::-1].copy() + 1, -z))
            )
        except Exception:  # of whatever the loss does with labels of the other form
            continue
        double, other, negative = (np.allclose(first, part, rtol=1e-5) for part in others)
        undefined = not all(np.isfinite(part).all() for part in (first, *others))
        return undefined or (double and (other or negative))
    return False


def _thresholds(part: Any) -> bool:
    """Whether a metric cuts outputs somewhere between 0 and 1, as Keras's do by default."""
    if getattr(part, "top_k", None) is not None:
        return False  # ranks them
    given = getattr(part, "_fn_kwargs", None) or {}
    found = getattr(part, "thresholds", getattr(part, "threshold", given.get("threshold")))
    if found is None and isinstance(part, types.FunctionType):
        argument = inspect.signature(part).parameters.get("threshold")
        found = None if argument is None else argument.default
    values = keras.tree.flatten(found)
    return any(isinstance(value, Real) and 0 < float(value) < 1 for value in values)


def _name(part: Any) -> str:
    return repr(part) if isinstance(part, str) else getattr(part, "__name__", type(part).__name__)
