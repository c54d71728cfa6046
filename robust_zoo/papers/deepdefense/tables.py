"""Table 1 with the supplement, on MNIST and on CIFAR-10."""

from typing import Any

from robust_zoo.datasets import Dataset, load_dataset
from robust_zoo.evaluation import accuracy_columns, deepdefense_metrics
from robust_zoo.papers.comparison import Models
from robust_zoo.papers.table import Rows, Table
from robust_zoo.record import Accuracy


def _mnist(models: Models, test: Dataset, seed: int) -> Rows:
    mean = load_dataset("mnist", "train").images.mean(axis=0)
    return _rows(models, test, "mnist", mean=mean)


def _cifar10(models: Models, test: Dataset, seed: int) -> Rows:
    rows = _rows(models, test, "cifar10", behind="whitening")
    pixels = {
        name: deepdefense_metrics(model, test.images, test.labels).rho_2
        for name, model in models.items()
    }
    return {name: (*row, pixels[name]) for name, row in rows.items()}


def _rows(
    models: Models,
    test: Dataset,
    dataset: str,
    *,
    mean: Any = 0.0,
    behind: str | None = None,
) -> Rows:
    """epsilon_ref is the epsilon_50 of the DeepDefense model of the same architecture; epsilon_50 each model's."""
    data = (test.images, test.labels)
    metrics = {
        name: deepdefense_metrics(model, *data, mean=mean, behind=behind)
        for name, model in models.items()
    }
    found: Rows = {}
    for name, model in models.items():
        own = metrics[name]
        reference = metrics.get(f"{name.partition('.')[0]}.deepdefense_{dataset}")
        parts: tuple[Accuracy | None, ...] = (None,) * 3
        if reference is not None and reference.epsilon_50 is not None:
            parts = accuracy_columns(model, *data, reference.epsilon_50, behind=behind)
        found[name] = (own.clean, own.rho_2, own.rho_inf, *parts, 255 * own.size_2, own.epsilon_50)
    return found


TABLES = {
    "deepdefense-table1": Table("mnist", None, _mnist),
    "deepdefense-cifar10": Table("cifar10", None, _cifar10),
}
