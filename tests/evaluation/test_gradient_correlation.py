import numpy as np
import pytest

from robust_zoo.attacks import FGSM, PGD, DeepFool
from robust_zoo.evaluation import craft, gradient_correlation


def test_one_step_on_a_linear_model(linear, images):
    """The gradient's sign against the gradient: |g|_1 / (sqrt(d) |g|_2) of two classes, whose gradients differ by a factor."""
    model, weights, _ = linear
    model.set_weights([weights[:, [0, 1, 1]], np.array([0, 0, -20])])
    x = 0.25 + 0.5 * images(5, model.input_shape[1:])
    slope = (weights[:, 1] - weights[:, 0]).astype("float64")
    expected = np.abs(slope).sum() / (np.sqrt(slope.size) * np.linalg.norm(slope))
    found = gradient_correlation(FGSM(epsilon=0.1), model, x, np.zeros(5, int), batch_size=2)
    np.testing.assert_allclose(found, np.full(5, expected), rtol=1e-4)


def test_against_differences(small_cnn, images):
    x, y = images(3), np.array([0, 1, 2])
    attack = PGD(epsilon=0.1, steps=3)
    change = (craft(attack, small_cnn, x, y, seed=2) - x).reshape(3, -1).astype("float64")

    def losses(x):
        logits = np.asarray(small_cnn(x.astype("float32"))).astype("float64")
        return np.log(np.exp(logits).sum(1)) - logits[np.arange(3), y]

    slope = np.zeros_like(change)
    for place in range(change.shape[1]):
        step = np.zeros_like(change)
        step[:, place] = 1e-2
        step = step.reshape(x.shape)
        slope[:, place] = (losses(x + step) - losses(x - step)) / 2e-2
    expected = (
        (change * slope).sum(1) / np.linalg.norm(change, axis=1) / np.linalg.norm(slope, axis=1)
    )
    found = gradient_correlation(attack, small_cnn, x, y, seed=2)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_an_image_that_cannot_move_has_none(linear, images):
    model, weights, _ = linear
    model.set_weights([weights[:, [0, 1, 1]], np.array([0, 0, -20])])
    slope = (weights[:, 1] - weights[:, 0]).reshape(model.input_shape[1:])
    x = np.stack([(slope > 0).astype("float32"), np.full_like(slope, 0.5)])
    found = gradient_correlation(FGSM(epsilon=0.1), model, x, np.zeros(2, int))
    assert np.isnan(found[0])
    assert found[1] > 0


def test_an_attack_without_a_budget(linear, images):
    model = linear[0]
    with pytest.raises(TypeError, match="attack must have a fixed budget"):
        gradient_correlation(DeepFool(), model, images(1, model.input_shape[1:]), np.array([0]))
