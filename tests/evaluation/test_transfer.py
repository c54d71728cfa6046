import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import FGSM, PGD, DeepFool
from robust_zoo.evaluation import craft, transfer_accuracy, transfer_matrices


def linear_model(kernel, bias):
    inputs = keras.Input((2, 2, 1))
    outputs = keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.set_weights([np.asarray(kernel, "float32"), np.asarray(bias, "float32")])
    return model


@pytest.fixture
def other():
    kernel = np.random.default_rng(7).normal(size=(4, 3))
    return kernel, -kernel.sum(axis=0) / 2


def fgsm(x, y, kernel, bias, epsilon):
    """In NumPy, on a linear model."""
    flat = x.reshape(len(x), -1)
    z = flat @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return np.clip(flat + epsilon * np.sign((p - np.eye(3)[y]) @ kernel.T), 0, 1)


@pytest.mark.slow
def test_crafted_images_are_the_last_iterates(linear, images):
    model, kernel, bias = linear
    x, y = images(50, (2, 2, 1)), np.arange(50) % 3
    found = craft(FGSM(epsilon=0.1), model, x, y, batch_size=16).reshape(50, -1)
    np.testing.assert_allclose(found, fgsm(x, y, kernel, bias, 0.1), atol=1e-6)
    # Images that are wrong already are moved like the others.
    assert (np.abs(found - x.reshape(50, -1)).max(1) > 0.05).all()
    attack = PGD(epsilon=0.1, steps=3)
    whole = craft(attack, model, x, y, seed=3, batch_size=64)
    np.testing.assert_allclose(craft(attack, model, x, y, seed=3, batch_size=16), whole, atol=1e-6)
    assert np.abs(craft(attack, model, x, y, seed=4) - whole).max() > 1e-3
    predicted = ops.convert_to_numpy(model(x)).argmax(1)
    np.testing.assert_allclose(
        craft(FGSM(epsilon=0.1), model, x), craft(FGSM(epsilon=0.1), model, x, predicted)
    )
    with pytest.raises(TypeError, match="must have a fixed budget, got DeepFool"):
        craft(DeepFool(), model, x, y)


@pytest.mark.slow
def test_crafting_again_compiles_nothing_and_sees_new_weights(linear, images, monkeypatch):
    model, x, y = linear[0], images(20, (2, 2, 1)), np.arange(20) % 3
    attack = PGD(epsilon=0.1, steps=2)
    before = craft(attack, model, x, y)
    model.set_weights([-value for value in model.get_weights()])
    with monkeypatch.context() as patched:
        patched.delattr(backend, "function")
        after = craft(attack, model, x, y, seed=1)
        with pytest.raises(AttributeError):
            craft(attack, model, x)
    fresh = linear_model(*model.get_weights())
    np.testing.assert_allclose(after, craft(attack, fresh, x, y, seed=1), atol=1e-6)
    assert np.abs(after - before).max() > 0.05


def test_an_example_must_withstand_every_restart(linear, other, images):
    source, target = linear[0], linear_model(*other)
    x, y = images(100, (2, 2, 1)), np.arange(100) % 3
    options = {"epsilon": 0.2, "steps": 2}
    right = np.ones(100, dtype=bool)
    for seed in (5, 6, 7):
        moved = craft(PGD(**options), source, x, y, seed=seed)
        right &= ops.convert_to_numpy(target(moved)).argmax(1) == y
    found = transfer_accuracy(PGD(restarts=3, **options), source, target, x, y, seed=5)
    assert found.correct == right.sum()
    assert right.sum() < transfer_accuracy(PGD(**options), source, target, x, y, seed=5).correct


@pytest.mark.slow
def test_matrices_against_numpy(linear, other, images):
    models = {"a": linear[0], "b": linear_model(*other)}
    parts = {"a": linear[1:], "b": other}
    x, y = images(200, (2, 2, 1)), np.arange(200) % 3
    attack = FGSM(epsilon=0.15)
    found = transfer_matrices(attack, models, x, y)
    assert (found.names, found.n_examples) == (("a", "b"), 200)
    for i, source in enumerate("ab"):
        x_adv = fgsm(x, y, *parts[source], 0.15)

        def right(name, images):
            kernel, bias = parts[name]
            return (images.reshape(200, -1) @ kernel + bias).argmax(1) == y

        chosen = right(source, x) & ~right(source, x_adv)
        assert found.kept[i] == chosen.sum() > 10
        for j, target in enumerate("ab"):
            wrong = ~right(target, x_adv)
            assert found.error_rate[i, j] == pytest.approx(wrong.mean(), abs=0.006)
            assert found.transfer_rate[i, j] == pytest.approx(wrong[chosen].mean(), abs=0.03)
            accuracy = transfer_accuracy(attack, models[source], models[target], x, y)
            assert accuracy.accuracy == pytest.approx(1 - found.error_rate[i, j])
    assert (np.diag(found.transfer_rate) == 1).all()


def test_a_source_that_is_never_fooled(linear, images):
    never = linear_model(np.zeros((4, 3)), [9, 0, 0])
    x, y = images(20, (2, 2, 1)), np.zeros(20, "int32")
    found = transfer_matrices(FGSM(epsilon=0.1), {"never": never}, x, y)
    assert found.kept.tolist() == [0]
    assert np.isnan(found.transfer_rate).all()
    assert found.error_rate.tolist() == [[0.0]]
    with pytest.raises(ValueError, match="models must be at least one"):
        transfer_matrices(FGSM(epsilon=0.1), {}, x, y)
