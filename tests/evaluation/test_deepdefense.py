import keras
import numpy as np
import pytest

from robust_zoo.evaluation import SignSteps, accuracy_columns, deepdefense_metrics


def distances(linear, x, y):
    """Of each image: L2 size of DeepFool's step to the nearest boundary of the predicted class."""
    _, kernel, bias = linear
    z = x.reshape(len(x), -1) @ kernel + bias
    predicted = z.argmax(1)
    return np.array(
        [
            min(
                (z[i, predicted[i]] - z[i, k])
                / np.linalg.norm(kernel[:, k] - kernel[:, predicted[i]])
                for k in range(3)
                if k != predicted[i]
            )
            for i in range(len(x))
        ]
    )


@pytest.mark.long
def test_rho_2_of_a_linear_model(linear, images):
    x = images(40, (2, 2, 1))
    y = np.arange(40) % 3  # it is the predicted class that is left, whatever the labels
    metrics = deepdefense_metrics(linear[0], x, y, mean=0.25, batch_size=16)
    size = 1.02 * distances(linear, x, y)
    norm = np.linalg.norm((x - 0.25).reshape(40, -1), axis=1)
    assert metrics.rho_2 == pytest.approx((size / norm).mean(), rel=1e-4)
    assert metrics.size_2 == pytest.approx(size.mean(), rel=1e-4)
    z = x.reshape(40, -1) @ linear[1] + linear[2]
    assert metrics.clean.correct == (z.argmax(1) == y).sum()


@pytest.mark.long
def test_behind_a_layer(linear, images):
    """What is measured there is what the rest of the model has on what comes out of the layer."""
    inputs = keras.Input((2, 2, 1))
    front = keras.layers.Rescaling(0.5, 0.25, name="front")
    model = keras.Model(inputs, linear[0](front(inputs)))
    x = images(40, (2, 2, 1))
    y = np.arange(40) % 3
    assert deepdefense_metrics(model, x, y, behind="front") == deepdefense_metrics(
        linear[0], 0.5 * x + 0.25, y
    )
    columns = accuracy_columns(model, x, y, 0.1, behind="front")
    assert columns == accuracy_columns(linear[0], 0.5 * x + 0.25, y, 0.1)


def sign_step_accuracy(linear, x, y, epsilon):
    """In NumPy: the gradient of the cross-entropy is kernel @ (p - onehot)."""
    _, kernel, bias = linear
    z = x.reshape(len(x), -1) @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    moved = x.reshape(len(x), -1) + epsilon * np.sign((p - np.eye(3)[y]) @ kernel.T)
    return ((moved @ kernel + bias).argmax(1) == y).sum()


@pytest.mark.long
def test_images_without_a_norm_are_left_out(linear, images):
    x = images(20, (2, 2, 1))
    y = np.arange(20) % 3
    whole = deepdefense_metrics(linear[0], x, y, mean=x[7])
    others = deepdefense_metrics(linear[0], np.delete(x, 7, 0), np.delete(y, 7), mean=x[7])
    assert whole.rho_2 == pytest.approx(others.rho_2)
    assert whole.rho_inf == pytest.approx(others.rho_inf * whole.epsilon_50 / others.epsilon_50)
    with pytest.raises(ValueError, match="x must differ from mean"):
        deepdefense_metrics(linear[0], x[:1], y[:1], mean=x[0])
    for reference in (None, 0.0):
        with pytest.raises(ValueError, match="reference must be a number above 0, got"):
            accuracy_columns(linear[0], x, y, reference)


@pytest.mark.long
def test_sign_steps_and_epsilon_50(linear, images):
    x = images(301, (2, 2, 1))
    y = (x.reshape(301, -1) @ linear[1] + linear[2]).argmax(1)
    y[:10] = (y[:10] + 1) % 3
    steps = SignSteps(linear[0], x, y, batch_size=64)
    for epsilon in (0.0, 0.05, 0.1, 0.4):
        assert abs(steps.accuracy(epsilon).correct - sign_step_accuracy(linear, x, y, epsilon)) <= 1
    found = steps.epsilon_50()
    assert sign_step_accuracy(linear, x, y, found + 1e-3) <= 301 / 2
    assert all(
        sign_step_accuracy(linear, x, y, epsilon) > 301 / 2
        for epsilon in np.arange(0, found - 1e-3, 1e-3)
    )
    metrics = deepdefense_metrics(linear[0], x, y, mean=0.5)
    assert metrics.epsilon_50 == found
    inverse = (1 / np.abs(x - 0.5).reshape(301, -1).max(1)).mean()
    assert metrics.rho_inf == pytest.approx(found * inverse, rel=1e-6)
    columns = accuracy_columns(linear[0], x, y, found)
    assert [part.correct for part in columns] == [
        steps.accuracy(part * found).correct for part in (0.2, 0.5, 1.0)
    ]


@pytest.mark.long
def test_a_model_that_no_step_breaks(linear, images):
    model = linear[0]
    model.set_weights([np.zeros((4, 3), "float32"), np.array([5, 0, 0], "float32")])
    metrics = deepdefense_metrics(model, images(5, (2, 2, 1)), np.zeros(5, "int32"))
    assert metrics.epsilon_50 is None
    assert metrics.rho_inf is None


def test_half_of_the_examples_wrong_to_begin_with(linear, images):
    x = images(20, (2, 2, 1))
    y = ((x.reshape(20, -1) @ linear[1] + linear[2]).argmax(1) + 1) % 3
    assert SignSteps(linear[0], x, y).epsilon_50() < 1e-3
