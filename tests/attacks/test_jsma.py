import itertools

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import JSMA, jsma


@pytest.fixture
def six_features():
    """A tanh network of 6 features into 3 classes, and its weights."""
    inputs = keras.Input((2, 3, 1))
    hidden = keras.layers.Dense(5, activation="tanh")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    rng = np.random.default_rng(4)
    model.set_weights([rng.normal(size=value.shape) for value in model.get_weights()])
    return model, [value.astype("float64") for value in model.get_weights()]


def jacobian(weights, x, output):
    """Of the logits or the probabilities at one image, (6, 3), by the chain rule."""
    first, first_bias, second, second_bias = weights
    hidden = np.tanh(x @ first + first_bias)
    logits = (first * (1 - hidden**2)) @ second
    if output == "logits":
        return logits
    z = hidden @ second + second_bias
    p = np.exp(z - z.max())
    p /= p.sum()
    return logits @ (np.diag(p) - np.outer(p, p))


def best_pair(rows, target, allowed):
    """By looking at all 15 pairs."""
    own, others = rows[:, target], rows.sum(1) - rows[:, target]
    scores = {}
    for p, q in itertools.combinations(np.flatnonzero(allowed), 2):
        alpha, beta = own[p] + own[q], others[p] + others[q]
        if alpha > 0 and beta < 0:
            scores[p, q] = -alpha * beta
    return max(scores, key=scores.get) if scores else None


@pytest.mark.parametrize("theta", [1.0, -1.0])
@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_the_chosen_pair_is_the_best_of_all(six_features, output, theta):
    model, weights = six_features
    rng = np.random.default_rng(0)
    x = rng.random((30, 2, 3, 1)).astype("float32")
    x[:, 0, 0] = (theta + 1) / 2  # cannot go further
    targets = rng.integers(0, 3, 30).astype("int32")
    attack = JSMA(theta=theta, output=output, targeted=True)
    tensor, y = ops.convert_to_tensor(x), ops.convert_to_tensor(targets)
    state = attack.start(model, tensor, y, None, 0.0, 0)
    state, logits = attack.step(model, tensor, state, 0.0)
    found = ops.convert_to_numpy(state["x_adv"]).reshape(30, 6)
    predicted = ops.convert_to_numpy(logits).argmax(1)
    moved = 0
    for number in range(30):
        image = x[number].reshape(6).astype("float64")
        allowed = image != (theta + 1) / 2
        # A value that falls has the saliency of its negative.
        pair = best_pair(theta * jacobian(weights, image, output), targets[number], allowed)
        expected = image.copy()
        if pair is not None and predicted[number] != targets[number]:
            expected[list(pair)] = (theta + 1) / 2
            moved += 1
        np.testing.assert_allclose(found[number], expected, atol=1e-6)
    assert moved > 10


@pytest.mark.parametrize("theta", [0.01, -0.01])
@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_small_steps_go_towards_the_target(six_features, output, theta):
    model, _ = six_features
    rng = np.random.default_rng(2)
    x = rng.uniform(0.3, 0.7, (30, 2, 3, 1)).astype("float32")
    targets = rng.integers(0, 3, 30).astype("int32")
    attack = JSMA(theta=theta, output=output, targeted=True)
    tensor, y = ops.convert_to_tensor(x), ops.convert_to_tensor(targets)
    state, logits = attack.step(model, tensor, attack.start(model, tensor, y, None, 0.0, 0), 0.0)

    def probability(z):
        z = ops.convert_to_numpy(ops.softmax(z))
        return z[np.arange(30), targets]

    moved = (ops.convert_to_numpy(state["x_adv"]) != x).any(axis=(1, 2, 3))
    assert moved.sum() > 10
    assert (probability(model(state["x_adv"])) > probability(logits))[moved].all()


def test_pairs_of_many_values_are_searched_in_blocks(monkeypatch):
    rng = np.random.default_rng(1)
    target, others = rng.normal(size=(2, 8, 23)).astype("float32")
    allowed = rng.random((8, 23)) < 0.8
    allowed[0] = False
    arguments = [ops.convert_to_tensor(value) for value in (target, others, allowed)]
    for block in (1, 128 * 23 * 5, 2**22):
        monkeypatch.setattr(jsma, "_BLOCK", block)
        first, second, found = map(ops.convert_to_numpy, jsma.best_pair(*arguments))
        for number in range(8):
            rows = np.stack([target[number], others[number]], axis=1).astype("float64")
            pair = best_pair(rows, 0, allowed[number])
            assert found[number] == (pair is not None)
            if pair is not None:
                assert (first[number], second[number]) == pair


@pytest.mark.slow
def test_every_other_class_is_a_target_and_the_fewest_changes_win(small_cnn, images):
    x = images(12)
    y = ops.convert_to_numpy(small_cnn(x)).argmax(1)
    together = JSMA(gamma=0.6).run(small_cnn, x, y)
    alone = [
        JSMA(gamma=0.6, targeted=True).run(small_cnn, x, (y + shift) % 5) for shift in range(1, 5)
    ]
    reached = np.stack([np.where(r.success, r.distance, np.inf) for r in alone]).min(0)
    assert together.success.mean() > 0.5
    # On its way to a target an image may end in a third class, which counts here.
    assert (together.distance[together.success] <= reached[together.success]).all()
    targets = (y + 1) % 5
    predicted = ops.convert_to_numpy(small_cnn(alone[0].x_adv)).argmax(1)
    np.testing.assert_array_equal(alone[0].success, predicted == targets)


def test_gamma_limits_the_changes(small_cnn, images):
    x = images(20)
    for gamma, most in ((0.12, 4), (0.3, 10)):
        result = JSMA(gamma=gamma).run(small_cnn, x)
        assert result.distance.max() <= most
    assert JSMA(gamma=0.1).steps_on((28, 28, 1)) == 39
    assert JSMA(gamma=0.01).steps_on((32, 32, 3)) == 15
    with pytest.raises(ValueError, match=r"gamma must let two values change, at least 0\.0555556"):
        JSMA(gamma=0.01).run(small_cnn, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"theta": 0}, r"theta must lie in \[-1, 1\] and not be 0"),
        ({"gamma": 0}, r"gamma must lie in \(0, 1\], got 0"),
        ({"output": "softmax"}, "output must be one of"),
    ],
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        JSMA(**arguments)


def test_targets_must_be_given_and_exist(small_cnn, images):
    attack = JSMA(targeted=True)
    with pytest.raises(ValueError, match="labels are needed: they are the targets"):
        attack.run(small_cnn, images(2))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4, got values from 1 to 7"):
        attack.run(small_cnn, images(2), [1, 7])
