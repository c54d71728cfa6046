"""Models by name: what is there, and how to get it."""

import difflib
import fnmatch
import pathlib
import re
import warnings

import keras

from robust_zoo.attacks import GeneratorAttack
from robust_zoo.attacks.norms import NORMS
from robust_zoo.copies import with_new_head
from robust_zoo.places import checkpoints_directory, recipe_file
from robust_zoo.record import BaseModel, RobustnessRecord
from robust_zoo.sentences import one_line
from robust_zoo.zoo import generator
from robust_zoo.zoo import hub as hubs
from robust_zoo.zoo.checkpoint import (
    MODEL_FILES,
    RECORD,
    load_checkpoint,
    read_attack,
    read_record,
)
from robust_zoo.zoo.errors import CheckpointError, UnknownModelError

_ZOO = "zoo://"  # before a name that must not be taken for a directory


def natural_order(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def list_models(
    pattern: str = "*",
    *,
    hub: str | None = None,
    dataset: str | None = None,
    norm: str | None = None,
    defense: str | None = None,
) -> list[RobustnessRecord]:
    """The records of the models in the zoo or on a hub, in natural order of their names.

    `load_model(record.name)` loads any of them: the record of a model on a hub is listed under its handle.

    Args:
        pattern: shell-style wildcards over names, such as "*mnist*"; on a hub over the last part of handles.
        hub: "hf://org" or "file:///path"; None is the zoo. A model on it without a sound record is left out, with
            a warning.
        dataset: keeps the models measured on it.
        norm: keeps the models whose threat model has this norm, "linf" or "l2".
        defense: keeps the models whose name has it after the dot ("step_ll", or "pgd" also of pgd_copy), or whose
            defense class has that name ("AdversarialTraining"); case is ignored.

    Raises:
        ValueError: not a hub, not a norm, or a dataset or defense that none of the models there has.
        HubError: no such directory, or a hub that does not answer.
        RecordError: an unreadable record in the zoo.
    """
    if hub is None:
        found = [
            (path.parent.name, RobustnessRecord.read(path))
            for path in checkpoints_directory().glob(f"*/{RECORD}")
            if fnmatch.fnmatchcase(path.parent.name, pattern)
        ]
    else:
        found = list(hubs.records_on(hub, pattern))
    if norm not in (None, *NORMS):
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}.")
    filters = (
        ("dataset", dataset, lambda record: {record.dataset.name}),
        ("norm", norm, lambda record: {record.threat_model.norm} if record.threat_model else set()),
        ("defense", defense and defense.lower(), _defense_names),
    )
    for argument, wanted, of in filters:
        there = set().union(*(of(record) for _, record in found))
        if wanted is not None and found and wanted not in there and argument != "norm":
            known = ", ".join(sorted(there))
            raise ValueError(f"{argument} must be one that a model has, {known}, got {wanted!r}.")
        found = [pair for pair in found if wanted is None or wanted in of(pair[1])]
    records = [record.model_copy(update={"name": handle}) for handle, record in found]
    return sorted(records, key=lambda record: natural_order(record.name))


def _defense_names(record: RobustnessRecord) -> set[str]:
    """Of mlp.step_ll_digits: step, step_ll and the defense's class, in small letters."""
    whole = record.name.partition(".")[2].rpartition("_")[0]
    kind = "natural" if record.training else "not recorded"
    kind = record.defense.name if record.defense else kind
    return {whole.partition("_")[0].lower(), whole.lower(), kind.lower()} - {""}


def resolve(handle: str | pathlib.Path) -> pathlib.Path:
    """The checkpoint directory of a model's name or path; "zoo://name" is only ever a name in the zoo.

    Raises:
        UnknownModelError: not a name in the zoo.
        CheckpointError: no such directory, or a name that is also a directory here.
    """
    own = str(handle).removeprefix(_ZOO)
    directory, here = checkpoints_directory() / own, pathlib.Path(handle)
    a_name = bool(re.fullmatch(r"[\w.-]{1,200}", own))
    known = a_name and (directory / RECORD).is_file()
    is_directory = _is_there(here, pathlib.Path.is_dir)
    both = known and isinstance(handle, str) and own == handle and is_directory
    if both and not here.samefile(directory):
        raise CheckpointError(
            f"{handle!r} is both a model of the zoo and a directory here: write './{handle}' for the directory, "
            f"or '{_ZOO}{handle}' for the zoo's model."
        )
    if known and not isinstance(handle, pathlib.Path):
        return directory
    if is_directory:
        return here
    is_model_file = here.suffix.lower() in (".keras", ".h5", ".hdf5")
    if is_model_file and _is_there(here, pathlib.Path.is_file):
        raise CheckpointError(
            f"{str(handle)!r} is a Keras model file, not a checkpoint: robust_zoo.as_classifier("
            f"keras.saving.load_model({str(handle)!r})) makes a classifier of it."
        )
    if isinstance(handle, pathlib.Path) or "/" in str(handle):
        raise CheckpointError(f"no checkpoint directory {one_line(handle)!r}.")
    handle = own
    if a_name and "." in own and recipe_file(own).is_file():
        raise UnknownModelError(
            f"{own!r} has a recipe, but its weights do not come with the package: the project's repository may have "
            f"them, in checkpoints/{own}, and robust-zoo train {own} --output {own} makes them."
        )
    names = [record.name for record in list_models()]
    close = difflib.get_close_matches(str(handle), names, n=3, cutoff=0.4)
    hint = (
        f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(names) or 'none'}."
    )
    raise UnknownModelError(f"unknown model {one_line(handle)!r}: {hint}")


