"""The checkpoint directory: Keras's own format, plus the record.

    config.json         the model, logits out, built-in layers only
    metadata.json       Keras's version and date
    model.weights.h5    the weights, without an optimizer
    robustness.json     the RobustnessRecord of these weights
    README.md           the card, generated from the record

`keras.saving.load_model(directory)` reads the same model without robust_zoo.
"""

import contextlib
import json
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator

import keras

from robust_zoo import architectures
from robust_zoo.classifier import in_float32, serialise
from robust_zoo.contract import check_classifier
from robust_zoo.record import RecordError, RobustnessRecord
from robust_zoo.weights import FILE, describe_weights, sha256, write_weights
from robust_zoo.zoo.card import model_card

RECORD = "robustness.json"
CARD = "README.md"

# What a configuration may name: things that Keras itself makes, and none that runs code from the file.
_MODULES = (
    "keras",
    "keras.layers",
    "keras.models",
    "keras.activations",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.src.models.functional",
    "keras.src.models.sequential",
    "builtins",
)
_OWN = {f"robust_zoo>{architectures.ReluDecay.__name__}"}
_CODE = {"Lambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer", "function"}


class CheckpointError(ValueError):
    """A directory that is not a sound checkpoint; the message says what is wrong with it."""


def save_model(
    model: keras.Model, directory: str | pathlib.Path, record: RobustnessRecord | None = None
) -> pathlib.Path:
    """Writes a checkpoint directory, atomically: it is there in full or not at all.

    A model trained in mixed precision is stored as the float32 model it is measured as. An existing
    checkpoint at `directory` is replaced.

    Args:
        model: functional `keras.Model`, images in [0, 1] to logits, built-in layers only.
        directory: where to write.
        record: the record of exactly these weights, from `robust_zoo.evaluate`.

    Raises:
        TypeError, ValueError: a model that `robust_zoo.contract` refuses.
        CheckpointError: a layer that is not built in, or a `directory` that holds something else.
        RecordError: a record of other weights.
    """
    model = in_float32(check_classifier(model))
    directory = pathlib.Path(directory)
    config = serialise(model)
    _check_config(config, f"model {model.name!r}")
    if record is not None:
        check_record(model, record)
    if directory.is_file() or (
        directory.is_dir() and any(directory.iterdir()) and not (directory / FILE).is_file()
    ):
        raise CheckpointError(
            f"{str(directory)!r} exists and is not a checkpoint: it is left alone."
        )
    with _atomic_directory(directory) as partial:
        # Built anew: a compiled model would bring its optimizer into the weights file.
        plain = keras.saving.deserialize_keras_object(config)
        plain.set_weights(model.get_weights())
        keras.saving.save_model(plain, partial, zipped=False)
        shutil.rmtree(partial / "assets", ignore_errors=True)
        write_weights(plain, partial / FILE)
        if record is not None:
            (partial / RECORD).write_text(record.to_json(), encoding="utf-8")
            (partial / CARD).write_text(model_card(record), encoding="utf-8")
    return directory


def check_record(model: keras.Model, record: RobustnessRecord) -> None:
    """Raises RecordError unless `record` was measured on exactly the weights that `model` has."""
    weights = describe_weights(model)
    if weights.sha256 != record.weights.sha256:
        raise RecordError(
            f"the record {record.name!r} belongs to weights {record.weights.sha256[:12]}, but the model's are "
            f"{weights.sha256[:12]}: measure the model as it is now with robust_zoo.evaluate."
        )


def load_checkpoint(directory: str | pathlib.Path) -> keras.Model:
    """Reads a checkpoint directory after checking it; see `robust_zoo.load_model`.

    Raises:
        CheckpointError: something is missing, truncated, tampered with, or asks for code outside the
            built-in layers (which is never run).
        RecordError: an unreadable record.
    """
    directory = pathlib.Path(directory)
    _check_files(directory)
    record = None
    if (directory / RECORD).is_file():
        record = RobustnessRecord.read(directory / RECORD)
        digest = sha256(directory / FILE)
        if digest != record.weights.sha256:
            raise CheckpointError(
                f"{str(directory / FILE)!r} is truncated or was tampered with: its sha256 is {digest[:12]}, the "
                f"record's is {record.weights.sha256[:12]}."
            )
    _check_config(_read_json(directory / "config.json"), str(directory / "config.json"))
    try:
        model = keras.saving.load_model(directory, compile=False, safe_mode=True)
    except (
        Exception
    ) as error:  # Keras and h5py raise whatever a damaged file makes them stumble over
        sentence = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{str(directory)!r} cannot be loaded: {sentence}") from error
    check_classifier(model)
    model.robustness = record
    return model


def _check_files(directory: pathlib.Path) -> None:
    if not directory.is_dir():
        raise CheckpointError(f"no checkpoint directory {str(directory)!r}.")
    for name in ("config.json", "metadata.json", FILE):
        if not (directory / name).is_file():
            raise CheckpointError(f"{str(directory)!r} is not a checkpoint: it has no {name}.")


def _read_json(path: pathlib.Path):
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} is not valid JSON: {error}.") from None


def _check_config(node, source: str) -> None:
    """Refuses any class that Keras does not make itself, before anything is deserialised."""
    if isinstance(node, list):
        for item in node:
            _check_config(item, source)
    if not isinstance(node, dict):
        return
    if "class_name" in node:
        name, module = node["class_name"], node.get("module")
        registered = node.get("registered_name")
        internal = name in ("__tuple__", "__keras_tensor__", "__tensor__", "__numpy__")
        built_in = module in _MODULES and name not in _CODE and registered in (None, name)
        if not (internal or built_in or registered in _OWN):
            raise CheckpointError(
                f"{source} asks for {module or 'an unknown module'}.{name}: only built-in Keras layers "
                "are ever loaded or saved."
            )
    for value in node.values():
        _check_config(value, source)


@contextlib.contextmanager
def _atomic_directory(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory to fill, put in the place of `directory` at the end; nothing is left on an error."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
        partial = pathlib.Path(scratch) / "new"
        partial.mkdir()
        yield partial
        if directory.exists():
            directory.rename(pathlib.Path(scratch) / f"old-{uuid.uuid4().hex}")
        partial.rename(directory)
