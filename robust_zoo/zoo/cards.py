"""Regenerating every card from the records."""

import pathlib

from robust_zoo.files import write_text
from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo.card import model_card, zoo_table
from robust_zoo.zoo.checkpoint import CARD, RECORD, CheckpointError
from robust_zoo.zoo.registry import natural_order


def generate_cards(directory: str | pathlib.Path) -> dict[pathlib.Path, str]:
    """What each checkpoint's README.md and the MODEL_CARDS.md beside `directory` must say.

    Raises:
        CheckpointError: no records in `directory`.
        RecordError: an unreadable one.
    """
    directory = pathlib.Path(directory)
    paths = sorted(directory.glob(f"*/{RECORD}"), key=lambda path: natural_order(path.parent.name))
    if not paths:
        raise CheckpointError(f"no checkpoints with a {RECORD} in {str(directory)!r}.")
    records = [RobustnessRecord.read(path) for path in paths]
    cards = {
        path.with_name(CARD): model_card(record)
        for path, record in zip(paths, records, strict=True)
    }
    return {**cards, directory.resolve().parent / "MODEL_CARDS.md": zoo_table(records)}


def write_cards(directory: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes them; returns the checkpoints' cards."""
    cards = generate_cards(directory)
    for path, text in cards.items():
        write_text(path, text)
    return [path for path in cards if path.name == CARD]
