"""Logistic regression on MNIST 3 against 7."""

from robust_zoo.attacks import FGSM, ExtremeWeights
from robust_zoo.datasets import Dataset
from robust_zoo.evaluation import clean_accuracy, transfer_accuracy
from robust_zoo.papers.comparison import Models
from robust_zoo.papers.table import Rows, Table


def _logistic(models: Models, test: Dataset, seed: int) -> Rows:
    made_by = [FGSM(epsilon=0.25), *(ExtremeWeights(epsilon=pixels) for pixels in (10, 20, 40, 98))]
    found: Rows = {}
    for name, model in models.items():
        # On the images that the attack ends with; what is wrong to begin with may become right.
        found[name] = (
            clean_accuracy(model, test.images, test.labels),
            *(
                transfer_accuracy(attack, model, model, test.images, test.labels, seed=seed)
                for attack in made_by
            ),
        )
    return found


TABLES = {"galloway-logistic": Table("mnist:7,3", None, _logistic)}
