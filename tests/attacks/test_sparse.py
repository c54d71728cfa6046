import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import architectures
from robust_zoo.attacks import ExtremeWeights, PixelSwap
from robust_zoo.backend import random


def candidate(attack, model, x):
    y = ops.zeros(len(x), "int32")
    return ops.convert_to_numpy(attack(model, ops.convert_to_tensor(x), y, key=random.key(0)))


def test_swaps_copy_along_one_order_and_end_as_an_involution(small_cnn, images):
    x = images(3)
    order = np.random.default_rng(5).permutation(36)
    flat = x.reshape(3, 36)
    for count in (1, 9, 18, 27, 36):
        found = candidate(PixelSwap(epsilon=count, permutation=5), small_cnn, x).reshape(3, 36)
        expected = flat.copy()
        for j in range(count):
            expected[:, order[j]] = flat[:, order[35 - j]]
        np.testing.assert_array_equal(found, expected)
        assert (found != flat).sum(1).max() <= count
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(flat, axis=1))
    again = candidate(PixelSwap(epsilon=36, permutation=5), small_cnn, found.reshape(x.shape))
    np.testing.assert_array_equal(again, x)
    other = candidate(PixelSwap(epsilon=36, permutation=6), small_cnn, x)
    assert not np.array_equal(other.reshape(3, 36), found)


def test_extreme_weights_of_a_logistic_regression(images):
    model = architectures.logistic((4, 5, 1))
    weights = np.random.default_rng(0).permutation(20).reshape(20, 1) - 9.5
    model.set_weights([weights])
    x = images(6, (4, 5, 1))
    found = candidate(ExtremeWeights(epsilon=6), model, x).reshape(6, 20)
    extreme = np.abs(weights.ravel()) > 6.6  # three at either end
    assert extreme.sum() == 6
    np.testing.assert_array_equal(found[:, extreme], 1)
    np.testing.assert_array_equal(found[:, ~extreme], x.reshape(6, 20)[:, ~extreme])


def test_extreme_weights_refuses_what_is_not_linear(small_cnn, images):
    with pytest.raises(ValueError, match="needs a linear model of 2 classes, got 5"):
        ExtremeWeights(epsilon=2).run(small_cnn, images(1))
    inputs = keras.Input((6, 6, 1))
    hidden = keras.layers.Dense(9, activation="tanh")(keras.layers.Flatten()(inputs))
    bent = keras.Model(inputs, keras.layers.Dense(2)(hidden), name="bent")
    with pytest.raises(ValueError, match="the gradient of 'bent' depends on the image"):
        ExtremeWeights(epsilon=2).run(bent, images(1))


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda: PixelSwap(epsilon=2.5), "whole number of changed values"),
        (lambda: PixelSwap(epsilon=2, norm="linf"), r"norm must be one of \('l0',\) in PixelSwap"),
        (lambda: PixelSwap(epsilon=2, permutation=-1), "permutation must be an integer >= 0"),
        (lambda: ExtremeWeights(epsilon=3), "epsilon must be even"),
    ],
)
def test_bad_hyperparameters(attack, message):
    with pytest.raises(ValueError, match=message):
        attack()


def test_a_call_cannot_change_how_many(small_cnn, images):
    with pytest.raises(ValueError, match="epsilon cannot be changed in a call of PixelSwap"):
        PixelSwap(epsilon=2)(small_cnn, images(1), key=random.key(0), epsilon=0.1)


def test_more_swaps_than_values(small_cnn, images):
    with pytest.raises(ValueError, match="epsilon must be at most 36, the l0 distance"):
        PixelSwap(epsilon=37).run(small_cnn, images(1))
