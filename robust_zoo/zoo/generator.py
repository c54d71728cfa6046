"""A trained perturbation generator beside the model that it was trained against, as an attack that loads.

generator.json          its configuration, the scale of the gradients it sees, and the hashes of its weights and the model's
generator.weights.h5    its weights
"""

import json
import math
import pathlib

import keras

from robust_zoo.attacks import GeneratorAttack
from robust_zoo.classifier import serialise
from robust_zoo.places import GENERATOR, GENERATOR_FILES, GENERATOR_WEIGHTS, MODEL_FILES, WEIGHTS
from robust_zoo.sentences import one_line
from robust_zoo.weights import model_files, sha256
from robust_zoo.zoo import hub
from robust_zoo.zoo.checkpoint import cause_of, check_config, read_copy, read_json, read_model
from robust_zoo.zoo.errors import CheckpointError
from robust_zoo.zoo.registry import resolve


def load_attack(handle: str | pathlib.Path) -> GeneratorAttack:
    """The perturbation generator that a model of PGN was trained against, as an attack.

    Args:
        handle: of the model, see `load_model`.

    Raises:
        UnknownModelError: no such name.
        CheckpointError: a model without a generator, or one that is damaged, was tampered with, or asks for code
            outside Keras's own layers.
        HubError: see `load_model`.

    Example:
        >>> load_attack("file:///hub/pgn").run(model, x, y)  # doctest: +SKIP
        AttackResult(n=1000, success=0.9700, max_distance=0.61, seconds=2.1)
    """
    place = resolve(handle)
    if isinstance(place, str):  # a handle
        return hub.read(place, (*GENERATOR_FILES, *MODEL_FILES), read_attack)[0]
    return read_attack(place)


def read_attack(directory: pathlib.Path) -> GeneratorAttack:
    """The trained generator of a checkpoint directory; CheckpointError as `load_attack` has it."""
    return read_copy(directory, (*GENERATOR_FILES, WEIGHTS), _read_attack)


def generator_files(attack: GeneratorAttack, model_sha256: str) -> dict[str, bytes]:
    """The two files of an attack, by name; `model_sha256` is that of its model's weights file."""
    files, weights = model_files(attack.generator)
    told = {
        "config": serialise(attack.generator),
        "gradient_scale": attack.gradient_scale,
        "weights_sha256": weights.sha256,
        "model_sha256": model_sha256,
    }
    return {
        GENERATOR: (json.dumps(told, indent=2) + "\n").encode(),
        GENERATOR_WEIGHTS: files[WEIGHTS],
    }


def _read_attack(directory: pathlib.Path) -> GeneratorAttack:
    if not all((directory / name).is_file() for name in GENERATOR_FILES):
        raise CheckpointError(
            f"{str(directory)!r} has no generator: only models trained by PGN have one."
        )
    told = read_json(directory / GENERATOR)
    expected = {"config", "gradient_scale", "weights_sha256", "model_sha256"}
    if set(told) != expected:
        raise CheckpointError(
            f"{str(directory / GENERATOR)!r} must hold {', '.join(sorted(expected))}, it holds "
            f"{one_line(sorted(told))}."
        )
    scale = told["gradient_scale"]
    if not isinstance(scale, float) or not (scale >= 0 and math.isfinite(scale)):
        raise CheckpointError(
            f"gradient_scale in {str(directory / GENERATOR)!r} must be a number >= 0, it is {one_line(scale)}."
        )
    if not (directory / WEIGHTS).is_file() or sha256(directory / WEIGHTS) != told["model_sha256"]:
        raise CheckpointError(
            f"{str(directory / GENERATOR)!r} belongs to another model: the sha256 of {WEIGHTS} is not that in it."
        )
    if sha256(directory / GENERATOR_WEIGHTS) != told["weights_sha256"]:
        raise CheckpointError(
            f"{str(directory / GENERATOR_WEIGHTS)!r} is truncated or was tampered with: its sha256 is not that in {GENERATOR}."
        )
    check_config(told["config"], str(directory / GENERATOR))
    try:
        generator = read_model(told["config"], directory / GENERATOR_WEIGHTS)
        return GeneratorAttack(generator=generator, gradient_scale=scale)
    except Exception as error:  # whatever a damaged file makes Keras and h5py stumble over
        raise CheckpointError(
            f"the generator of {str(directory)!r} cannot be loaded by Keras {keras.__version__}: {one_line(cause_of(error))}."
        ) from error
