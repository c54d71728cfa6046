"""The record in a checkpoint directory."""

import pathlib

from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo.errors import CheckpointError

RECORD = "robustness.json"


def read_record(directory: pathlib.Path) -> RobustnessRecord:
    """The record of a checkpoint directory; CheckpointError if it has none."""
    if not (directory / RECORD).is_file():
        raise CheckpointError(
            f"{str(directory)!r} has no {RECORD}: its robustness was never measured."
        )
    return RobustnessRecord.read(directory / RECORD)
