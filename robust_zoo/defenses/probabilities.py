"""Losses and metrics that would take logits for probabilities: the usual spelling, and silently wrong."""

import inspect

import keras

_NEVER = ("kl_divergence", "KLDivergence", "poisson", "Poisson")  # have no from_logits


def check_compiled(loss, *metrics) -> None:
    """Raises ValueError for a loss, or a metric in (nested) collections of them, that takes probabilities."""
    for part in keras.tree.flatten(loss):
        if _takes_probabilities(part, keras.losses.get):
            raise ValueError(
                f"loss must take logits, which is what a classifier returns here, got {_name(part)}, which takes "
                "probabilities: give the class with from_logits=True, such as "
                "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
            )
    for part in keras.tree.flatten(metrics):
        if _takes_probabilities(part, keras.metrics.get):
            raise ValueError(
                f"metrics must take logits, which is what a classifier returns here, got {_name(part)}, which takes "
                "probabilities: give the class with from_logits=True."
            )


def _takes_probabilities(part, get) -> bool:
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


def _name(part) -> str:
    return repr(part) if isinstance(part, str) else getattr(part, "__name__", type(part).__name__)
