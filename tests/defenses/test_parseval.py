import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose

from robust_zoo.backend import random
from robust_zoo.defenses import ParsevalTraining


def distance(kernel):
    rows = kernel.reshape(-1, kernel.shape[-1]).T
    return np.linalg.norm(rows @ rows.T - np.eye(len(rows)))


@pytest.mark.parametrize("shape", [(20, 8), (3, 3, 2, 6)])
def test_retractions_pull_rows_towards_an_orthonormal_set(small_cnn, shape):
    rng = np.random.default_rng(0)
    kernel = ops.convert_to_tensor(rng.normal(size=shape) / 4, "float32")
    defense = ParsevalTraining(small_cnn, beta=0.1, rows=1.0)
    before = distance(ops.convert_to_numpy(kernel))
    for step in range(60):
        kernel = defense.retract(kernel, random.key(step))
        now = distance(ops.convert_to_numpy(kernel))
        assert now < before
        before = now
    assert before < 0.1


def test_it_is_the_published_formula_on_the_rows_drawn(small_cnn):
    kernel = np.random.default_rng(1).normal(size=(12, 10)).astype("float32")
    defense = ParsevalTraining(small_cnn, beta=0.02, rows=0.3)
    after = ops.convert_to_numpy(defense.retract(ops.convert_to_tensor(kernel), random.key(3)))
    rows = np.flatnonzero((after != kernel).any(axis=0))
    assert len(rows) == 3
    part = kernel.T[rows]
    expected = 1.02 * part - 0.02 * part @ part.T @ part
    assert_allclose(after.T[rows], expected, rtol=1e-5)
    other = ops.convert_to_numpy(defense.retract(ops.convert_to_tensor(kernel), random.key(4)))
    assert set(np.flatnonzero((other != kernel).any(axis=0))) != set(rows)


def test_every_step_retracts_every_kernel_and_no_bias(small_cnn, images):
    x, y = images(8), np.arange(8) % 5
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    start = small_cnn.get_weights()
    small_cnn.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    small_cnn.train_on_batch(x, y)
    stepped = small_cnn.get_weights()
    small_cnn.set_weights(start)
    defense = ParsevalTraining(small_cnn, beta=0.1, rows=1.0)
    defense.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    defense.train_on_batch(x, y)
    for plain, found in zip(stepped, small_cnn.get_weights(), strict=True):
        expected = plain
        if plain.ndim > 1:
            rows = plain.reshape(-1, plain.shape[-1]).T
            expected = (1.1 * rows - 0.1 * rows @ rows.T @ rows).T.reshape(plain.shape)
        assert_allclose(found, expected, atol=1e-5)


def test_the_rows_are_drawn_anew_in_each_step(images):
    inputs = keras.Input((6, 6, 1))
    dense = keras.layers.Dense(20, name="wide")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(5)(dense))
    defense = ParsevalTraining(model, beta=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile(optimizer=keras.optimizers.SGD(0.0), loss=loss)
    drawn = []
    for _ in range(3):
        before = model.get_layer("wide").get_weights()[0]
        defense.train_on_batch(images(4), np.arange(4))
        changed = (model.get_layer("wide").get_weights()[0] != before).any(axis=0)
        assert changed.sum() == 6
        drawn.append(tuple(np.flatnonzero(changed)))
    assert len(set(drawn)) == 3


def test_bad_arguments(small_cnn):
    with pytest.raises(ValueError, match=r"beta must be a number > 0, got 0"):
        ParsevalTraining(small_cnn, beta=0)
    with pytest.raises(ValueError, match=r"rows must be a number > 0 and <= 1, got 2"):
        ParsevalTraining(small_cnn, rows=2)
    inputs = keras.Input((6, 6, 1))
    depthwise = keras.layers.DepthwiseConv2D(3, name="deep")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(depthwise)))
    with pytest.raises(
        ValueError, match=r"dense and convolutional layers .*DepthwiseConv2D 'deep'"
    ):
        ParsevalTraining(model)
