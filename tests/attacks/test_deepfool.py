import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import DeepFool


@pytest.fixture
def two_class():
    """A linear model of two classes, images away from 0 and 1, and the exact distance for a dual norm."""
    inputs = keras.Input((2, 3, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(6, 2))
    weights = kernel[:, 1] - kernel[:, 0]
    model.set_weights([kernel, np.array([weights.sum() / 2, 0.0])])
    x = rng.uniform(0.4, 0.6, (50, 2, 3, 1)).astype("float32")

    def distance(order):
        return np.abs((x.reshape(50, 6) - 0.5) @ weights) / np.linalg.norm(weights, ord=order)

    return model, x, distance


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", 1)])
def test_distance_on_a_linear_model_is_the_closed_form(two_class, norm, order):
    model, x, distance = two_class
    result = DeepFool(norm=norm).run(model, x)
    assert result.success.all()
    # One step reaches the boundary, goes 1e-4 beyond, and overshoots by 2%.
    expected = 1.02 * (distance(order) + 1e-4)
    np.testing.assert_allclose(result.distance, expected, rtol=1e-4, atol=2e-6)
    # The clean image, one step of two gradients, and a second one that sees the success.
    np.testing.assert_array_equal(result.queries, 1 + 2 * 2)


def numpy_deepfool(model, image, steps=50, overshoot=0.02):
    """The original loop on one image of a tanh network, with gradients by the chain rule."""
    first, first_bias, second, second_bias = (w.astype("float64") for w in model.get_weights())
    x0 = image.reshape(-1).astype("float64")

    def look(x):
        hidden = np.tanh(x @ first + first_bias)
        return hidden @ second + second_bias, (first * (1 - hidden**2)) @ second

    own = look(x0)[0].argmax()
    total, x = np.zeros_like(x0), x0
    for _ in range(steps):
        z, jacobian = look(x)
        if z.argmax() != own:
            break
        others = [k for k in range(len(z)) if k != own]
        gaps = np.array([z[k] - z[own] for k in others])
        normals = np.stack([jacobian[:, k] - jacobian[:, own] for k in others])
        sizes = np.linalg.norm(normals, axis=1)
        k = (np.abs(gaps) / sizes).argmin()
        total += (np.abs(gaps[k]) / sizes[k] + 1e-4) * normals[k] / sizes[k]
        x = np.clip(x0 + (1 + overshoot) * total, 0, 1)
    return x.reshape(image.shape)


@pytest.mark.slow
def test_agrees_with_the_loop_on_one_image():
    inputs = keras.Input((2, 3, 1))
    hidden = keras.layers.Dense(8, activation="tanh")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4)(hidden))
    rng = np.random.default_rng(5)
    model.set_weights([rng.normal(size=value.shape) for value in model.get_weights()])
    x = rng.random((40, 2, 3, 1)).astype("float32")
    result = DeepFool().run(model, x)
    expected = np.stack([numpy_deepfool(model, image) for image in x])
    before, after = (ops.convert_to_numpy(model(part)).argmax(1) for part in (x, expected))
    done = result.success  # elsewhere the boundaries are beyond black and white
    np.testing.assert_array_equal(done, before != after)
    assert done.sum() > 15
    np.testing.assert_allclose(result.x_adv[done], expected[done], atol=2e-4)
    assert len(set(result.queries.tolist())) > 1  # some images need more steps


def test_candidates_are_the_class_to_leave_and_the_likeliest_others(small_cnn, images):
    x = images(30)
    logits = ops.convert_to_numpy(small_cnn(x))
    for y in (logits.argmax(1), logits.argmin(1)):
        arguments = (ops.convert_to_tensor(x), ops.convert_to_tensor(y.astype("int32")))
        state = DeepFool(candidates=3).start(small_cnn, *arguments, None, 0.0, 0)
        others = logits.copy()
        others[np.arange(30), y] = -np.inf
        expected = np.stack([y, *np.argsort(-others, axis=1)[:, :2].T], axis=1)
        np.testing.assert_array_equal(ops.convert_to_numpy(state["classes"]), expected)


def test_labels_say_what_is_left(small_cnn, images):
    x = images(20)
    wrong = (ops.convert_to_numpy(small_cnn(x)).argmax(1) + 1) % 5
    assert (DeepFool(labels="true").run(small_cnn, x, wrong).distance == 0).all()
    predicted = DeepFool().run(small_cnn, x, wrong)
    assert (predicted.distance > 0).all()
    np.testing.assert_array_equal(predicted.x_adv, DeepFool().run(small_cnn, x).x_adv)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overshoot": -0.1}, "overshoot must be >= 0"),
        ({"candidates": 1}, "candidates must be an integer >= 2, got 1"),
        ({"labels": "random"}, "labels must be one of"),
        ({"norm": "l0"}, "norm must be one of"),
    ],
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeepFool(**arguments)