def _is_there(path: pathlib.Path, kind) -> bool:
    """`kind(path)`, False for what cannot be the name of a file."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def load_record(handle: str | pathlib.Path) -> RobustnessRecord:
    """The record of a model by name, directory or handle, without loading the model."""
    if hubs.is_handle(handle):
        record, _ = hubs.read(handle, (RECORD,), read_record)
        hubs.check_pin(handle, record)
        return record
    return read_record(resolve(handle))


def load_attack(handle: str | pathlib.Path) -> GeneratorAttack:
    """The perturbation generator that a model of PGN was trained against, as an attack.

    Args:
        handle: of the model, see `load_model`.

    Raises:
        UnknownModelError: no such name.
        CheckpointError: a model without a generator, or one that is damaged, was tampered with, or asks for code
            outside the built-in layers.
        HubError: see `load_model`.

    Example:
        >>> load_attack("file:///hub/pgn").run(model, x, y).success.mean()
    """
    if hubs.is_handle(handle):
        return hubs.read(handle, (*generator.FILES, *MODEL_FILES), read_attack)[0]
    return read_attack(resolve(handle))


def load_model(handle: str | pathlib.Path, *, num_classes: int | None = None) -> keras.Model:
    """A pretrained robust model, ready to use.

    Args:
        handle: a name from `list_models`, which "zoo://" may stand before, a checkpoint directory, or a handle on a hub: "hf://org/name",
            "hf://org/name@revision" (branch, tag or commit) or "file:///path/name", each with "#" and the record's
            sha256 behind it if no other record will do. Downloads are kept in the Hugging Face client's cache, which
            also serves without a connection.
        num_classes: replaces the last layer by a fresh one of so many logits, for fine-tuning on other
            classes. The record does not hold for the new model and is dropped.

    Returns:
        Functional `keras.Model`, uncompiled: float32 images in [0, 1], NHWC, in; logits out. Its
        `robustness` is the `RobustnessRecord`, or None; its `base_model` says what this is, for the record
        of a model that is fine-tuned from it.

    Raises:
        UnknownModelError: no such name; the message has the closest ones.
        CheckpointError: truncated, tampered with, or asking for code outside the built-in layers.
        RecordError: an unreadable record.
        HubError: no such model or revision on the hub, or a hub that does not answer and nothing in the cache.

    Example:
        >>> model = load_model("mlp.pgd_digits")
        >>> model.robustness.worst_case.accuracy
    """
    if hubs.is_handle(handle):
        model, pinned = hubs.read(handle, (*MODEL_FILES, RECORD), load_checkpoint)
        hubs.check_pin(handle, model.robustness)
        if model.robustness is not None:
            pinned = hubs.with_pin(pinned, model.robustness)
    else:
        model, pinned = load_checkpoint(resolve(handle)), ""
    if model.robustness is None:
        warnings.warn(
            f"{handle} has no {RECORD}: its robustness was never measured, and nothing tells whether these are the "
            "weights that were saved.",
            stacklevel=2,
        )
    model.base_model = _as_base(model.robustness, pinned)
    if num_classes is None:
        return model
    fresh = with_new_head(model, num_classes)
    fresh.robustness, fresh.base_model = None, model.base_model
    if model.robustness is not None:
        warnings.warn(
            f"{model.robustness.name!r} got a new head of {num_classes} classes: its robustness record does "
            "not hold for it and is dropped. Measure the fine-tuned model with robust_zoo.evaluate.",
            stacklevel=2,
        )
    return fresh


def _as_base(record: RobustnessRecord | None, handle: str) -> BaseModel | None:
    if record is None:
        return None
    return BaseModel(name=record.name, weights_sha256=record.weights.sha256, handle=handle)
