"""Writing a checkpoint directory, whose files layout.py names."""

import json
import pathlib

import keras

from robust_zoo.attacks import GeneratorAttack
from robust_zoo.classifier import describe_config, serialise
from robust_zoo.contract import check_classifier
from robust_zoo.copies import agree, copy_state, in_float32, probe_images
from robust_zoo.files import atomic_directory, check_written
from robust_zoo.layers import layers_of
from robust_zoo.places import CONFIG, NOTICE, RECIPE, RECORD
from robust_zoo.record import RecordError, RobustnessRecord
from robust_zoo.report.card import write_card
from robust_zoo.weights import describe_weights, model_files
from robust_zoo.zoo.checkpoint import check_config, load_checkpoint
from robust_zoo.zoo.errors import CheckpointError
from robust_zoo.zoo.generator import generator_files, read_attack
from robust_zoo.zoo.layout import check_target


def save_model(
    model: keras.Model,
    directory: str | pathlib.Path,
    record: RobustnessRecord | None = None,
    *,
    recipe: bytes | None = None,
    attack: GeneratorAttack | None = None,
) -> pathlib.Path:
    """Writes a checkpoint directory atomically.

    A model trained in mixed precision is stored as the float32 model it is measured as. An existing
    checkpoint at `directory` is replaced.

    Args:
        model: functional `keras.Model`, images in [0, 1] to logits, of Keras's own layers and operations.
        directory: where to write.
        record: the record of exactly these weights, from `robust_zoo.evaluate`.
        recipe: content of recipe.json, which `robust_zoo.recipe.run` makes, to keep beside them.
        attack: the trained generator that the model was trained against, `PGN.as_attack()`, to keep beside it;
            `load_attack` reads it.

    Returns:
        The directory, as a `pathlib.Path`.

    Raises:
        TypeError, ValueError: a model that `robust_zoo.contract` refuses.
        CheckpointError: a layer that is not Keras's own, one that a model inside `model` shares with it, or a
            `directory` that holds something else.
        RecordError: a record of other weights.
    """
    model = in_float32(check_classifier(model))
    directory = pathlib.Path(directory)
    config = serialise(model)
    check_config(config, f"model {model.name!r}")
    if record is not None:
        check_record(model, record)
    check_target(directory)
    lean = json.dumps(config).encode()  # before Keras, which empties what it reads
    # Built anew: a compiled model would bring its optimizer into the weights file.
    plain = keras.saving.deserialize_keras_object(config)
    if len([*layers_of(plain)]) != len([*layers_of(model)]):
        raise CheckpointError(
            f"model {model.name!r} shares a layer with a model inside it, which Keras's files cannot say: let the two "
            "be one model."
        )
    copy_state(model, plain)
    files, weights = model_files(plain)
    files[CONFIG] = lean
    if attack is not None:
        files |= generator_files(attack, weights.sha256)
    if recipe is not None:
        files[RECIPE] = recipe
    if record is not None:
        files[RECORD] = record.to_json().encode()
        if record.notice:
            files[NOTICE] = f"{record.notice}\n".encode()
    with atomic_directory(directory) as partial:
        for name, data in files.items():
            (partial / name).write_bytes(data)
            check_written(partial / name, data)
        if record is not None:
            write_card(partial, record)
        _read_back(model, partial)
        if attack is not None:
            read_attack(partial)
    return directory


def _read_back(model: keras.Model, directory: pathlib.Path) -> None:
    """Raises CheckpointError unless what was written loads, and computes what `model` does."""
    images = probe_images(model)
    written = load_checkpoint(directory)
    found, expected = (
        keras.ops.convert_to_numpy(one(images, training=False)) for one in (written, model)
    )
    if not agree(found, expected, within=1e-4):
        raise CheckpointError(
            f"model {model.name!r} does not compute the same after saving and loading: one of its layers keeps "
            "state that its configuration and weights do not hold."
        )


def check_record(model: keras.Model, record: RobustnessRecord) -> None:
    """Raises RecordError unless `record` was measured on exactly this configuration and these weights."""
    parts = (("weights", describe_weights(model)), ("config", describe_config(model)))
    for name, found in parts:
        recorded = getattr(record, name).sha256
        if found.sha256 != recorded:
            raise RecordError(
                f"the record {record.name!r} belongs to {name} {recorded[:12]}, but the model's is "
                f"{found.sha256[:12]}: measure the model as it is now with robust_zoo.evaluate."
            )
