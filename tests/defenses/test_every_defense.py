"""What every defense has to do, on one device and on two."""

import functools
import importlib.util
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import APGD, FGSM, PGD, DeepFool, MomentumIterative
from robust_zoo.datasets import load_dataset
from robust_zoo.testing.defenses import compiled, defense_checks, examples, network

_spec = importlib.util.spec_from_file_location(
    "defense_table", pathlib.Path(__file__).with_name("conftest.py")
)
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)
DEFENSES = table.DEFENSES

every_defense = pytest.mark.parametrize("name", DEFENSES)
# Of those that differ in hyperparameters alone, the one with the most.
every_kind = pytest.mark.parametrize(
    "name", sorted(set(DEFENSES) - {"galloway", "fast", "nfgsm", "weight_decay", "pgn_detached"})
)


def assert_same(first, second, atol=1e-6):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


OPTIONS = {"batch_size": 8, "shuffle": False, "verbose": 0}


@pytest.fixture(scope="module")
def fresh():
    """A compiled trainer as at its start, by defense and optimizer; its steps stay compiled."""
    made = {}

    def get(name, optimizer="sgd", seed=0):
        if (name, optimizer) not in made:
            defense = compiled(DEFENSES[name](network()), optimizer)
            defense.optimizer.build(defense.trainable_variables)
            variables = [*defense.variables, *defense.optimizer.variables]
            values = [ops.convert_to_numpy(variable) for variable in variables]
            made[name, optimizer] = defense, list(zip(variables, values, strict=True))
        defense, start = made[name, optimizer]
        for variable, value in start:
            variable.assign(value)
        defense.classifier.set_weights(network(seed).get_weights())
        return defense

    return get


@pytest.mark.long
@every_defense
def test_two_replicas_equal_one_device(name, strategy, fresh):
    make, start = DEFENSES[name], functools.partial(fresh, name)
    checks = defense_checks(make, strategy=strategy, fresh=start)
    checks["two_replicas_equal_one_device"]()


@pytest.mark.long
@every_kind
@pytest.mark.home
@pytest.mark.parametrize(
    "check",
    [
        "hyperparameters_are_json",
        "training_moves_the_weights",
        "examples_of_weight_zero_do_not_count",
        "saved_and_loaded_it_goes_on",
    ],
)
def test_checks(name, check, fresh):
    defense_checks(DEFENSES[name], fresh=functools.partial(fresh, name))[check]()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kurakin", "trades", "free", "awp", "deepdefense", "pgn"])
@pytest.mark.home
def test_class_weights_are_sample_weights(name, fresh):
    x, y = examples(16)
    weights = np.where(y < 5, 2.0, 0.5).astype("float32")
    by_class = {k: 2.0 if k < 5 else 0.5 for k in range(10)}
    found = []
    for given in ({"sample_weight": weights}, {"class_weight": by_class}):
        defense = fresh(name)
        defense.fit(x, y, **given, **OPTIONS)
        found.append(defense.classifier.get_weights())
    assert_same(*found)
    with pytest.raises(AssertionError):
        assert_same(found[0], network().get_weights())


# Clean and robust accuracy on the validation split of digits after 10 epochs, measured on TensorFlow: the
# network and all random numbers are the same on every backend.
REACHED = {
    "natural": (0.938, 0.119),
    "weight_decay": (0.913, 0.344),
    "madry": (0.919, 0.512),
    "kurakin": (0.931, 0.025),
    "galloway": (0.913, 0.531),
    "fast": (0.887, 0.531),
    "trades": (0.900, 0.744),
    "free": (0.944, 0.525),
    "awp": (0.906, 0.731),
    "deepdefense": (0.938, 0.244),
    "parseval": (0.925, 0.269),
    "fixed_set": (0.938, 0.087),
    "interval_bounds": (0.925, 0.381),
    "crown_ibp": (0.919, 0.356),
    "small_box": (0.869, 0.463),
}


def train(defense, epochs):
    """The classifier's weights after training on digits."""
    data = load_dataset("digits", "train")
    options = {"batch_size": 64, "epochs": epochs, "shuffle": False, "verbose": 0}
    defense.fit(data.images, data.labels, **options)
    return defense.classifier.get_weights()


@pytest.fixture(scope="module")
def after_ten_epochs(fresh):
    """The weights by defense and seed."""
    return functools.cache(lambda name, seed=0: train(fresh(name, "adam", seed), 10))


