"""What a paper's table is, and the numbers of the papers. Nothing here imports Keras."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from robust_zoo.record import Accuracy

Rows = dict[str, tuple[Accuracy | float | None, ...]]
"""By model or attack, a number a column."""


class Table(NamedTuple):
    """How a table is measured; `TABLES` of a paper's tables.py has them by name.

    Attributes:
        dataset: name for `load_dataset`; "" if whoever measures has to say where it lies.
        n: test examples unless asked otherwise; None is all.
        measure: makes `Rows` of models by name, the test examples (a `Dataset`) and a seed.
        load: makes a model, by name, that is none of the zoo; None (default) where all are.
        image_shape: (height, width, channels) that the images of a folder get; by default their own.
        central_crop: of a folder, see `open_dataset`.
    """

    dataset: str
    n: int | None
    measure: Callable[[dict[str, Any], Any, int], Rows]
    load: Callable[[str], Any] | None = None
    image_shape: tuple[int, int, int] | None = None
    central_crop: float = 1.0


def papers() -> dict[str, dict[str, dict]]:
    """The papers' numbers, from each paper.json, by the paper's folder and the table's name.

    A table has "title", "source" and "note", "columns", "models" (those measured, by name), and "rows": numbers by
    model or attack, accuracies in percent, null where the paper has none. Its "labels", if any, are by row what
    stands there in place of "paper": where the numbers are not the paper's own, or not comparable with ours.
    """
    files = sorted(pathlib.Path(__file__).parent.glob("*/paper.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def names() -> tuple[str, ...]:
    """The tables that `reproduce` knows."""
    return tuple(sorted(name for tables in papers().values() for name in tables))


def find_table(name: str) -> tuple[str, dict]:
    """The folder of the paper that has a table, and its numbers.

    Raises:
        ValueError: an unknown name.
    """
    for paper, tables in papers().items():
        if name in tables:
            return paper, tables[name]
    raise ValueError(f"name must be one of {names()}, got {name!r}.")
