"""What every defense has to do, on one device and on two."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool, MomentumIterative
from robust_zoo.datasets import load_dataset

_spec = importlib.util.spec_from_file_location(
    "defense_table", pathlib.Path(__file__).with_name("conftest.py")
)
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)
DEFENSES, compiled, network = table.DEFENSES, table.compiled, table.network
Batches = table.Batches

every_defense = pytest.mark.parametrize("name", DEFENSES)


def batches(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, 8, 8, 1)).astype("float32"), rng.integers(0, 10, n).astype("int32")


def assert_same(first, second, atol=1e-6):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


OPTIONS = {"batch_size": 8, "shuffle": False, "verbose": 0}

OPTIMIZERS = {"sgd": lambda: "sgd", "adam": lambda: keras.optimizers.Adam(3e-3)}


@pytest.fixture(scope="module")
def fresh():
    """A compiled trainer as at its start, by defense and optimizer; its steps stay compiled."""
    made = {}

    def get(name, optimizer="sgd", seed=0):
        if (name, optimizer) not in made:
            defense = compiled(DEFENSES[name](network()), OPTIMIZERS[optimizer]())
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


@every_defense
def test_two_replicas_equal_one_device(name, strategy, fresh):
    """Same seed and data, random starts included: weights within 1e-6 after 3 steps, logs within 1e-5."""
    x, y = batches(24)
    weights = np.linspace(0.5, 1.5, 24, dtype="float32")
    options = {"sample_weight": weights, "validation_data": (x[:16], y[:16]), **OPTIONS}
    one = fresh(name)
    alone = one.fit(x, y, **options).history
    with strategy.scope():
        two = compiled(DEFENSES[name](network()))
    shared = two.fit(x, y, **options).history
    assert_same(one.classifier.get_weights(), two.classifier.get_weights())
    moved = [
        np.abs(a - b).max()
        for a, b in zip(one.classifier.get_weights(), network().get_weights(), strict=True)
    ]
    assert max(moved) > 1e-3
    names = {"loss", "accuracy", "robust_accuracy"}
    assert set(alone) == names | {f"val_{name}" for name in names}
    for metric, values in alone.items():
        np.testing.assert_allclose(shared[metric], values, atol=1e-5, err_msg=metric)


@every_defense
@pytest.mark.home
def test_saving_and_loading_goes_on_as_if_nothing_happened(name, tmp_path, fresh):
    x, y = batches(16)
    defense = fresh(name, "adam")

    def fit(defense, x, y):
        if name == "fixed_set":  # not to be made once more
            return defense.fit(Batches(x, y), shuffle=False, verbose=0)
        return defense.fit(x, y, **OPTIONS)

    if name == "fixed_set":
        x = defense.training_images(x, y)
    fit(defense, x, y)
    defense.save(tmp_path / "defense.keras")
    fit(defense, x, y)
    revived = keras.saving.load_model(tmp_path / "defense.keras")
    assert type(revived) is type(defense)
    assert revived.hyperparameters() == defense.hyperparameters()
    fit(revived, x, y)
    assert_same(revived.get_weights(), defense.get_weights())


@every_defense
@pytest.mark.home
def test_an_example_of_weight_zero_does_not_count(name, fresh):
    x, y = batches(8)
    weights = np.where(np.arange(8) % 4 < 2, 1.0, 0.0).astype("float32")

    def trained(images, weights):
        defense = fresh(name)
        defense.fit(images, y, sample_weight=weights, epochs=2, **OPTIONS)
        return defense.classifier.get_weights()

    mixed = [np.where(weights[:, None, None, None] > 0, x, batches(8, k)[0]) for k in (1, 2)]
    assert_same(*(trained(images, weights) for images in mixed))
    with pytest.raises(AssertionError):
        assert_same(*(trained(images, np.ones_like(weights)) for images in mixed))


@pytest.mark.parametrize("name", ["kurakin", "trades", "free", "awp", "deepdefense", "pgn"])
@pytest.mark.home
def test_class_weights_are_sample_weights(name, fresh):
    x, y = batches(16)
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
}


@pytest.mark.parametrize("name", REACHED)
def test_every_backend_reaches_the_same_on_digits(name, fresh):
    data, held = load_dataset("digits", "train"), load_dataset("digits", "validation")
    defense = fresh(name, "adam")
    options = {"batch_size": 64, "epochs": 10, "shuffle": False, "verbose": 0}
    defense.fit(data.images, data.labels, **options)
    logs = defense.evaluate(held.images, held.labels, batch_size=160, verbose=0, return_dict=True)
    found = logs["accuracy"], logs["robust_accuracy"]
    np.testing.assert_allclose(found, REACHED[name], atol=0.03)


@every_defense
@pytest.mark.home
def test_mixed_bfloat16_trains(name):
    data, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        defense = compiled(DEFENSES[name](network()), keras.optimizers.Adam(3e-3))
    finally:
        keras.config.set_dtype_policy("float32")
    defense.fit(data.images, data.labels, batch_size=64, epochs=6, verbose=0)
    model = defense.classifier
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers if layer.name != "logits"} == {"bfloat16"}
    predicted = ops.convert_to_numpy(model(test.images)).argmax(1)
    assert (predicted == test.labels).mean() > 0.8


def train(defense, epochs=20):
    """The classifier's weights after training on digits."""
    data = load_dataset("digits", "train")
    options = {"batch_size": 64, "epochs": epochs, "shuffle": False, "verbose": 0}
    defense.fit(data.images, data.labels, **options)
    return defense.classifier.get_weights()


def robust_accuracy(model, x, y):
    attack = AutoAttack(epsilon=table.EPSILON)
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
    """Each defense against natural training, by AutoAttack or its own paper's metric: three seeds."""

    @pytest.fixture(scope="class")
    def measured(self):
        """Takes everybody's weights, so that each attack is compiled once."""
        return network()

    @pytest.fixture(scope="class")
    def natural(self, fresh):
        return [train(fresh("natural", "adam", seed)) for seed in range(3)]

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
    def test_margin(self, name, metric, margin, baseline, natural, measured, test_set, fresh):
        epochs = {"fixed_set": 5, "pgn_detached": 40}.get(name, 20)
        for seed in range(3):
            defense = fresh(name, "adam", seed)
            if name == "fixed_set":  # fine-tuning, on a set made of these weights
                defense.classifier.set_weights(natural[seed])
            measured.set_weights(train(defense, epochs))
            reached = metric(measured, *test_set)
            print(name, seed, reached, baseline[metric][seed])
            assert reached > baseline[metric][seed] + margin
