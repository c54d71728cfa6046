"""Label leaking of one-step training, on MNIST."""

from functools import partial

from robust_zoo.attacks import FGSM, BasicIterative
from robust_zoo.datasets import Dataset
from robust_zoo.evaluation import clean_accuracy, label_leaking, top_k, transfer_accuracy
from robust_zoo.papers.comparison import Models
from robust_zoo.papers.table import Rows, Table


def _leaking(models: Models, test: Dataset, seed: int) -> Rows:
    step_ll = partial(FGSM, labels="least_likely", targeted=True)
    iterative_ll = BasicIterative(epsilon=0.3, labels="least_likely", targeted=True)
    without_labels = (FGSM(epsilon=0.3, labels="predicted"), step_ll(epsilon=0.3))
    rows = {}
    for name, model in models.items():
        data = (model, test.images, test.labels)
        one_step = []
        for make_attack in (FGSM, step_ll):
            _, moved = top_k(make_attack, *data, epsilons=[0.3], k=[1], seed=seed)
            one_step += [moved.accuracy, moved.ratio]
        leaks = [
            label_leaking(FGSM(epsilon=0.3), other, *data, seed=seed) for other in without_labels
        ]
        rows[name] = (
            clean_accuracy(*data),
            *one_step,
            *(
                transfer_accuracy(attack, model, *data, seed=seed)
                for attack in (BasicIterative(epsilon=0.3), iterative_ll)
            ),
            *(float(found.leaked) for found in leaks),
        )
    return rows


TABLES = {"kurakin-leaking": Table("mnist", None, _leaking)}
