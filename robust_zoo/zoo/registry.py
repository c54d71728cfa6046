"""Models by name: what there is, and where it lies. Nothing here imports Keras."""

import difflib
import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pydantic

from robust_zoo.places import RECIPE, RECORD, checkpoints_directory, has_recipe
from robust_zoo.record import RobustnessRecord
from robust_zoo.sentences import one_line
from robust_zoo.zoo import index
from robust_zoo.zoo.errors import CheckpointError, UnknownModelError
from robust_zoo.zoo.layout import read_record

_ZOO = "zoo://"  # before a name that must not be taken for a directory
_HUB = "ROBUST_ZOO_HUB"
_HISTORY = pydantic.TypeAdapter(Annotated[list[dict[str, float]], pydantic.Field(min_length=1)])


def list_models(
    pattern: str = "*",
    *,
    role: Literal["robust", "baseline", "study", "all"] = "robust",
    hub: str | None = None,
    dataset: str | None = None,
    norm: str | None = None,
    defense: str | None = None,
) -> index.ModelList:
    """The models in the zoo or on a hub, the most robust first within dataset and threat model.

    `load_model(entry.name)` loads any of them and `load_record(entry.name)` gives its record: a model on a hub is
    listed under its handle.

    Args:
        pattern: shell-style wildcards over names, such as "*mnist*"; on a hub over the last part of handles.
        role: "robust" are the models to use; "baseline" what they are compared with (natural training, rival
            defenses), "study" those of a study (capacity, copies, failures that prove a point), and "all" every
            model. A hub does not tell roles: all models on it are listed.
        hub: "hf://org" or "file:///path"; None is the zoo. A model on it without a sound record is left out, with
            a warning.
        dataset: keeps the models measured on it.
        norm: keeps the models whose threat model has this norm: "linf", "l2", "l1" or "l0".
        defense: keeps the models whose name has it after the dot ("step_ll", or "pgd" also of pgd_copy), or whose
            defense class has that name ("AdversarialTraining"); case is ignored.

    Raises:
        ValueError: not a hub, not a role or norm, or a dataset or defense that none of the models there has.
        HubError: no such directory, or a hub that does not answer.
    """
    filters: dict[str, Any] = {"role": role, "dataset": dataset, "norm": norm, "defense": defense}
    if hub is None:
        return index.ModelList(index.chosen(index.read_index(), pattern, **filters))
    from robust_zoo.zoo.hub import records_on

    entries = [
        index.IndexEntry.of(record, None, handle=handle)
        for handle, record in records_on(hub, pattern)
    ]
    found = index.chosen(entries, **filters)
    return index.ModelList(entry.model_copy(update={"name": entry.handle}) for entry in found)


def is_handle(text: object) -> bool:
    """Whether `text` names something on a hub, well or badly, and not a directory or a model of the zoo."""
    return isinstance(text, str) and "://" in text and not text.startswith(_ZOO)


def resolve(handle: str | pathlib.Path) -> pathlib.Path | str:
    """The checkpoint directory, or the handle on a hub, of a model's name, path or handle.

    "zoo://name" is only ever a name in the zoo. A model of the zoo that lies on a hub has its record's hash in the
    index behind its handle.

    Raises:
        UnknownModelError: not a name in the zoo, or one whose weights are nowhere.
        CheckpointError: no such directory, a name that is also a directory here, or a model of the zoo whose record
            is not the one in the index.
        ValueError: ROBUST_ZOO_HUB is needed and is no hub.
    """
    if is_handle(handle):
        return handle
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
        check_indexed(directory, read_record(directory))
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
    entries = {entry.name: entry for entry in index.read_index()}
    if own in entries:
        return _on_a_hub(entries[own])
    if a_name and has_recipe(own):
        raise UnknownModelError(
            f"{own!r} has a recipe, but nobody published weights: robust-zoo train {own} --output {own} makes them."
        )
    close = difflib.get_close_matches(str(handle), entries, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(entries)}."
    raise UnknownModelError(f"unknown model {one_line(handle)!r}: {hint}")


def _is_there(path: pathlib.Path, kind: Callable[[pathlib.Path], bool]) -> bool:
    """`kind(path)`, False for what cannot be the name of a file."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def check_indexed(directory: pathlib.Path, record: RobustnessRecord | None) -> None:
    """Raises CheckpointError unless the record of a model of the zoo is the one in the index, if it is there."""
    for entry in index.read_index():
        if entry.name == directory.name and (
            record is None or entry.record_sha256 != record.sha256
        ):
            raise CheckpointError(
                f"the record in {str(directory)!r} is not the one in the zoo's index: it was tampered with, or it is "
                "new, and robust-zoo index writes it there."
            )


def _on_a_hub(entry: index.IndexEntry) -> str:
    """The handle of a model of the zoo whose weights are not on this machine."""
    root = os.environ.get(_HUB, "").rstrip("/")
    if root:
        if not is_handle(root):
            raise ValueError(f"{_HUB} must be hf://org or file:///path, got {one_line(root)!r}.")
        return f"{root}/{entry.name}#{entry.record_sha256}"
    if entry.handle:
        return entry.handle
    raise UnknownModelError(
        f"the weights of {entry.name!r} do not come with the package: give the hub that has them in {_HUB} "
        f"(hf://org or file:///path), take checkpoints/{entry.name} of the project's repository, or make them with "
        f"robust-zoo train {entry.name} --output {entry.name}."
    )


def load_record(handle: str | pathlib.Path) -> RobustnessRecord:
    """Reads the record of a model without loading the model.

    Args:
        handle: a name, checkpoint directory or handle on a hub, see `load_model`.

    Raises:
        UnknownModelError: no such name.
        CheckpointError: no record there, or one that is not that of the index or of the handle.
        RecordError: an unreadable record.
        HubError: no such model or revision on the hub, or a hub that does not answer and nothing in the cache.
        ValueError: a bad handle.
    """
    place = resolve(handle)
    if isinstance(place, pathlib.Path):
        return read_record(place)
    from robust_zoo.zoo import hub

    record, _ = hub.read(place, (RECORD,), read_record)
    hub.check_pin(place, record)
    return record


def load_history(handle: str | pathlib.Path) -> list[dict[str, float]]:
    """The history of a model's training: of each epoch its number ("epoch", from 1) and what Keras logged, by name.

    Args:
        handle: a name, checkpoint directory or handle on a hub, see `load_model`.

    Raises:
        UnknownModelError, HubError, ValueError: see `load_record`.
        CheckpointError: no history there, as of a model that no recipe trained, or one that cannot be read.
    """
    place = resolve(handle)
    if isinstance(place, pathlib.Path):
        return _read_history(place)
    from robust_zoo.zoo import hub

    return hub.read(place, (RECIPE,), _read_history)[0]


def _read_history(directory: pathlib.Path) -> list[dict[str, float]]:
    file = directory / RECIPE
    try:
        told = json.loads(file.read_bytes())["history"]
        return _HISTORY.validate_python(told)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{str(directory)!r} has no history of its training: a recipe that trains it writes one into {RECIPE}."
        ) from error
