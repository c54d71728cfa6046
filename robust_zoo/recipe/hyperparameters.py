"""Hyperparameters by their path, such as attack.epsilon of a defense: other values for them."""

import ast
import functools
import inspect
from typing import Any

import keras

from robust_zoo.attacks import Attack
from robust_zoo.defenses import Defense

_NOT_OURS = ("classifier", "name", "trainable", "dtype")  # of a defense's configuration


def with_hyperparameter(part: Any, path: str, value: str) -> Any:
    """A defense, an attack, a Keras optimizer or a `functools.partial` with another value of a hyperparameter.

    Args:
        part: where the path begins. It is left alone; a defense's copy trains the same classifier.
        path: names with dots between them, such as "beta", "attack.epsilon" or "learning_rate.decay_steps".
        value: as Python writes it; anything else is text.

    Raises:
        ValueError: no such hyperparameter, or a value of another kind than the one there is.
        TypeError: a value that its class refuses.
    """
    name, _, rest = path.partition(".")
    values = _values(part)
    if name not in values:
        known = ", ".join(sorted(values)) or "nothing to set"
        raise ValueError(f"{_title(part)} has {known}, not {name!r}")
    old = values[name]
    return _replaced(
        part, name, with_hyperparameter(old, rest, value) if rest else _parsed(old, value)
    )


def _title(part: object) -> str:
    return part.func.__name__ if isinstance(part, functools.partial) else type(part).__name__


def _values(part: object) -> dict[str, Any]:
    """The hyperparameters of one object, by name."""
    if isinstance(part, functools.partial):
        parameters = inspect.signature(part.func).parameters.values()
        given = {each.name: each.default for each in parameters}
        return {
            name: each
            for name, each in (given | part.keywords).items()
            if each is not inspect._empty
        }
    if isinstance(part, (Defense, Attack)):
        config = part.get_config()
        own = {name: getattr(part, name) for name in config if name not in _NOT_OURS}
        return {
            name: value if hasattr(value, "get_config") else config[name]
            for name, value in own.items()
        }
    if hasattr(part, "get_config"):
        return {name: _revived(each) for name, each in part.get_config().items() if name != "name"}
    return {}


def _revived(value: Any) -> Any:
    """What Keras wrote into a configuration, such as the schedule of an optimizer's rate."""
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    return value


def _replaced(part: Any, name: str, value: Any) -> Any:
    if isinstance(part, functools.partial):
        return functools.partial(part.func, *part.args, **{**part.keywords, name: value})
    if isinstance(part, Attack):
        return part.replace(**{name: value})
    if isinstance(part, Defense):
        own = {"classifier": part.classifier} if "defense" not in _values(part) else {}
        return type(part)(**own, **{**_values(part), name: value})
    return type(part).from_config({**part.get_config(), name: value})


def _parsed(current: object, text: str) -> Any:
    """The value that a text stands for, of the current one's kind if there is one."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(current, float) and type(value) is int:
        value = float(value)
    if isinstance(current, (bool, int, float, str)) and type(value) is not type(current):
        raise ValueError(f"must be {type(current).__name__}, such as {current!r}, got {text!r}")
    return value
