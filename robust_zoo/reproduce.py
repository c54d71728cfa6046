"""The papers' tables beside ours, measured on checkpoints; the papers' numbers are data, in papers.json."""

import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import keras

from robust_zoo.attacks import FGSM, ExtremeWeights
from robust_zoo.datasets import Dataset, load_dataset
from robust_zoo.evaluation import (
    accuracy_columns,
    clean_accuracy,
    deepdefense_metrics,
    transfer_accuracy,
)
from robust_zoo.zoo import UnknownModelError, load_model

_PAPERS = pathlib.Path(__file__).with_name("papers.json")


@dataclass(frozen=True)
class Comparison:
    """A table of a paper and ours; None where there is no number.

    Attributes:
        title: of the experiment.
        source: of the paper's numbers.
        columns: what is measured; accuracies are in percent.
        rows: by model, the paper's numbers and ours.
        missing: models that the zoo does not have.
        n_examples: that ours were measured on, of the test split.
    """

    title: str
    source: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[tuple[float | None, ...], tuple[float | None, ...]]]
    missing: tuple[str, ...]
    n_examples: int


def reproduce(name: str, *, n: int | None = None, seed: int = 0) -> Comparison:
    """Measures the models of a paper's table.

    Args:
        name: one of `names()`.
        n: test examples, drawn with `seed`; None is all.
        seed: of the sample and the attacks.

    Raises:
        ValueError: an unknown name, or an `n` that does not fit.
        DatasetError: data that is not there.
    """
    if name not in _MEASURED:
        raise ValueError(f"name must be one of {names()}, got {name!r}.")
    paper = json.loads(_PAPERS.read_text())[name]
    dataset, measure = _MEASURED[name]
    test = load_dataset(dataset, "test")
    test = test if n is None else test.sample(n, seed)
    models, missing = {}, []
    for row in paper["rows"]:
        try:
            models[row] = load_model(row)
        except UnknownModelError:
            missing.append(row)
    ours = measure(models, test, seed)
    return Comparison(
        title=paper["title"],
        source=paper["source"],
        columns=tuple(paper["columns"]),
        rows={row: (tuple(paper["rows"][row]), ours[row]) for row in models},
        missing=tuple(missing),
        n_examples=len(test),
    )


def names() -> tuple[str, ...]:
    """The experiments that `reproduce` knows."""
    return tuple(_MEASURED)


def _deepdefense(models: dict[str, keras.Model], test: Dataset, seed: int) -> dict[str, tuple]:
    """epsilon_ref is the epsilon_50 of the DeepDefense model of the same architecture."""
    mean = load_dataset("mnist", "train").images.mean(axis=0)
    x, y = test.images, test.labels
    metrics = {name: deepdefense_metrics(model, x, y, mean=mean) for name, model in models.items()}
    found = {}
    for name, model in models.items():
        own = metrics[name]
        reference = metrics.get(f"{name.partition('.')[0]}.deepdefense_mnist")
        parts = (None,) * 3
        if reference is not None and reference.epsilon_50 is not None:
            columns = accuracy_columns(model, x, y, reference.epsilon_50)
            parts = tuple(100 * part.accuracy for part in columns)
        clean = 100 * own.clean.accuracy
        found[name] = (clean, own.rho_2, own.rho_inf, *parts, 255 * own.size_2)
    return found


def _galloway(models: dict[str, keras.Model], test: Dataset, seed: int) -> dict[str, tuple]:
    """L0 n: n pixels of every image set to white, those of the n / 2 largest and n / 2 smallest weights."""
    attacks = [FGSM(epsilon=0.25), *(ExtremeWeights(epsilon=pixels) for pixels in (10, 20, 40, 98))]
    found = {}
    for name, model in models.items():
        clean = clean_accuracy(model, test.images, test.labels).accuracy
        # On the images that the attack ends with; what is wrong to begin with may become right.
        moved = [
            transfer_accuracy(attack, model, model, test.images, test.labels, seed=seed).accuracy
            for attack in attacks
        ]
        found[name] = tuple(100 * number for number in (clean, *moved))
    return found


_MEASURED: dict[str, tuple[str, Callable[..., dict[str, tuple]]]] = {
    "deepdefense-table1": ("mnist", _deepdefense),
    "galloway-logistic": ("mnist:7,3", _galloway),
}
