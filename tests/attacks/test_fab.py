import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import FAB
from robust_zoo.attacks.fab import project_on_hyperplane


def brute_force_projection(x, w, offset, norm):
    """The smallest change by bisection on how far every value moves, in float64."""
    direction = -np.sign(w) * np.sign(offset)
    room = np.where(direction > 0, 1 - x, x)
    speed = (w != 0).astype(float) if norm == "linf" else np.abs(w)

    def change(t):
        return direction * np.minimum(t * speed, room)

    low, high = 0.0, 1e4
    if abs(w @ change(high)) < abs(offset):
        return change(high)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if abs(w @ change(middle)) >= abs(offset) else (middle, high)
    return change(high)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_against_brute_force(norm):
    rng = np.random.default_rng(0)
    x = rng.random((60, 12))
    x[:20] = np.round(x[:20])  # many values at an end already
    w = rng.normal(size=(60, 12)) * (rng.random((60, 12)) < 0.8)
    offset = rng.normal(size=60) * np.repeat(
        [0.1, 1.0, 5.0], 20
    )  # the last ones often out of reach
    arguments = (ops.convert_to_tensor(value.astype("float32")) for value in (x, w, offset))
    found = ops.convert_to_numpy(project_on_hyperplane(*arguments, norm))
    expected = [brute_force_projection(*row, norm) for row in zip(x, w, offset, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    reached = np.abs((w * found).sum(1) + offset) < 1e-3
    assert 0.5 < reached.mean() < 1
    assert (x + found).min() > -1e-6
    assert (x + found).max() < 1 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "order"), [("linf", 1), ("l2", 2)])
def test_distance_on_a_linear_model_is_the_closed_form(norm, order):
    inputs = keras.Input((2, 3, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(6, 2))
    weights = kernel[:, 1] - kernel[:, 0]
    model.set_weights([kernel, np.array([weights.sum() / 2, 0.0])])
    x = rng.uniform(0.4, 0.6, (50, 2, 3, 1)).astype("float32")
    distance = np.abs((x.reshape(50, 6) - 0.5) @ weights) / np.linalg.norm(weights, ord=order)
    # It comes back a tenth of the way and overshoots what is left by eta - 1.
    for eta, excess in ((1.05, 0.005), (1.002, 0.0002)):
        result = FAB(norm=norm, targets=1, eta=eta).run(model, x)
        assert result.success.all()
        np.testing.assert_allclose(result.distance, distance * (1 + excess), rtol=4e-4, atol=2e-6)
        assert (result.distance >= distance * (1 - 1e-4) - 1e-6).all()


@pytest.mark.slow
def test_more_targets_only_help(small_cnn, images):
    x = images(30)
    one, four = (FAB(targets=count, steps=20).run(small_cnn, x) for count in (1, 4))
    assert (four.distance[one.success] <= one.distance[one.success] + 1e-6).all()
    assert four.success.all()
    predicted = ops.convert_to_numpy(small_cnn(four.x_adv)).argmax(1)
    assert (predicted != ops.convert_to_numpy(small_cnn(x)).argmax(1)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "targets must be at most 4, the model's other classes, got 9"),
        ({"targets": 0}, "targets must be an integer >= 1, got 0"),
        ({"eta": 0.9}, "eta must be >= 1, got 0.9"),
        ({"beta": 1}, r"beta must be in \(0, 1\), got 1"),
        ({"alpha_max": 2}, r"alpha_max must be in \[0, 1\], got 2"),
    ],
)
def test_bad_hyperparameters(small_cnn, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        FAB(**arguments).run(small_cnn, images(2))
