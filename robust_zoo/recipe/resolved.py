"""A resolved recipe: every value that took part in a training, and how it went; recipe.json of a checkpoint.

The recipe's Python file may change, or not be there; this says what it was when it trained the weights.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import keras

from robust_zoo.attacks import Attack
from robust_zoo.classifier import without_names
from robust_zoo.datasets import Dataset, Examples
from robust_zoo.defenses import Defense
from robust_zoo.fingerprint import fingerprint
from robust_zoo.layers import layers_of
from robust_zoo.recipe.definition import Recipe
from robust_zoo.weights import sha256

_SAMPLE = 1000  # examples of data too large for memory, by which a resumed run knows them


def resolve(recipe: Recipe, trainer: Defense, train: Examples, validation: Examples) -> dict:
    """The values of a `Recipe` and of what it made, as JSON values.

    A resumed run must have all of them in common with the one that was interrupted.

    Args:
        recipe: the `Recipe`.
        trainer: compiled.
        train: trained on.
        validation: watched, and what an epoch is chosen by.
    """
    classifier = trainer.classifier
    base = getattr(classifier, "base_model", None)
    defense = None
    if recipe.defense is not None:
        defense = {"name": type(trainer).__name__, **trainer.hyperparameters()}
    values = {
        "dataset": {
            "name": train.name,
            "version": train.version,
            **{part.split: _examples(part, recipe.seed) for part in (train, validation)},
        },
        "start": recipe.start
        and {
            "name": recipe.start,
            "weights_sha256": base.weights_sha256 if base else "",
        },
        "classifier": {
            "name": classifier.name,
            "parameters": classifier.count_params(),
            "sha256": _sha256_of_layers(classifier),
        },
        "defense": defense,
        "label_smoothing": recipe.label_smoothing,
        "optimizer": {
            **_plain(keras.saving.serialize_keras_object(trainer.optimizer)),
            "code_sha256": fingerprint(recipe.optimizer),
        },
        "augment": recipe.augment
        and {
            **_function(recipe.augment),
            "code_sha256": fingerprint(recipe.augment),
        },
        "central_crop": recipe.central_crop,
        "epochs": recipe.epochs,
        "steps_per_epoch": recipe.steps_per_epoch or len(train) // recipe.batch_size,
        "batch_size": recipe.batch_size,
        "dtype_policy": recipe.dtype_policy,
        "seed": recipe.seed,
        "validation_attack": _attack(recipe.validation_attack),
        "attacks": [_attack(attack) for attack in recipe.attacks],
        "certify": recipe.certify,
        "skip_certified": recipe.skip_certified,
        "smoothing": recipe.smoothing and dataclasses.asdict(recipe.smoothing),
        "threat_models": [threat.model_dump() for threat in recipe.threat_models],
    }
    return json.loads(json.dumps(values))


def finished(resolved: dict, source: str | pathlib.Path | None, history: list[dict]) -> bytes:
    """The content of recipe.json.

    Args:
        resolved: of `resolve`.
        source: the recipe's file, if there is one.
        history: the logs of each epoch.
    """
    told = {
        "source": source and {"file": pathlib.Path(source).name, "sha256": sha256(source)},
        **resolved,
        "history": [{"epoch": epoch, **row} for epoch, row in enumerate(history, start=1)],
    }
    return (json.dumps(told, indent=2) + "\n").encode()


def _examples(part: Examples, seed: int) -> dict:
    """How many there are and a hash of them: where they are read as they are needed, of a sample."""
    if isinstance(part, Dataset):
        return {"n": len(part), "sha256": part.sha256}
    sample = part.sample(min(len(part), _SAMPLE), seed)
    return {"n": len(part), "sample": len(sample), "sample_sha256": sample.sha256}


def _attack(attack: Attack | None) -> dict | None:
    return None if attack is None else {"name": type(attack).__name__, **attack.get_config()}


def _plain(node: Any) -> Any:
    """A configuration of Keras as {"name": class, argument: value}, without the names it counts up in a process."""
    if isinstance(node, dict) and "class_name" in node:
        config = {key: _plain(value) for key, value in node["config"].items() if key != "name"}
        return {"name": node["class_name"], **config}
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _function(function: Callable[..., Any]) -> dict:
    """A function's name, and the arguments that a `functools.partial` gives it; of an object, its configuration."""
    if isinstance(function, functools.partial):
        return {**_function(function.func), **function.keywords}
    if not hasattr(function, "__qualname__") and hasattr(function, "get_config"):
        return {**_function(type(function)), **function.get_config()}
    return {"name": f"{function.__module__}.{function.__qualname__}"}


def _sha256_of_layers(classifier: keras.Model) -> str:
    """Of the layers, their configurations and how they are connected, and of custom layers' code."""
    config = without_names(keras.saving.serialize_keras_object(classifier))
    kinds = [type(layer) for layer in layers_of(classifier)]
    return fingerprint(json.dumps(config, sort_keys=True, default=str), kinds)
