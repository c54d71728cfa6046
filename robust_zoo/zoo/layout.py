"""Checkpoint directories: what may be written into one, and the record in it; places.py names the files."""

import pathlib

from robust_zoo.files import is_scratch
from robust_zoo.places import CONFIG, FILES, RECORD, WEIGHTS
from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo.errors import CheckpointError

_ASSETS = "assets"  # Keras's own empty folder, which may lie in a directory that is replaced


def check_target(directory: str | pathlib.Path) -> None:
    """Raises CheckpointError if `directory` holds anything but a checkpoint, which could be replaced."""
    directory = pathlib.Path(directory)
    found = directory.iterdir() if directory.is_dir() else ()
    names = {path.name for path in found if not is_scratch(path)}
    assets = directory / _ASSETS
    if assets.is_dir() and not any(assets.iterdir()):
        names -= {_ASSETS}
    if directory.is_file() or (names and not {CONFIG, WEIGHTS} <= names <= set(FILES)):
        raise CheckpointError(
            f"{str(directory)!r} exists and is not a checkpoint: it is left alone."
        )


def read_record(directory: pathlib.Path) -> RobustnessRecord:
    """The record of a checkpoint directory; CheckpointError if it has none."""
    if not (directory / RECORD).is_file():
        raise CheckpointError(
            f"{str(directory)!r} has no {RECORD}: its robustness was never measured."
        )
    return RobustnessRecord.read(directory / RECORD)
