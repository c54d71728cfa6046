import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import CarliniWagner, DeepFool
from robust_zoo.backend import random


@pytest.mark.slow
def test_converges_to_the_closed_form_of_a_linear_model():
    inputs = keras.Input((2, 3, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(6, 2))
    weights = kernel[:, 1] - kernel[:, 0]
    model.set_weights([kernel, np.array([weights.sum() / 2, 0.0])])
    x = rng.uniform(0.3, 0.7, (40, 2, 3, 1)).astype("float32")
    distance = np.abs((x.reshape(40, 6) - 0.5) @ weights) / np.linalg.norm(weights)
    result = CarliniWagner(steps=500, step_size=5e-3).run(model, x)
    assert result.success.all()
    assert (result.distance >= distance - 1e-6).all()
    assert (result.distance <= 1.02 * distance + 1e-3).all()
    assert result.distance.mean() <= 1.02 * distance.mean()


def numpy_attack(model, image, label, attack):
    """The published loop on one image of a linear model, in float64."""
    kernel, bias = (value.astype("float64") for value in model.get_weights())
    start = np.arctanh((2 * image.reshape(-1).astype("float64") - 1) * 0.999999)
    origin = (np.tanh(start) + 1) / 2
    c, lower, upper, best = attack.initial_constant, 0.0, np.inf, np.inf
    looks = int(np.ceil(attack.steps / 10))
    for _ in range(attack.binary_search_steps):
        w, m, v, then, reached = start.copy(), 0, 0, np.inf, False
        for t in range(attack.steps):
            x = (np.tanh(w) + 1) / 2
            z = x @ kernel + bias
            other = max((k for k in range(len(z)) if k != label), key=lambda k: z[k])
            margin = z[label] - z[other]
            loss = ((x - origin) ** 2).sum() + c * max(margin, 0)
            slope = 2 * (x - origin)
            if margin > 0:
                slope = slope + c * (kernel[:, label] - kernel[:, other])
            gradient = slope * (1 - np.tanh(w) ** 2) / 2
            if z.argmax() != label:
                reached = True
                best = min(best, np.linalg.norm(x - image.reshape(-1)))
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            step = m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
            w = w - attack.step_size * step
            if t % looks == 0:
                if not loss <= 0.9999 * then:
                    break
                then = loss
        if reached:
            upper = c
        else:
            lower = c
        c = c * 10 if np.isinf(upper) else (lower + upper) / 2
    return best


def test_agrees_with_the_published_loop_image_by_image(linear, images):
    model, _, _ = linear
    x = 0.2 + 0.6 * images(12, (2, 2, 1))
    y = ops.convert_to_numpy(model(x)).argmax(1)
    attack = CarliniWagner(steps=60, binary_search_steps=6, step_size=0.02)
    result = attack.run(model, x, y)
    expected = [numpy_attack(model, *pair, attack) for pair in zip(x, y, strict=True)]
    assert np.isfinite(expected).all()
    assert result.success.all()
    np.testing.assert_allclose(result.distance, expected, rtol=5e-3)


@pytest.mark.long
@pytest.mark.home
def test_aborting_early_saves_passes_and_costs_little(small_cnn, images):
    x = images(20)
    options = {"steps": 200, "binary_search_steps": 4}
    early, late = (
        CarliniWagner(**options, abort_early=flag).run(small_cnn, x) for flag in (True, False)
    )
    assert early.queries.sum() < 0.9 * late.queries.sum()
    assert (late.queries >= 1 + 4 * 200).all()
    assert early.distance.mean() < 1.02 * late.distance.mean()
    assert early.distance.mean() < DeepFool().run(small_cnn, x).distance.mean()


@pytest.mark.long
@pytest.mark.home
def test_the_last_of_many_constants_is_the_smallest_that_did(linear, images):
    model, _, _ = linear
    x = 0.2 + 0.6 * images(12, (2, 2, 1))
    y = ops.convert_to_numpy(model(x)).argmax(1)
    attack = CarliniWagner(steps=25, binary_search_steps=10, step_size=0.02, abort_early=False)
    tensor, labels = ops.convert_to_tensor(x), ops.convert_to_tensor(y.astype("int32"))
    state = attack.start(model, tensor, labels, None, 0.0, 0)
    for _ in range(9 * 25):
        state, _ = attack.step(model, tensor, state, 0.0)
    assert (ops.convert_to_numpy(state["search"]) == 9).all()
    upper = ops.convert_to_numpy(state["upper"])
    assert np.isfinite(upper).all()
    np.testing.assert_array_equal(ops.convert_to_numpy(state["constant"]), upper)


@pytest.mark.slow
def test_nothing_counts_after_the_last_constant(small_cnn, images):
    """Steps that are taken because others are not done yet change no result."""
    x = images(60)
    attack = CarliniWagner(steps=20, binary_search_steps=3, step_size=0.1)
    result = attack.run(small_cnn, x)
    y = ops.argmax(small_cnn(x), axis=1)
    pure = attack(small_cnn, ops.convert_to_tensor(x), y, key=random.key(0))
    np.testing.assert_allclose(ops.convert_to_numpy(pure), result.x_adv, atol=1e-5)


@pytest.mark.slow
@pytest.mark.home
def test_confidence_is_a_margin(small_cnn, images):
    x = images(10)
    y = ops.convert_to_numpy(small_cnn(x)).argmax(1)
    result = CarliniWagner(steps=200, confidence=0.2).run(small_cnn, x, y)
    z = ops.convert_to_numpy(small_cnn(result.x_adv))
    own = z[np.arange(10), y]
    z[np.arange(10), y] = -np.inf
    assert result.success.any()
    assert (z.max(1) - own)[result.success].min() >= 0.2 - 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"binary_search_steps": 0}, "binary_search_steps must be an integer >= 1, got 0"),
        ({"initial_constant": 0}, "initial_constant must be > 0 and finite, got 0"),
        ({"step_size": -1}, "step_size must be > 0 and finite, got -1"),
        ({"confidence": -1}, "confidence must be >= 0, got -1"),
        ({"norm": "linf"}, r"norm must be one of \('l2',\) in CarliniWagner, got 'linf'"),
    ],
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        CarliniWagner(**arguments)
