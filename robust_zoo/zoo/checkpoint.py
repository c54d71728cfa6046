"""The checkpoint directory: Keras's own format, plus the record.

    config.json         the model, logits out, built-in layers only
    metadata.json       Keras's version and date
    model.weights.h5    the weights, without an optimizer
    robustness.json     the RobustnessRecord of these weights
    recipe.py           the recipe that trained them, if one did; never run by loading
    README.md           the card, generated from the record
    accuracy.png        its picture of accuracy against epsilon
    generator.*         the perturbation generator that it was trained against, if PGN did (see generator.py)

`keras.saving.load_model(directory)` reads the same model without robust_zoo.
"""

import importlib
import json
import pathlib

import keras

from robust_zoo import architectures
from robust_zoo.attacks import GeneratorAttack
from robust_zoo.classifier import config_sha256, describe_config, serialise
from robust_zoo.contract import check_classifier
from robust_zoo.copies import agree, copy_state, in_float32, probe_images
from robust_zoo.files import atomic_directory, check_written, is_scratch, snapshot
from robust_zoo.record import RecordError, RobustnessRecord
from robust_zoo.sentences import one_line
from robust_zoo.weights import (
    FILE,
    MODEL_FILES,
    check_layout,
    describe_weights,
    model_files,
    sha256,
    stored_dtype,
)
from robust_zoo.zoo import generator
from robust_zoo.zoo.card import CARD, PICTURE, RECIPE, write_card
from robust_zoo.zoo.errors import CheckpointError
from robust_zoo.zoo.records import RECORD

# What makes a checkpoint, and what may lie in a directory that is replaced ("assets" is
# Keras's own empty folder, and pip compiles the recipe of an installed checkpoint).
FILES = (*MODEL_FILES, RECORD, RECIPE, CARD, PICTURE, *generator.FILES)
_REPLACEABLE = {*FILES, "assets", "__pycache__"}

# What a configuration may name: things that Keras itself makes, and none that runs code from the file.
_MODULES = (
    "keras",
    "keras.layers",
    "keras.models",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.quantizers",
    "keras.src.models.functional",
    "keras.src.models.sequential",
)
_KINDS = (
    keras.layers.Layer,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.dtype_policies.DTypePolicy,
    keras.quantizers.Quantizer,
)
if hasattr(keras.quantizers, "QuantizationConfig"):  # since Keras 3.13
    _KINDS += (keras.quantizers.QuantizationConfig,)
# Layers that run code, or read files, that a configuration names; none of them is for images.
_REFUSED = ("Lambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer")
_REFUSED += ("StringLookup", "IntegerLookup", "TextVectorization", "Pipeline")
_DEEPEST = 100  # levels of a configuration; a model in a model in a model has 30
_LONGEST = 2**24  # bytes of one; a PreActResNet-18 has 65,000
_MOST_OBJECTS = 50_000  # in one, of which a layer has about five
_INTERNAL = ("__tuple__", "__keras_tensor__", "__tensor__", "__numpy__")


def save_model(
    model: keras.Model,
    directory: str | pathlib.Path,
    record: RobustnessRecord | None = None,
    *,
    recipe: str | pathlib.Path | None = None,
    attack: GeneratorAttack | None = None,
) -> pathlib.Path:
    """Writes a checkpoint directory, atomically: it is there in full or not at all.

    A model trained in mixed precision is stored as the float32 model it is measured as. An existing
    checkpoint at `directory` is replaced.

    Args:
        model: functional `keras.Model`, images in [0, 1] to logits, built-in layers only.
        directory: where to write.
        record: the record of exactly these weights, from `robust_zoo.evaluate`.
        recipe: Python file of the recipe that trained them, to keep beside them.
        attack: the trained generator that the model was trained against, `PGN.as_attack()`, to keep beside it;
            `load_attack` reads it.

    Raises:
        TypeError, ValueError: a model that `robust_zoo.contract` refuses.
        CheckpointError: a layer that is not built in, or a `directory` that holds something else.
        RecordError: a record of other weights.
        FileNotFoundError: no such recipe.
    """
    model = in_float32(check_classifier(model))
    directory = pathlib.Path(directory)
    config = serialise(model)
    _check_config(config, f"model {model.name!r}")
    if record is not None:
        check_record(model, record)
    check_target(directory)
    lean = json.dumps(config).encode()  # before Keras, which empties what it reads
    # Built anew: a compiled model would bring its optimizer into the weights file.
    plain = keras.saving.deserialize_keras_object(config)
    copy_state(model, plain)
    files, weights = model_files(plain)
    files["config.json"] = lean
    if attack is not None:
        files |= generator.generator_files(attack, weights.sha256)
    if recipe is not None:
        files[RECIPE] = pathlib.Path(recipe).read_bytes()
    if record is not None:
        files[RECORD] = record.to_json().encode()
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


