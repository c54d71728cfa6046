"""The same examples in every form that Keras's `fit` takes are trained on alike."""

import contextlib

import keras
import numpy as np
import pytest

from robust_zoo import architectures
from robust_zoo.attacks import PGD
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.testing.defenses import Batches


def stream(x, y, **options):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8, **options)


TRAINED = {
    "arrays": lambda x, y: ((x, y), {"batch_size": 8}),
    "float64": lambda x, y: ((x.astype("float64"), y), {"batch_size": 8}),
    "labels in a column": lambda x, y: ((x, y[:, None]), {"batch_size": 8}),
    "images in a list": lambda x, y: (([x], y), {"batch_size": 8}),
    "images in a dictionary": lambda x, y: (({"image": x}, y), {"batch_size": 8}),
    "weights": lambda x, y: ((x, y), {"batch_size": 8, "sample_weight": np.ones((len(x), 1))}),
    "tf.data": lambda x, y: ((stream(x, y),), {}),
    "tf.data of dictionaries": lambda x, y: (
        (
            stream(x, y, drop_remainder=True).map(
                lambda images, labels: ({"image": images}, labels)
            ),
        ),
        {},
    ),
    "PyDataset": lambda x, y: ((Batches(x, y),), {}),
    "generator": lambda x, y: (
        (iter([Batches(x, y)[k] for k in range(6)]),),
        {"steps_per_epoch": 6},
    ),
}


def train(form, scope=None):
    data = load_dataset("digits")
    with scope or contextlib.nullcontext():
        keras.utils.set_random_seed(0)
        model = architectures.mlp((8, 8, 1), hidden=(16,))
        trainer = AdversarialTraining(model, attack=PGD(epsilon=0.05, steps=2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trainer.compile(keras.optimizers.SGD(0.1), loss)
    data, options = TRAINED[form](data.images[:48], data.labels[:48])
    trainer.fit(*data, epochs=1, shuffle=False, verbose=0, **options)
    return trainer.classifier.get_weights()


@pytest.fixture(scope="module")
def expected():
    return train("arrays")


@pytest.mark.slow
@pytest.mark.parametrize("form", [form for form in TRAINED if form != "arrays"])
def test_trained_alike(form, expected):
    for one, other in zip(expected, train(form), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["arrays", "tf.data of dictionaries"])
def test_trained_alike_on_two_replicas(form, expected, strategy):
    for one, other in zip(expected, train(form, strategy.scope()), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)