@pytest.mark.long
@pytest.mark.parametrize("name", REACHED)
def test_every_backend_reaches_the_same_on_digits(name, fresh, after_ten_epochs):
    held = load_dataset("digits", "validation")
    weights = after_ten_epochs(name)
    defense = fresh(name, "adam")
    defense.classifier.set_weights(weights)
    logs = defense.evaluate(held.images, held.labels, batch_size=160, verbose=0, return_dict=True)
    found = logs["accuracy"], logs["robust_accuracy"]
    np.testing.assert_allclose(found, REACHED[name], atol=0.03)


@pytest.mark.long
@every_kind
@pytest.mark.home
def test_mixed_bfloat16_trains(name):
    data, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        defense = compiled(DEFENSES[name](network()), "adam")
    finally:
        keras.config.set_dtype_policy("float32")
    defense.fit(data.images, data.labels, batch_size=64, epochs=6, verbose=0)
    model = defense.classifier
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers if layer.name != "logits"} == {"bfloat16"}
    predicted = ops.convert_to_numpy(model(test.images)).argmax(1)
    assert (predicted == test.labels).mean() > 0.8


def robust_accuracy(model, x, y):
    attack = APGD(epsilon=table.EPSILON, loss="dlr", targets=9)
    return 1 - attack.run(model, x[:60], y[:60], progress=False).success.mean()


def under_pgd(model, x, y):
    attack = PGD(epsilon=table.EPSILON, steps=20)
    return 1 - attack.run(model, x, y, progress=False).success.mean()


def under_fgsm(model, x, y):
    return 1 - FGSM(epsilon=table.EPSILON).run(model, x, y, progress=False).success.mean()


def under_momentum(model, x, y):
    """MIM in L2 at 0.5, as in the PGN paper."""
    attack = MomentumIterative(epsilon=0.5, norm="l2", steps=20, step_size=0.06)
    return 1 - attack.run(model, x, y, progress=False).success.mean()


def rho(model, x, y):
    """Mean size of DeepFool's perturbation relative to the image's (arXiv:1803.00404)."""
    x = x[:100]
    found = DeepFool(steps=5).run(model, x, progress=False)
    return (found.distance / np.sqrt((x**2).sum((1, 2, 3)))).mean()


@pytest.mark.home
class TestRobustOnDigits:
    """Each defense against natural training, by AutoAttack's strongest component or its paper's metric: three seeds."""

    @pytest.fixture(scope="class")
    def measured(self):
        """Takes everybody's weights, so that each attack is compiled once."""
        return network()

    @pytest.fixture(scope="class")
    def natural(self, fresh):
        return [train(fresh("natural", "adam", seed), 20) for seed in range(3)]

    @pytest.fixture(scope="class")
    def test_set(self):
        data = load_dataset("digits", "test")
        return data.images, data.labels

    @pytest.fixture(scope="class")
    def baseline(self, natural, measured, test_set):
        found = {}
        for metric in (robust_accuracy, under_pgd, under_fgsm, under_momentum, rho):
            for weights in natural:
                measured.set_weights(weights)
                found.setdefault(metric, []).append(metric(measured, *test_set))
        return found

    @pytest.mark.long
    @pytest.mark.parametrize(
        ("name", "metric", "margin"),
        [
            ("madry", robust_accuracy, 0.3),
            ("galloway", under_pgd, 0.3),
            ("fast", under_pgd, 0.3),
            ("trades", robust_accuracy, 0.3),
            ("free", under_pgd, 0.3),
            ("awp", under_pgd, 0.3),
            ("kurakin", robust_accuracy, 0.1),
            ("weight_decay", under_pgd, 0.1),
            ("deepdefense", rho, 0.02),
            ("parseval", under_fgsm, 0.03),
            ("fixed_set", rho, 0.015),
            ("pgn_detached", under_momentum, 0.05),
        ],
    )
    def test_margin(
        self, name, metric, margin, baseline, natural, measured, test_set, fresh, after_ten_epochs
    ):
        longer = {"kurakin": 20, "deepdefense": 20, "fixed_set": 5, "pgn_detached": 40}
        for seed in range(3):
            if name in longer:
                defense = fresh(name, "adam", seed)
                if name == "fixed_set":  # fine-tuning, on a set made of these weights
                    defense.classifier.set_weights(natural[seed])
                weights = train(defense, longer[name])
            else:
                weights = after_ten_epochs(name, seed)
            measured.set_weights(weights)
            reached = metric(measured, *test_set)
            print(name, seed, reached, baseline[metric][seed])
            assert reached > baseline[metric][seed] + margin
