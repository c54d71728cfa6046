import json

import numpy as np
import pytest

from robust_zoo import architectures, reproduce
from robust_zoo.attacks import FGSM
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import accuracy_columns, craft, deepdefense_metrics
from robust_zoo.recipe import recipes_directory
from robust_zoo.zoo import UnknownModelError


@pytest.fixture
def zoo(monkeypatch):
    """Untrained models by name; the others are not there."""
    models = {}

    def load(name):
        if name not in models:
            raise UnknownModelError(name)
        return models[name]

    monkeypatch.setattr(reproduce, "load_model", load)
    return models


@pytest.mark.mnist
def test_deepdefense(zoo):
    zoo["mlp.natural_mnist"] = natural = architectures.mlp(hidden=(20,))
    zoo["mlp.deepdefense_mnist"] = robust = architectures.mlp(hidden=(30,))
    zoo["lenet.natural_mnist"] = natural  # of an architecture without a DeepDefense model
    found = reproduce.reproduce("deepdefense-table1", n=40, seed=3)
    assert list(found.rows) == ["mlp.natural_mnist", "mlp.deepdefense_mnist", "lenet.natural_mnist"]
    assert "lenet.deepdefense_mnist" in found.missing
    test = load_dataset("mnist", "test").sample(40, 3)
    mean = load_dataset("mnist", "train").images.mean(axis=0)
    metrics = deepdefense_metrics(natural, test.images, test.labels, mean=mean)
    reference = deepdefense_metrics(robust, test.images, test.labels, mean=mean).epsilon_50
    columns = accuracy_columns(natural, test.images, test.labels, reference)
    paper, ours = found.rows["mlp.natural_mnist"]
    assert paper == (98.31, 0.111, 0.0540, 72.76, 29.08, 3.31, 206.96)
    expected = [100 * metrics.clean.accuracy, metrics.rho_2, metrics.rho_inf]
    expected += [*(100 * part.accuracy for part in columns), 255 * metrics.size_2]
    assert ours == pytest.approx(expected)
    assert found.rows["lenet.natural_mnist"][1][3:6] == (None, None, None)  # no reference there
    assert found.n_examples == 40


@pytest.mark.mnist
def test_galloway(zoo):
    zoo["logistic.natural_mnist37"] = model = architectures.logistic()
    found = reproduce.reproduce("galloway-logistic", n=60, seed=1)
    (_, ours) = found.rows["logistic.natural_mnist37"]
    test = load_dataset("mnist:7,3", "test").sample(60, 1)
    kernel = model.get_layer("z").get_weights()[0].ravel()

    def accuracy(images):
        return 100 * np.mean((images.reshape(60, -1) @ kernel > 0) == test.labels)

    assert ours[0] == pytest.approx(accuracy(test.images))
    moved = craft(FGSM(epsilon=0.25), model, test.images, test.labels)
    assert ours[1] == pytest.approx(accuracy(moved))
    order = kernel.argsort()
    for number, half in zip(ours[2:], (5, 10, 20, 49), strict=True):
        white = test.images.copy().reshape(60, -1)
        white[:, [*order[:half], *order[-half:]]] = 1
        assert number == pytest.approx(accuracy(white))


def test_unknown_experiments():
    with pytest.raises(ValueError, match=r"name must be one of \('deepdefense-table1'"):
        reproduce.reproduce("table9")


def test_the_papers_numbers_fit_their_columns():
    tables = json.loads(reproduce._PAPERS.read_text())
    assert set(tables) == set(reproduce.names())
    recipes = {path.stem for path in recipes_directory().glob("*.py")}
    for table in tables.values():
        for name, row in table["rows"].items():
            assert len(row) == len(table["columns"])
            assert name.replace(".", "_") in recipes
