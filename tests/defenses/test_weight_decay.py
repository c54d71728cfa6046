import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import architectures
from robust_zoo.defenses import with_weight_decay


def penalty(model):
    return float(sum(model.losses))


def test_the_penalties_are_the_papers(small_cnn, images):
    kernels = [weight for weight in small_cnn.get_weights() if weight.ndim > 1]
    decayed = with_weight_decay(small_cnn, l2=0.05)
    assert penalty(decayed) == pytest.approx(
        0.05 / 2 * sum((w**2).sum() for w in kernels), rel=1e-5
    )
    decayed = with_weight_decay(small_cnn, l1=3.25, l1_reduction="mean")
    assert penalty(decayed) == pytest.approx(
        3.25 * sum(np.abs(w).mean() for w in kernels), rel=1e-5
    )
    decayed = with_weight_decay(small_cnn, l1=0.5, l2=1.0)
    expected = sum(0.5 * np.abs(w).sum() + (w**2).sum() / 2 for w in kernels)
    assert penalty(decayed) == pytest.approx(expected, rel=1e-5)
    x = images(3)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(decayed(x)), ops.convert_to_numpy(small_cnn(x))
    )
    assert penalty(small_cnn) == 0


def test_it_is_coupled_to_the_gradient(small_cnn, images):
    """A step of gradient descent shrinks each kernel by rate times l2, beside the loss's own step."""
    x, y = images(4), np.arange(4) % 5
    found = []
    for model in (with_weight_decay(small_cnn, l2=0.2), small_cnn):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss)
        before = model.get_weights()
        model.train_on_batch(x, y)
        found.append([b - a for a, b in zip(before, model.get_weights(), strict=True)])
    for decayed, plain, weight in zip(*found, before, strict=True):
        shrink = -0.5 * 0.2 * weight if weight.ndim > 1 else 0
        np.testing.assert_allclose(decayed, plain + shrink, atol=1e-5)


def test_expert_weights_are_the_difference_of_the_means(images):
    x, y = images(10, (4, 4, 1)), np.arange(10) % 2
    model = architectures.logistic((4, 4, 1), expert=(x, y))
    expected = (x[y == 1].mean(0) - x[y == 0].mean(0)).reshape(-1)
    np.testing.assert_allclose(model.get_layer("z").get_weights()[0][:, 0], expected, atol=1e-6)
    z = ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(z[:, 1] - z[:, 0], x.reshape(10, -1) @ expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"expert must hold labels 0 and 1, got \[0, 1, 2\]"):
        architectures.logistic((4, 4, 1), expert=(x, np.arange(10) % 3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "l2 or l1 must be > 0"),
        ({"l2": -1}, "l2 must be a number >= 0, got -1"),
        ({"l1": 1, "l1_reduction": "max"}, "l1_reduction must be one of"),
    ],
)
def test_bad_arguments(small_cnn, settings, message):
    with pytest.raises(ValueError, match=message):
        with_weight_decay(small_cnn, **settings)


def test_a_model_without_kernels(small_cnn):
    inputs = keras.Input((6, 6, 1))
    model = keras.Model(inputs, keras.layers.Flatten()(inputs), name="bare")
    with pytest.raises(ValueError, match="classifier must have layers with kernels, got 'bare'"):
        with_weight_decay(model, l2=1.0)
