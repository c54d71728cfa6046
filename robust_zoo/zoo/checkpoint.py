"""Reading a checkpoint directory, whose files layout.py names, without running untrusted code."""

import importlib
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import keras
from keras.src.backend.common import global_state

from robust_zoo import architectures
from robust_zoo.classifier import config_sha256
from robust_zoo.contract import check_classifier
from robust_zoo.files import snapshot
from robust_zoo.places import CONFIG, METADATA, MODEL_FILES, RECORD, WEIGHTS
from robust_zoo.record import Configuration, RecordError, RobustnessRecord, Weights
from robust_zoo.sentences import one_line
from robust_zoo.weights import check_layout, sha256, stored_dtype
from robust_zoo.zoo.errors import CheckpointError

_T = TypeVar("_T")

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
    # What `x + y` or keras.ops.relu(x) is in a functional model; those of keras.src.ops.core call functions.
    "keras.src.ops.image",
    "keras.src.ops.linalg",
    "keras.src.ops.math",
    "keras.src.ops.nn",
    "keras.src.ops.numpy",
)
_KINDS: tuple[type, ...] = (
    keras.Operation,  # a layer, too
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.dtype_policies.DTypePolicy,
    keras.quantizers.Quantizer,
)
if hasattr(keras.quantizers, "QuantizationConfig"):  # since Keras 3.13
    _KINDS += (keras.quantizers.QuantizationConfig,)
# Layers that run code, or read files, that a configuration names; none of them is for images.
_REFUSED = (
    *("Lambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer"),
    *("StringLookup", "IntegerLookup", "TextVectorization", "Pipeline", "JVP"),
)
_DEEPEST = 100  # levels of a configuration; a model in a model in a model has 30
_LONGEST = 2**22  # bytes of one; a PreActResNet-18 has 65,000
_MOST_OBJECTS = 8_000  # in one, of which a layer has about four
_FEW_WEIGHTS = (
    10**6
)  # that a model may have beside those in its file: seeds, low-rank updates that were merged
_INTERNAL = (
    *("__tuple__", "__slice__", "__ellipsis__"),
    *("__keras_tensor__", "__tensor__", "__numpy__"),
)


def load_checkpoint(directory: str | pathlib.Path) -> keras.Model:
    """Reads a checkpoint directory after checking it; see `robust_zoo.load_model`.

    Raises:
        CheckpointError: something is missing, truncated, tampered with, or asks for code outside the
            Keras's own layers and operations (which is never run).
        RecordError: an unreadable record.
        OSError: files that cannot be read, or no space for a copy of them.
    """
    return read_copy(directory, (*MODEL_FILES, RECORD), _load)


def read_copy(
    directory: str | pathlib.Path, names: tuple[str, ...], load: Callable[[pathlib.Path], _T]
) -> _T:
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
    config = read_json(directory / CONFIG)
    written_by = one_line(read_json(directory / METADATA).get("keras_version"), 20)
    record = None
    if (directory / RECORD).is_file():
        record = RobustnessRecord.read(directory / RECORD)
        size = (directory / WEIGHTS).stat().st_size
        if size != record.weights.bytes:
            raise CheckpointError(
                f"{str(directory / WEIGHTS)!r} is truncated or was tampered with: it has {size:,} bytes, the record "
                f"says {record.weights.bytes:,}."
            )
        digests: dict[Weights | Configuration, str] = {
            record.weights: sha256(directory / WEIGHTS),
            record.config: config_sha256(config),
        }
        for part, digest in digests.items():
            if digest != part.sha256:
                raise CheckpointError(
                    f"{str(directory / part.file)!r} is truncated or was tampered with: its sha256 is "
                    f"{digest[:12]}, the record's is {part.sha256[:12]}."
                )
    check_config(config, str(directory / CONFIG))
    try:
        model = read_model(config, directory / WEIGHTS)
        check_classifier(model)
    except Exception as error:  # whatever a damaged file makes Keras and h5py stumble over
        raise CheckpointError(
            f"{str(directory)!r} cannot be loaded by Keras {keras.__version__} (Keras {written_by} wrote it): "
            f"{one_line(cause_of(error))}."
        ) from error
    if record is not None:
        _check_description(model, record, directory)
    model.robustness = record
    return model


def read_model(config: dict, weights: pathlib.Path) -> keras.Model:
    """The model of a checked configuration with the weights of a file.

    Raises:
        ValueError: weights that are not stored in the file, or a configuration of far more weights than are in it,
            for which no memory is taken.
        Exception: whatever a damaged file makes Keras and h5py stumble over.
    """
    stored = check_layout(weights)
    try:
        # Inside, variables have shapes but no values.
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        needed = sum(math.prod(variable.shape) for variable in model.variables)
        if needed > 2 * stored + _FEW_WEIGHTS:
            raise ValueError(
                f"the configuration needs {needed:,} weights, but {weights.name!r} holds {stored:,}"
            )
        with keras.StatelessScope():  # at its end Keras gives them their first values
            pass
    finally:
        global_state.set_global_attribute("uninitialized_variables", [])
    model.load_weights(weights)
    return model


def cause_of(error: Exception) -> str:
    """What Keras stumbled over, which it says behind whole configurations."""
    return str(error).rpartition("Exception encountered: ")[2]


def _check_description(
    model: keras.Model, record: RobustnessRecord, directory: pathlib.Path
) -> None:
    """Raises CheckpointError unless what the record says of the model is so."""
    found = {
        "num_classes": (record.num_classes, model.output_shape[1]),
        "input.shape": (record.input.shape, tuple(model.input_shape[1:])),
        "parameters": (record.parameters, model.count_params()),
        "weights.dtype": (record.weights.dtype, stored_dtype(directory / WEIGHTS)),
    }
    for name, (said, is_) in found.items():
        if said != is_:
            raise CheckpointError(
                f"{str(directory / RECORD)!r} says {name} {said}, but the model has {is_}: it was tampered with."
            )


def _check_files(directory: pathlib.Path) -> None:
    for name in MODEL_FILES:
        if not (directory / name).is_file():
            raise CheckpointError(f"{str(directory)!r} is not a checkpoint: it has no {name}.")


def read_json(path: pathlib.Path) -> dict:
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


def _extent(value: Any) -> tuple[int, int]:
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


def check_config(node: Any, source: str) -> None:
    """Refuses any class that Keras does not make itself, before anything is deserialised."""
    if isinstance(node, list):
        for item in node:
            check_config(item, source)
    if not isinstance(node, dict):
        return
    if "class_name" in node:
        name, module = node["class_name"], node.get("module")
        if name not in _INTERNAL and not _is_built_in(name, module, node.get("registered_name")):
            raise CheckpointError(
                f"{source} asks for {one_line(module or 'an unknown module')}.{one_line(name)}: only "
                "Keras's own layers and operations are ever loaded or saved."
            )
    for value in node.values():
        check_config(value, source)


def _is_built_in(name: Any, module: Any, registered: Any) -> bool:
    if name in ("BinaryDense", "ReluDecay", "ZCAWhitening"):
        own = getattr(architectures, name)
        return registered == f"robust_zoo>{name}" and module == own.__module__
    if module not in _MODULES or name in _REFUSED or registered not in (None, name):
        return False
    found = getattr(importlib.import_module(module), str(name), None)
    return isinstance(found, type) and issubclass(found, _KINDS)
