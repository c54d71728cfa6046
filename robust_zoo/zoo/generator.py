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
from robust_zoo.sentences import one_line
from robust_zoo.weights import FILE, check_layout, model_files, sha256
from robust_zoo.zoo.errors import CheckpointError

CONFIG, WEIGHTS = "generator.json", "generator.weights.h5"
FILES = (CONFIG, WEIGHTS)


def generator_files(attack: GeneratorAttack, model_sha256: str) -> dict[str, bytes]:
    """The two files of an attack, by name; `model_sha256` is that of its model's weights file."""
    files, weights = model_files(attack.generator)
    told = {
        "config": serialise(attack.generator),
        "gradient_scale": attack.gradient_scale,
        "weights_sha256": weights.sha256,
        "model_sha256": model_sha256,
    }
    return {CONFIG: (json.dumps(told, indent=2) + "\n").encode(), WEIGHTS: files[FILE]}


def read_generator(directory: pathlib.Path, read_json, check_config) -> GeneratorAttack:
    """The attack of a directory.

    Args:
        directory: that has the two files, and the weights of the model.
        read_json: reads a file of JSON, or raises CheckpointError.
        check_config: raises CheckpointError for a configuration that asks for anything but built-in layers.

    Raises:
        CheckpointError: no generator, or one that is damaged, was tampered with or asks for other code.
    """
    if not all((directory / name).is_file() for name in FILES):
        raise CheckpointError(
            f"{str(directory)!r} has no generator: only models trained by PGN have one."
        )
    told = read_json(directory / CONFIG)
    expected = {"config", "gradient_scale", "weights_sha256", "model_sha256"}
    if set(told) != expected:
        raise CheckpointError(
            f"{str(directory / CONFIG)!r} must hold {', '.join(sorted(expected))}, it holds "
            f"{one_line(sorted(told))}."
        )
    scale = told["gradient_scale"]
    if not isinstance(scale, float) or not (scale > 0 and math.isfinite(scale)):
        raise CheckpointError(
            f"gradient_scale in {str(directory / CONFIG)!r} must be a number > 0, it is {one_line(scale)}."
        )
    if not (directory / FILE).is_file() or sha256(directory / FILE) != told["model_sha256"]:
        raise CheckpointError(
            f"{str(directory / CONFIG)!r} belongs to another model: the sha256 of {FILE} is not that in it."
        )
    if sha256(directory / WEIGHTS) != told["weights_sha256"]:
        raise CheckpointError(
            f"{str(directory / WEIGHTS)!r} is truncated or was tampered with: its sha256 is not that in {CONFIG}."
        )
    check_config(told["config"], str(directory / CONFIG))
    try:
        check_layout(directory / WEIGHTS)
        generator = keras.saving.deserialize_keras_object(told["config"], safe_mode=True)
        generator.load_weights(directory / WEIGHTS)
        return GeneratorAttack(generator=generator, gradient_scale=scale)
    except Exception as error:  # whatever a damaged file makes Keras and h5py stumble over
        raise CheckpointError(
            f"the generator of {str(directory)!r} cannot be loaded: {one_line(error)}."
        ) from error
