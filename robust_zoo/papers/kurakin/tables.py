"""Label leaking of one-step training, on MNIST and CIFAR-10."""

from functools import partial

from robust_zoo.attacks import FGSM, BasicIterative
from robust_zoo.datasets import Dataset
from robust_zoo.evaluation import clean_accuracy, label_leaking, top_k, transfer_accuracy
from robust_zoo.papers.comparison import Models
from robust_zoo.papers.table import Rows, Table

_SOURCES = ("natural", "fgsm", "step_ll")  # of the images that others are tried with


def _leaking(epsilon: float, models: Models, test: Dataset, seed: int) -> Rows:
    step_ll = partial(FGSM, labels="least_likely", targeted=True)
    iterative_ll = BasicIterative(epsilon=epsilon, labels="least_likely", targeted=True)
    without_labels = (FGSM(epsilon=epsilon, labels="predicted"), step_ll(epsilon=epsilon))
    rows: Rows = {}
    for name, model in models.items():
        data = (model, test.images, test.labels)
        one_step = []
        for make_attack in (FGSM, step_ll):
            _, moved = top_k(make_attack, *data, epsilons=[epsilon], k=[1], seed=seed)
            one_step += [moved.accuracy, moved.ratio]
        leaks = [
            label_leaking(FGSM(epsilon=epsilon), other, *data, seed=seed)
            for other in without_labels
        ]
        rows[name] = (
            clean_accuracy(*data),
            *one_step,
            *(
                transfer_accuracy(attack, model, *data, seed=seed)
                for attack in (BasicIterative(epsilon=epsilon), iterative_ll)
            ),
            *(float(found.leaked) for found in leaks),
        )
    return rows


def _with_transfer(models: Models, test: Dataset, seed: int) -> Rows:
    """The same, and accuracy on the FGSM images of each of the sources."""
    epsilon = 8 / 255
    rows = _leaking(epsilon, models, test, seed)
    for kind in _SOURCES:
        source = models.get(f"preact_resnet_w8.{kind}_cifar10")
        for name, model in models.items():
            data = (model, test.images, test.labels)
            rows[name] += (
                source and transfer_accuracy(FGSM(epsilon=epsilon), source, *data, seed=seed),
            )
    return rows


TABLES = {
    "kurakin-leaking": Table("mnist", None, partial(_leaking, 0.3)),
    "kurakin-cifar10": Table("cifar10", None, _with_transfer),
}
