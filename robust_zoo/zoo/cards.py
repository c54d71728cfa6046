"""Regenerating every card from the records."""

import pathlib

from robust_zoo.files import write_text
from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo.card import CARD, write_card, zoo_table
from robust_zoo.zoo.checkpoint import RECORD
from robust_zoo.zoo.errors import CheckpointError
from robust_zoo.zoo.registry import natural_order


def write_cards(directory: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes each checkpoint's card and the MODEL_CARDS.md beside `directory`; returns the checkpoints' cards.

    Raises:
        CheckpointError: no records in `directory`.
        RecordError: an unreadable one; nothing is written.
    """
    directory = pathlib.Path(directory)
    paths = sorted(directory.glob(f"*/{RECORD}"), key=lambda path: natural_order(path.parent.name))
    if not paths:
        raise CheckpointError(f"no checkpoints with a {RECORD} in {str(directory)!r}.")
    records = [RobustnessRecord.read(path) for path in paths]
    for path, record in zip(paths, records, strict=True):
        write_card(path.parent, record)
    write_text(directory.resolve().parent / "MODEL_CARDS.md", zoo_table(records))
    return [path.with_name(CARD) for path in paths]
