"""Steps in bfloat16, verdicts in float32."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo.attacks import APGD, FAB, PGD, AutoAttack, CarliniWagner, DeepFool, Square
from robust_zoo.attacks.run import bfloat16_copy
from robust_zoo.copies import CopyError, in_bfloat16


@pytest.fixture
def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    x = layers.Rescaling(2.0, -1.0, name="scale")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(8, 3, name="middle")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Flatten()(layers.ReLU(name="relu")(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="network")


def predicted(model, x):
    return ops.convert_to_numpy(model(x)).argmax(1)


def test_ends_and_normalisation_stay_float32(network):
    copy = in_bfloat16(network)
    computed = {layer.name: layer.compute_dtype for layer in copy.layers}
    kept = {layer.name: {v.dtype for v in layer.weights} for layer in copy.layers if layer.weights}
    assert computed["scale"] == computed["first"] == computed["logits"] == "float32"
    assert computed["middle"] == computed["norm"] == computed["relu"] == "bfloat16"
    assert kept == {
        "first": {"float32"}, "middle": {"bfloat16"}, "norm": {"float32"}, "logits": {"float32"}
    }  # fmt: skip
    x = np.random.default_rng(0).random((4, 8, 8, 1), dtype="float32")
    difference = np.abs(ops.convert_to_numpy(copy(x)) - ops.convert_to_numpy(network(x))).max()
    assert 0 < difference < 0.05


def test_the_copy_is_of_the_weights_as_they_are(network):
    first = bfloat16_copy(network)
    assert bfloat16_copy(network) is first
    network.get_layer("logits").bias.assign(np.arange(10.0))
    again = bfloat16_copy(network)
    assert again is not first
    np.testing.assert_array_equal(again.get_layer("logits").bias, np.arange(10.0))


class Float32Only(layers.Layer):
    def call(self, x):
        if keras.backend.standardize_dtype(x.dtype) != "float32":
            raise TypeError("this layer has a kernel for float32 alone")
        return x


def test_what_has_no_bfloat16_is_told():
    parts = [layers.Flatten(), layers.Dense(4), Float32Only(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((2, 2, 1)), *parts])
    with pytest.raises(CopyError, match=r"cannot compute in bfloat16: .*float32_only"):
        in_bfloat16(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        PGD(epsilon=0.05, steps=10),
        pytest.param(APGD(epsilon=0.05, steps=10, loss="dlr", targets=3), marks=pytest.mark.home),
        pytest.param(Square(epsilon=0.05, steps=50), marks=pytest.mark.home),
        FAB(steps=10, targets=3),
        pytest.param(DeepFool(norm="l2"), marks=pytest.mark.home),
        pytest.param(
            CarliniWagner(norm="l2", steps=20, binary_search_steps=2), marks=pytest.mark.home
        ),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_successes_are_the_model_s_own(network, images, attack):
    x = images(40, (8, 8, 1))
    y = predicted(network, x)
    found = attack.run(network, x, y, batch_size=16, precision="bfloat16")
    np.testing.assert_array_equal(found.success, predicted(network, found.x_adv) != y)
    exact = attack.run(network, x, y, batch_size=16)
    assert abs(int(found.success.sum()) - int(exact.success.sum())) <= 2
    assert found.success.any()
    if not hasattr(attack, "epsilon"):
        both = found.success & exact.success
        ratio = found.distance[both].mean() / exact.distance[both].mean()
        assert 0.9 < ratio < 1.1


@pytest.mark.slow
def test_a_search_that_compares_losses_stays_in_float32(network, images):
    x, attack = images(24, (8, 8, 1)), Square(epsilon=0.05, steps=60)
    found, exact = (
        attack.run(network, x, batch_size=16, precision=name) for name in ("bfloat16", "float32")
    )
    assert 0 < exact.success.sum() < 24
    np.testing.assert_array_equal(found.x_adv, exact.x_adv)
    np.testing.assert_array_equal(found.queries, exact.queries)


@pytest.mark.slow
def test_a_success_of_the_copy_alone_counts_for_nothing(network, images, monkeypatch):
    def another(model):
        copy = in_bfloat16(model)
        copy.get_layer("logits").bias.assign(100 * np.arange(10.0))
        return copy

    monkeypatch.setattr("robust_zoo.attacks.run.in_bfloat16", another)
    x = images(20, (8, 8, 1))
    y = predicted(network, x)
    attack = PGD(epsilon=0.02, steps=5)
    found = attack.run(network, x, y, batch_size=16, precision="bfloat16")
    np.testing.assert_array_equal(found.success, predicted(network, found.x_adv) != y)
    assert not found.success.all()
    # The copy claimed every image whose class is not the last, and each claim cost one more pass.
    claimed = ~found.success & (y < 9)
    assert (found.queries[claimed] > 1 + 5 + 1).all()
    assert claimed.any()


@pytest.mark.long
@pytest.mark.home
def test_autoattack_leaves_as_many(network, images, monkeypatch):
    monkeypatch.setattr(
        "robust_zoo.attacks.autoattack.Square", functools.partial(Square, steps=200)
    )
    x = images(24, (8, 8, 1))
    y = predicted(network, x)
    attack = AutoAttack(epsilon=0.02)
    found, exact = (
        attack.run(network, x, y, batch_size=32, precision=name) for name in ("bfloat16", "float32")
    )
    np.testing.assert_array_equal(found.success, predicted(network, found.x_adv) != y)
    for name, left in exact.components.items():
        assert abs(found.components[name] - left) <= 1 / 24 + 1e-9


def test_a_state_belongs_to_a_precision(network, images, tmp_path):
    x, attack = images(4, (8, 8, 1)), PGD(epsilon=0.05, steps=2)
    state = tmp_path / "state.npz"
    attack.run(network, x, state_file=state, precision="bfloat16")
    with pytest.raises(ValueError, match="belongs to another run: not the same precision"):
        attack.run(network, x, state_file=state)


def test_a_precision_that_is_none(network, images):
    with pytest.raises(
        ValueError, match="precision must be one of float32, bfloat16, got 'float16'"
    ):
        PGD(epsilon=0.1).run(network, images(2, (8, 8, 1)), precision="float16")
