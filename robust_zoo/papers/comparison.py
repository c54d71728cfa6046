"""A paper's table beside ours: measured, and put in words."""

import importlib
from typing import Any

import keras
import pydantic

from robust_zoo.datasets import Examples, is_folder, load_dataset, open_dataset
from robust_zoo.papers.table import Table, find_table
from robust_zoo.record import Accuracy
from robust_zoo.weights import describe_weights
from robust_zoo.zoo import UnknownModelError, load_model

Models = dict[str, keras.Model]


class Comparison(pydantic.BaseModel):
    """A table of a paper and ours; None where there is no number.

    Attributes:
        title: of the experiment.
        source: of the paper's numbers.
        note: on what ours are.
        columns: what is measured.
        rows: by model or attack, the paper's numbers, accuracies in percent, and ours.
        labels: by row, what the paper's numbers are, where they are not its own or not comparable.
        weights: SHA-256 of the weights of each model that was measured.
        missing: models that the zoo does not have.
        n_examples: that ours were measured on, of the test split.
        seed: integer seed for the sample and for all randomness of the attacks.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    title: str
    source: str
    note: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[tuple[float | None, ...], tuple[Accuracy | float | None, ...]]]
    labels: dict[str, str] = {}
    weights: dict[str, str]
    missing: tuple[str, ...]
    n_examples: int
    seed: int


def reproduce(
    name: str, *, n: int | None = None, seed: int = 0, dataset: str | None = None
) -> Comparison:
    """Measures the models of a paper's table.

    Args:
        name: one of `robust_zoo.papers.table.names()`.
        n: test examples, drawn with `seed`, at most the test split; None (default) is the table's own number: all, or
            1,000 where there are attacks with restarts.
        seed: integer seed for the sample and for all randomness of the attacks; default 0.
        dataset: where the images lie, for a table on data that are not free, such as a folder of ImageNet's classes; None
            (default) for all others.

    Returns:
        The paper's numbers and ours; models that the zoo lacks are listed in `missing`.

    Raises:
        ValueError: an unknown name, an `n` out of range, or a dataset that is missing or not asked for.
        DatasetError: a dataset that is not prepared on this machine.
        ImportError: a package is not installed that models are in.
    """
    folder, paper = find_table(name)
    ours: Table = importlib.import_module(f"robust_zoo.papers.{folder}.tables").TABLES[name]
    if bool(ours.dataset) == bool(dataset):
        wanted = (
            f"left out, it is {ours.dataset}" if ours.dataset else "a folder of images, or a name"
        )
        raise ValueError(f"dataset of {name!r} must be {wanted}, got {dataset!r}.")
    models, missing = {}, []
    for model in paper["models"]:
        try:
            models[model] = load_model(model) if ours.load is None else ours.load(model)
        except UnknownModelError:
            missing.append(model)
    if ours.dataset:
        data: Examples = load_dataset(ours.dataset, "test")
    else:
        assert dataset is not None  # refused above
        options: dict[str, Any] = {"image_shape": ours.image_shape}
        if is_folder(dataset):
            options["central_crop"] = ours.central_crop
        data = open_dataset(dataset, "test", **options)
    n = ours.n if n is None else n
    test = (data if n is None else data.sample(n, seed)).take(slice(None))
    nothing = [None] * len(paper["columns"])
    return Comparison(
        title=paper["title"],
        source=paper["source"],
        note=paper["note"],
        columns=paper["columns"],
        rows={
            row: (paper["rows"].get(row, nothing), found)
            for row, found in ours.measure(models, test, seed).items()
        },
        labels=paper.get("labels", {}),
        weights={name: describe_weights(model).sha256 for name, model in models.items()},
        missing=tuple(missing),
        n_examples=len(test),
        seed=seed,
    )


def table(found: Comparison) -> list[tuple[str, ...]]:
    """The rows of a human-readable table: a header, then label, "paper" or "ours", and a cell for each column.

    A single column is split: what is measured, the paper's number, ours. A number with a label of its own, which may
    not be comparable, does not stand beside ours.
    """
    rows = [("", "paper", "ours") if len(found.columns) == 1 else ("", "", *found.columns)]
    for name, (paper, ours) in found.rows.items():
        theirs = tuple("" if value is None else f"{value:g}" for value in paper)
        cells = tuple(map(_cell, ours))
        label = found.labels.get(name)
        if len(found.columns) == 1:
            if label and any(theirs):
                rows.append((f"{name} ({label})", *theirs, ""))
                theirs = ("",)
            rows.append((name, *theirs, *cells))
            continue
        if any(theirs):
            rows.append((name, label or "paper", *theirs))
        rows.append((name, "ours", *cells))
    return rows


def footnote(found: Comparison) -> str:
    """Where the numbers of a comparison come from."""
    missing = f" Not in the zoo: {', '.join(found.missing)}." if found.missing else ""
    return (
        f"Paper: {found.source}. Ours: {found.n_examples} test examples, seed {found.seed}; accuracies in percent "
        f"with 95% intervals. {found.note}{missing}"
    )


def markdown(found: Comparison) -> str:
    """A comparison as a page, with the hashes of the weights that it was measured on."""
    header, *rows = table(found)
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        [
            f"# {found.title}",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            footnote(found),
            "",
            "Measured on these weights:",
            "",
            *(f"- {name}: sha256 {digest}" for name, digest in found.weights.items()),
            "",
        ]
    )


def _cell(value: Accuracy | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    low, high = value.ci95
    return f"{100 * value.accuracy:.2f} ({100 * low:.1f}-{100 * high:.1f})"
