"""Table 1 with the supplement, on MNIST."""

from robust_zoo.datasets import Dataset, load_dataset
from robust_zoo.evaluation import accuracy_columns, deepdefense_metrics
from robust_zoo.papers.comparison import Models
from robust_zoo.papers.table import Rows, Table
from robust_zoo.record import Accuracy


def _table1(models: Models, test: Dataset, seed: int) -> Rows:
    """epsilon_ref is the epsilon_50 of the DeepDefense model of the same architecture; epsilon_50 each model's."""
    mean = load_dataset("mnist", "train").images.mean(axis=0)
    x, y = test.images, test.labels
    metrics = {name: deepdefense_metrics(model, x, y, mean=mean) for name, model in models.items()}
    found: Rows = {}
    for name, model in models.items():
        own = metrics[name]
        reference = metrics.get(f"{name.partition('.')[0]}.deepdefense_mnist")
        parts: tuple[Accuracy | None, ...] = (None,) * 3
        if reference is not None and reference.epsilon_50 is not None:
            parts = accuracy_columns(model, x, y, reference.epsilon_50)
        found[name] = (own.clean, own.rho_2, own.rho_inf, *parts, 255 * own.size_2, own.epsilon_50)
    return found


TABLES = {"deepdefense-table1": Table("mnist", None, _table1)}
