import numpy as np
from keras import ops

from robust_zoo.attacks.labels import choose_labels
from robust_zoo.backend import random

LOGITS = np.tile(np.array([[0.0, 3.0, -1.0, 2.0]], "float32"), (600, 1))
Y = np.zeros(600, "int32")


def chosen(policy):
    keys = random.fold_in(random.key(0), np.arange(600))
    found = choose_labels(policy, ops.convert_to_tensor(LOGITS), ops.convert_to_tensor(Y), keys)
    return ops.convert_to_numpy(found)


def test_policies():
    assert set(chosen("true")) == {0}
    assert set(chosen("predicted")) == {1}
    assert set(chosen("least_likely")) == {2}


def test_random_labels_are_uniform_over_the_classes_not_predicted():
    labels, counts = np.unique(chosen("random"), return_counts=True)
    assert labels.tolist() == [0, 2, 3]
    assert counts.min() > 150
