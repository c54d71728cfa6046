"""What holds for every attack, by its name on the command line."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import ATTACKS, AutoAttack, FixedBudgetAttack, MinimumNormAttack
from robust_zoo.attacks.norms import get_norm
from robust_zoo.backend import random

CLASSES = 4
FAST = {
    "apgd-t": {"steps": 12, "targets": 2},
    "fab-t": {"steps": 5, "targets": 2},
    "carlini-wagner": {"steps": 20, "binary_search_steps": 3},
    "deepfool": {"steps": 10},
    "jsma": {"gamma": 0.5},
    "square": {"steps": 12},
}


def small(name, norm=None, epsilon=0.1):
    """The attack with few steps, in a norm if it has it, else in its own."""
    kind = ATTACKS[name].func
    values = dict(FAST.get(name, {}))
    if norm in kind.norms and "norm" not in ATTACKS[name].keywords:
        values["norm"] = norm
    if issubclass(kind, FixedBudgetAttack):
        values["epsilon"] = 4.0 if "l0" in kind.norms else epsilon
    attack = ATTACKS[name](**values)
    if name not in FAST and "steps" in attack.get_config():
        attack = attack.replace(steps=3)
    return attack


def network(shape, classes, seed):
    """A small network with weights that do not depend on the backend."""
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(3, 2, padding="same", activation="tanh")(inputs)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=value.shape) for value in model.get_weights()])
    return model


def linear(shape, seed):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=value.shape) for value in model.get_weights()])
    return model


def model_for(name, shape, seed=0):
    return linear(shape, seed) if name == "extreme-weights" else network(shape, CLASSES, seed)


NAMES = sorted(set(ATTACKS) - {"autoattack"})  # which is made of the others
FIXED = [name for name in NAMES if issubclass(ATTACKS[name].func, FixedBudgetAttack)]
MINIMUM = [name for name in NAMES if issubclass(ATTACKS[name].func, MinimumNormAttack)]
SHAPES = [(2, 3, 1), (5, 5, 3), (4, 7, 2)]
_models = {}


def cached(name, shape):
    # One model for each shape, so that hypothesis does not compile the same attack again and again.
    linear_one = name == "extreme-weights"
    return _models.setdefault((linear_one, shape), model_for(name, shape))


@settings(max_examples=40 if backend.name == "tensorflow" else 15, deadline=None)
@given(
    name=st.sampled_from(FIXED),
    shape=st.sampled_from(SHAPES),
    norm=st.sampled_from(["linf", "l2"]),
    epsilon=st.floats(1e-3, 0.9),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    n=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_fixed_budget_attacks_stay_in_their_ball_and_in_range(
    name, shape, norm, epsilon, dtype, n, seed
):
    model, attack = cached(name, shape), small(name, norm, epsilon)
    rng = np.random.default_rng(seed)
    x = rng.random((n, *shape)).astype(dtype)
    y = rng.integers(0, model.output_shape[1], n)
    result = attack.run(model, x, y, seed=seed, batch_size=4)
    clean = x.astype("float32")
    assert result.x_adv.dtype == np.float32
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    difference = (result.x_adv.astype("float64") - clean).reshape(n, -1)
    order = {"linf": np.inf, "l2": 2, "l0": 0}[attack.norm]
    length = np.linalg.norm(difference, ord=order, axis=1)
    assert length.max() <= attack.epsilon * (1 + 1e-5) + 1e-7
    np.testing.assert_allclose(length, result.distance, atol=1e-12)
    predicted = ops.convert_to_numpy(model(result.x_adv)).argmax(1)
    if not attack.reaches_given_labels:
        np.testing.assert_array_equal(result.success, predicted != y)


@pytest.mark.parametrize("name", MINIMUM)
def test_minimum_norm_attacks_report_what_a_forward_pass_confirms(name):
    model, attack = cached(name, (5, 5, 3)), small(name)
    x = np.random.default_rng(1).random((12, 5, 5, 3)).astype("float32")
    clean = ops.convert_to_numpy(model(x)).argmax(1)
    result = attack.run(model, x, clean, batch_size=4)
    predicted = ops.convert_to_numpy(model(result.x_adv)).argmax(1)
    np.testing.assert_array_equal(result.success, predicted != clean)
    assert result.success.any()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    np.testing.assert_array_equal(result.x_adv[~result.success], x[~result.success])
    distance = get_norm(attack.norm).distance(result.x_adv, x)
    np.testing.assert_allclose(result.distance, distance)
    assert (distance[result.success] > 0).all()


@pytest.mark.home
@pytest.mark.parametrize("name", NAMES)
def test_nothing_depends_on_the_batch_size(name):
    model, attack = cached(name, (5, 5, 3)), small(name, epsilon=0.05)
    x = np.random.default_rng(2).random((9, 5, 5, 3)).astype("float32")
    y = ops.convert_to_numpy(model(x)).argmax(1)
    one, many = (attack.run(model, x, y, batch_size=size, seed=5) for size in (2, 64))
    np.testing.assert_array_equal(one.success, many.success)
    np.testing.assert_allclose(one.x_adv, many.x_adv, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_pure_call_gives_images_of_the_same_kind(name):
    model, attack = cached(name, (5, 5, 3)), small(name)
    x = ops.convert_to_tensor(np.random.default_rng(3).random((5, 5, 5, 3)).astype("float32"))
    y = ops.argmax(model(x), axis=1)
    found = ops.convert_to_numpy(attack(model, x, y, key=random.key(0)))
    assert found.shape == tuple(x.shape)
    assert found.min() >= 0
    assert found.max() <= 1
    run = attack.run(model, ops.convert_to_numpy(x), ops.convert_to_numpy(y))
    if isinstance(attack, MinimumNormAttack):
        np.testing.assert_allclose(found, run.x_adv, atol=1e-4)
    else:
        distance = attack.geometry.distance(found, ops.convert_to_numpy(x))
        assert distance.max() <= attack.allowed_distance


@pytest.mark.home
@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_is_wrong_already_stays_as_it_is(name):
    model, attack = cached(name, (2, 3, 1)), small(name)
    x = np.random.default_rng(4).random((5, 2, 3, 1)).astype("float32")
    classes = model.output_shape[1]
    wrong = (ops.convert_to_numpy(model(x)).argmax(1) + 1) % classes
    result = attack.run(model, x, wrong)
    if name == "deepfool":  # looks at the predicted label alone
        assert (result.distance[result.success] > 0).all()
        result = attack.replace(labels="true").run(model, x, wrong)
    assert result.success.all()
    np.testing.assert_array_equal(result.x_adv, x)


@pytest.mark.home
@pytest.mark.parametrize("name", NAMES)
def test_constant_images(name):
    model, attack = cached(name, (2, 3, 1)), small(name)
    x = np.broadcast_to(np.float32([0, 0.5, 1])[:, None, None, None], (3, 2, 3, 1))
    result = attack.run(model, x)
    assert np.isfinite(result.x_adv).all()
    assert np.isfinite(result.distance).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch_is_refused(name):
    with pytest.raises(ValueError, match="images must not be empty"):
        small(name).run(cached(name, (2, 3, 1)), np.zeros((0, 2, 3, 1), "float32"))


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attacks_are_immutable_and_round_trip_through_their_configuration(name):
    attack = AutoAttack(epsilon=0.1) if name == "autoattack" else small(name)
    assert type(attack).from_config(json.loads(json.dumps(attack.get_config()))) == attack
    revived = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack))
    assert revived == attack
    with pytest.raises(AttributeError):
        attack.norm = "l2"
    for key in attack.get_config():
        assert f"{key}=" in repr(attack)


def verdicts():
    """Per example, whether each attack fooled the fixed models and at what distance."""
    x = np.random.default_rng(6).random((24, 5, 5, 3)).astype("float32")
    found = {}
    for name in NAMES:
        model = model_for(name, (5, 5, 3), seed=3)
        y = ops.convert_to_numpy(model(x)).argmax(1)
        result = small(name, epsilon=0.02).run(model, x, y, batch_size=16)
        found[name] = [result.success.tolist(), result.distance.tolist()]
    return found


def _other_backend():
    import importlib.util

    own = keras.config.backend()
    for name in ("tensorflow", "jax"):
        if name != own and importlib.util.find_spec(name):
            return name
    return None


@pytest.mark.skipif(_other_backend() is None, reason="only one of TensorFlow and JAX is installed")
def test_backends_give_the_same_verdicts():
    environment = {**os.environ, "KERAS_BACKEND": _other_backend()}
    run = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=True, env=environment
    )
    theirs = json.loads(run.stdout.splitlines()[-1])
    ours = verdicts()
    assert set(theirs) == set(ours)
    broken = 0
    for name, (success, distance) in ours.items():
        assert success == theirs[name][0], name
        np.testing.assert_allclose(distance, theirs[name][1], rtol=2e-3, atol=1e-5, err_msg=name)
        broken += sum(success)
    assert 0 < broken < 24 * len(ours)


if __name__ == "__main__":
    print(json.dumps(verdicts()))