def check_target(directory: str | pathlib.Path) -> None:
    """Raises CheckpointError if `directory` holds anything but a checkpoint, which could be replaced."""
    directory = pathlib.Path(directory)
    found = directory.iterdir() if directory.is_dir() else ()
    names = {path.name for path in found if not is_scratch(path)}
    if directory.is_file() or (names and not {"config.json", FILE} <= names <= _REPLACEABLE):
        raise CheckpointError(
            f"{str(directory)!r} exists and is not a checkpoint: it is left alone."
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


def load_checkpoint(directory: str | pathlib.Path) -> keras.Model:
    """Reads a checkpoint directory after checking it; see `robust_zoo.load_model`.

    Raises:
        CheckpointError: something is missing, truncated, tampered with, or asks for code outside the
            built-in layers (which is never run).
        RecordError: an unreadable record.
        OSError: files that cannot be read, or no space for a copy of them.
    """
    return _read(directory, (*MODEL_FILES, RECORD), _load)


def _read(directory: str | pathlib.Path, names: tuple[str, ...], load):
    """`load` of a copy of a directory's files, of one version, so that what is checked is what is used."""
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise CheckpointError(f"no checkpoint directory {str(directory)!r}.")
    with snapshot(directory, names) as copy:
        try:
            return load(copy)
        except (CheckpointError, RecordError) as error:
            message = str(error).replace(str(copy), str(directory))
            raise type(error)(message) from error.__cause__


def _load(directory: pathlib.Path) -> keras.Model:
    _check_files(directory)
    config = _read_json(directory / "config.json")
    written_by = one_line(_read_json(directory / "metadata.json").get("keras_version"), 20)
    record = None
    if (directory / RECORD).is_file():
        record = RobustnessRecord.read(directory / RECORD)
        digests = {record.weights: sha256(directory / FILE), record.config: config_sha256(config)}
        for part, digest in digests.items():
            if digest != part.sha256:
                raise CheckpointError(
                    f"{str(directory / part.file)!r} is truncated or was tampered with: its sha256 is "
                    f"{digest[:12]}, the record's is {part.sha256[:12]}."
                )
    _check_config(config, str(directory / "config.json"))
    try:
        check_layout(directory / FILE)
        model = keras.saving.load_model(directory, compile=False, safe_mode=True)
        check_classifier(model)
    except Exception as error:  # whatever a damaged file makes Keras and h5py stumble over
        raise CheckpointError(
            f"{str(directory)!r} cannot be loaded by Keras {keras.__version__} (Keras {written_by} wrote it): "
            f"{one_line(_cause(error))}."
        ) from error
    if record is not None:
        _check_description(model, record, directory)
    model.robustness = record
    return model


def _cause(error: Exception) -> str:
    """What Keras stumbled over, which it says behind whole configurations."""
    return str(error).rpartition("Exception encountered: ")[2]


def _check_description(
    model: keras.Model, record: RobustnessRecord, directory: pathlib.Path
) -> None:
    """Raises CheckpointError unless what the record says of the model is so."""
    weights = directory / FILE
    found = {
        "num_classes": (record.num_classes, model.output_shape[1]),
        "input.shape": (record.input.shape, tuple(model.input_shape[1:])),
        "parameters": (record.parameters, model.count_params()),
        "weights.bytes": (record.weights.bytes, weights.stat().st_size),
        "weights.dtype": (record.weights.dtype, stored_dtype(weights)),
    }
    for name, (said, is_) in found.items():
        if said != is_:
            raise CheckpointError(
                f"{str(directory / RECORD)!r} says {name} {said}, but the model has {is_}: it was tampered with."
            )


def read_attack(directory: pathlib.Path) -> GeneratorAttack:
    """The trained generator of a checkpoint directory; CheckpointError as `robust_zoo.load_attack` has it."""
    names = (*generator.FILES, FILE)
    return _read(
        directory, names, lambda copy: generator.read_generator(copy, _read_json, _check_config)
    )


def _check_files(directory: pathlib.Path) -> None:
    for name in MODEL_FILES:
        if not (directory / name).is_file():
            raise CheckpointError(f"{str(directory)!r} is not a checkpoint: it has no {name}.")


def _read_json(path: pathlib.Path) -> dict:
    size = path.stat().st_size
    if size > _LONGEST:
        raise CheckpointError(f"{str(path)!r} has {size:,} bytes, more than {_LONGEST:,}.")
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError(f"it holds {type(value).__name__}, not an object")
        depth, objects = _extent(value)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is not valid JSON: {one_line(error)}.") from None
    if depth > _DEEPEST:
        raise CheckpointError(f"{str(path)!r} is nested {depth} levels deep, more than {_DEEPEST}.")
    if objects > _MOST_OBJECTS:
        raise CheckpointError(
            f"{str(path)!r} describes {objects:,} layers and their parts, more than {_MOST_OBJECTS:,}."
        )
    return value


def _extent(value) -> tuple[int, int]:
    """How deep JSON is nested, and how many objects of a class are in it."""
    depth, objects, level = 0, 0, [value]
    while level:
        depth += 1
        objects += sum(isinstance(node, dict) and "class_name" in node for node in level)
        level = [
            item
            for node in level
            if isinstance(node, (dict, list))
            for item in (node.values() if isinstance(node, dict) else node)
        ]
    return depth, objects


def _check_config(node, source: str) -> None:
    """Refuses any class that Keras does not make itself, before anything is deserialised."""
    if isinstance(node, list):
        for item in node:
            _check_config(item, source)
    if not isinstance(node, dict):
        return
    if "class_name" in node:
        name, module = node["class_name"], node.get("module")
        if name not in _INTERNAL and not _is_built_in(name, module, node.get("registered_name")):
            raise CheckpointError(
                f"{source} asks for {one_line(module or 'an unknown module')}.{one_line(name)}: only built-in "
                "Keras layers are ever loaded or saved."
            )
    for value in node.values():
        _check_config(value, source)


def _is_built_in(name, module, registered) -> bool:
    if name == "ReluDecay":
        return registered == "robust_zoo>ReluDecay" and module == architectures.ReluDecay.__module__
    if module not in _MODULES or name in _REFUSED or registered not in (None, name):
        return False
    found = getattr(importlib.import_module(module), str(name), None)
    return isinstance(found, type) and issubclass(found, _KINDS)
