"""Models by name: what is there, and how to get it."""

import difflib
import fnmatch
import pathlib
import re
import warnings

import keras

from robust_zoo.classifier import with_new_head
from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo.checkpoint import RECORD, CheckpointError, load_checkpoint


class UnknownModelError(ValueError):
    """A name that no model has; the message gives the closest ones."""


def checkpoints_directory() -> pathlib.Path:
    """Where the models of the zoo lie: inside the installed package, else beside it in a checkout."""
    package = pathlib.Path(__file__).resolve().parents[1]
    inside = package / "checkpoints"
    return inside if inside.is_dir() else package.parent / "checkpoints"


def natural_order(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def list_models(
    pattern: str = "*",
    *,
    dataset: str | None = None,
    norm: str | None = None,
    defense: str | None = None,
) -> list[RobustnessRecord]:
    """The records of the models in the zoo, in natural order of their names.

    Args:
        pattern: shell-style wildcards over names, such as "*mnist*".
        dataset: keeps the models measured on it.
        norm: keeps the models whose threat model has this norm, "linf" or "l2".
        defense: keeps the models whose name has it after the dot ("pgd"), or whose defense class has
            that name ("AdversarialTraining"); case is ignored.
    """
    names = sorted(
        (path.parent.name for path in checkpoints_directory().glob(f"*/{RECORD}")),
        key=natural_order,
    )
    records = [load_record(name) for name in names if fnmatch.fnmatchcase(name, pattern)]
    return [
        record
        for record in records
        if (dataset is None or record.dataset.name == dataset)
        and (norm is None or (record.threat_model and record.threat_model.norm == norm))
        and (defense is None or defense.lower() in _defense_names(record))
    ]


def _defense_names(record: RobustnessRecord) -> set[str]:
    short = record.name.partition(".")[2].partition("_")[0]
    full = record.defense.name if record.defense else "natural"
    return {short.lower(), full.lower()}


def resolve(handle: str | pathlib.Path) -> pathlib.Path:
    """The checkpoint directory of a model's name or path.

    Raises:
        UnknownModelError: neither a directory nor a name in the zoo.
    """
    directory = checkpoints_directory() / str(handle)
    if re.fullmatch(r"[\w.-]+", str(handle)) and (directory / RECORD).is_file():
        return directory
    if pathlib.Path(handle).is_dir():
        return pathlib.Path(handle)
    if isinstance(handle, pathlib.Path) or "/" in str(handle):
        raise CheckpointError(f"no checkpoint directory {str(handle)!r}.")
    names = [record.name for record in list_models()]
    close = difflib.get_close_matches(str(handle), names, n=3, cutoff=0.4)
    hint = (
        f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(names) or 'none'}."
    )
    raise UnknownModelError(f"unknown model {str(handle)!r}: {hint}")


def load_record(handle: str | pathlib.Path) -> RobustnessRecord:
    """The record of a model by name or directory, without loading the model."""
    path = resolve(handle) / RECORD
    if not path.is_file():
        raise CheckpointError(
            f"{str(path.parent)!r} has no {RECORD}: its robustness was never measured."
        )
    return RobustnessRecord.read(path)


def load_model(handle: str | pathlib.Path, *, num_classes: int | None = None) -> keras.Model:
    """A pretrained robust model, ready to use.

    Args:
        handle: a name from `list_models`, or a checkpoint directory.
        num_classes: replaces the last layer by a fresh one of so many logits, for fine-tuning on other
            classes. The record does not hold for the new model and is dropped.

    Returns:
        Functional `keras.Model`, uncompiled: float32 images in [0, 1], NHWC, in; logits out. Its
        `robustness` is the `RobustnessRecord`, or None.

    Raises:
        UnknownModelError: no such name; the message has the closest ones.
        CheckpointError: truncated, tampered with, or asking for code outside the built-in layers.
        RecordError: an unreadable record.

    Example:
        >>> model = load_model("mlp.pgd_digits")
        >>> model.robustness.worst_case.accuracy
    """
    model = load_checkpoint(resolve(handle))
    if num_classes is None:
        return model
    fresh = with_new_head(model, num_classes)
    fresh.robustness = None
    if model.robustness is not None:
        warnings.warn(
            f"{model.robustness.name!r} got a new head of {num_classes} classes: its robustness record does "
            "not hold for it and is dropped. Measure the fine-tuned model with robust_zoo.evaluate.",
            stacklevel=2,
        )
    return fresh
