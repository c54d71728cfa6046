"""Regenerating every card from the records."""

import pathlib

from robust_zoo.files import write_text
from robust_zoo.places import CARD, RECORD
from robust_zoo.record import RobustnessRecord
from robust_zoo.report.card import costs_table, readme_table, write_card, zoo_table
from robust_zoo.report.plots import compare_models, is_picture_of
from robust_zoo.zoo.errors import CheckpointError
from robust_zoo.zoo.index import IndexEntry, chosen, natural_order, read_index

# Between these lines of README.md and training/README.md beside the checkpoints stand tables of models.
_BEGIN, _END = "<!-- robust-zoo cards: begin -->\n", "<!-- robust-zoo cards: end -->\n"
_COMPARED = "madry_cnn."  # how the models are called that the README compares in a picture


def write_cards(directory: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes each checkpoint's card, and beside `directory` MODEL_CARDS.md and what the READMEs show of them.

    The table of README.md has the robust models, ranked as in `list_models`.

    README.md and training/README.md get their tables if they have the lines to put them between; the first then
    gets a picture in docs/ too.

    Returns:
        The checkpoints' cards.

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
    root = directory.resolve().parent
    write_text(root / "MODEL_CARDS.md", zoo_table(records))
    _replace_table(root / "training" / "README.md", costs_table(records))
    by_name = {record.name: record for record in records}
    known = {entry.name: entry.role for entry in read_index()}
    entries = [IndexEntry.of(record, known.get(record.name, "robust")) for record in records]
    robust = [by_name[entry.name] for entry in chosen(entries, role="robust")]
    if _replace_table(root / "README.md", readme_table(robust)):
        _draw_models(root / "docs" / "accuracy.png", records)
    return [path.with_name(CARD) for path in paths]


def _replace_table(readme: pathlib.Path, table: str) -> bool:
    """Whether there is a place for the table in that file."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        return False
    write_text(readme, before + begin + table + end + after)
    return True


def _draw_models(picture: pathlib.Path, records: list[RobustnessRecord]) -> None:
    compared = [record for record in records if record.name.startswith(_COMPARED) and record.curve]
    if compared and not is_picture_of(compared, picture):
        picture.parent.mkdir(exist_ok=True)
        compare_models(compared, picture, title="Madry's MNIST network under PGD")
