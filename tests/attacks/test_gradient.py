import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import (
    DLR,
    FGSM,
    PGD,
    BasicIterative,
    CWMargin,
    FastGradient,
    MomentumIterative,
)
from robust_zoo.backend import random


def two_layer():
    """A 4-5-3 network with tanh and its weights in float64."""
    inputs = keras.Input((2, 2, 1))
    hidden = keras.layers.Dense(5, activation="tanh")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(hidden))
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=shape).astype("float32") for shape in ((4, 5), (5,), (5, 3), (3,))]
    model.set_weights(weights)
    return model, [weight.astype("float64") for weight in weights]


def numpy_input_gradient(weights, x, y):
    """Gradient of the cross-entropy of a tanh network, by the chain rule on paper."""
    first, first_bias, second, second_bias = weights
    hidden = np.tanh(x.reshape(len(x), -1) @ first + first_bias)
    logits = hidden @ second + second_bias
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    error = probabilities - np.eye(3)[y]
    gradient = ((error @ second.T) * (1 - hidden**2)) @ first.T
    return gradient.reshape(x.shape), logits


def numpy_attack(weights, x, y, start, *, epsilon, step_size, steps, norm, decay=None):
    x_adv, momentum = start.astype("float64"), 0
    for _ in range(steps):
        gradient, _ = numpy_input_gradient(weights, x_adv, y)
        if decay is not None:
            mean = np.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)
            gradient = momentum = decay * momentum + gradient / mean
        if norm == "linf":
            x_adv = x_adv + step_size * np.sign(gradient)
            x_adv = np.clip(x_adv, x - epsilon, x + epsilon)
        else:
            length = np.sqrt((gradient**2).sum(axis=(1, 2, 3), keepdims=True))
            change = x_adv + step_size * gradient / length - x
            size = np.sqrt((change**2).sum(axis=(1, 2, 3), keepdims=True))
            x_adv = x + change * np.minimum(1, epsilon / size)
        x_adv = np.clip(x_adv, 0, 1)
    return x_adv


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", ["pgd", "momentum", "fgsm"])
def test_agrees_with_an_independent_computation_on_every_backend(kind, norm, images):
    """The last iterate agrees to 1e-5 with NumPy in float64, from the same start, on every backend."""
    model, weights = two_layer()
    x, y = images(8, (2, 2, 1)), np.arange(8, dtype="int32") % 3
    keys = random.fold_in(random.key(5), np.arange(8))
    start, epsilon = x, 0.1
    if kind == "pgd":
        attack = PGD(epsilon=epsilon, steps=6, step_size=0.04, norm=norm)
        # What the attack itself does with its key, restart 0 and the start's own fold.
        folded = random.fold_in(random.fold_in(keys, 0), 0)
        start = ops.convert_to_numpy(
            attack.geometry.random_start(folded, ops.convert_to_tensor(x), epsilon)
        )
        assert np.abs(start - x).max() > 0.02
    elif kind == "momentum":
        attack = MomentumIterative(epsilon=epsilon, steps=6, norm=norm)
    else:
        attack = FGSM(epsilon=epsilon, norm=norm)
    found = ops.convert_to_numpy(
        attack(model, ops.convert_to_tensor(x), ops.convert_to_tensor(y), key=keys)
    )
    expected = numpy_attack(
        weights,
        x.astype("float64"),
        y,
        start,
        epsilon=epsilon,
        step_size=attack.step_size,
        steps=attack.steps,
        norm=norm,
        decay=1.0 if kind == "momentum" else None,
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - x).max() > 0.05


def test_fgsm_is_the_exact_worst_case_of_a_linear_two_class_model(images):
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(4, 2)), np.zeros(2)
    bias[0] = -(kernel[:, 0] - kernel[:, 1]).sum() / 2  # a grey image is on the boundary
    model.set_weights([kernel, bias])
    x = 0.3 + 0.4 * images(50, (2, 2, 1))  # far enough from 0 and 1 that nothing is clipped
    margin = x.reshape(50, 4) @ (kernel[:, 0] - kernel[:, 1]) + bias[0] - bias[1]
    y = (margin < 0).astype("int32")
    result = FGSM(epsilon=0.1).run(model, x, y)
    logits = result.x_adv.reshape(50, 4).astype("float64") @ kernel + bias
    reached = np.abs(margin) - 0.1 * np.abs(kernel[:, 0] - kernel[:, 1]).sum()
    sign = np.where(y == 0, 1, -1)
    np.testing.assert_allclose(sign * (logits[:, 0] - logits[:, 1]), reached, atol=1e-5)
    np.testing.assert_array_equal(result.success, reached < 0)
    assert 0 < result.success.mean() < 1


@pytest.mark.slow
def test_pgd_success_on_a_linear_two_class_model_is_the_closed_form(images):
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(4, 2)), np.zeros(2)
    bias[0] = -(kernel[:, 0] - kernel[:, 1]).sum() / 2
    model.set_weights([kernel, bias])
    x = 0.3 + 0.4 * images(100, (2, 2, 1))
    weights = kernel[:, 0] - kernel[:, 1]
    margin = np.abs(x.reshape(100, 4) @ weights + bias[0])
    for norm, dual in (("linf", np.abs(weights).sum()), ("l2", np.sqrt((weights**2).sum()))):
        epsilon = float(np.median(margin) / dual)
        assert epsilon < 0.3
        result = PGD(epsilon=epsilon, norm=norm, steps=30).run(model, x)
        certain = np.abs(margin - epsilon * dual) > 1e-3
        np.testing.assert_array_equal(result.success[certain], (margin < epsilon * dual)[certain])


def test_saturated_logits_do_not_hide_from_pgd(images):
    """The closed form holds for logits of thousands, where softmax has no gradient in float32."""
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    kernel, bias = 2000 * np.random.default_rng(1).normal(size=(4, 2)), np.zeros(2)
    weights = kernel[:, 0] - kernel[:, 1]
    bias[0] = -weights.sum() / 2
    model.set_weights([kernel, bias])
    x = 0.3 + 0.4 * images(100, (2, 2, 1))
    margin = np.abs(x.reshape(100, 4) @ weights + bias[0])
    assert np.median(margin) > 100
    epsilon = float(np.median(margin) / np.abs(weights).sum())
    result = PGD(epsilon=epsilon, steps=30).run(model, x)
    certain = np.abs(margin - epsilon * np.abs(weights).sum()) > 1
    expected = margin < epsilon * np.abs(weights).sum()
    np.testing.assert_array_equal(result.success[certain], expected[certain])


@pytest.mark.slow
def test_targeted_attacks_reach_or_leave(small_cnn, images):
    x = images(40)
    clean = ops.convert_to_numpy(small_cnn(x))
    targets = clean.argsort(axis=1)[:, -2].astype("int32")
    reaching = PGD(epsilon=0.5, steps=30, targeted=True).run(small_cnn, x, targets)
    predicted = ops.convert_to_numpy(small_cnn(reaching.x_adv)).argmax(1)
    np.testing.assert_array_equal(reaching.success, predicted == targets)
    assert reaching.success.mean() > 0.5

    y = clean.argmax(1).astype("int32")
    leaving = PGD(epsilon=0.5, steps=30, targeted=True, labels="least_likely").run(small_cnn, x, y)
    predicted = ops.convert_to_numpy(small_cnn(leaving.x_adv)).argmax(1)
    np.testing.assert_array_equal(leaving.success, predicted != y)
    assert leaving.success.mean() > 0.5


def test_step_least_likely_is_the_paper_formula(linear, images):
    model, kernel, bias = linear
    x = images(10, (2, 2, 1)) * 0.5 + 0.25
    y = np.zeros(10, "int32")
    attack = FGSM(epsilon=0.05, labels="least_likely", targeted=True)
    key = random.key(0)
    found = ops.convert_to_numpy(
        attack(model, ops.convert_to_tensor(x), ops.convert_to_tensor(y), key=key)
    )
    logits = x.reshape(10, 4) @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = probabilities - np.eye(3)[logits.argmin(1)]
    expected = x - 0.05 * np.sign(error @ kernel.T).reshape(x.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_loss_choice_changes_the_direction(small_cnn, images):
    x, y = ops.convert_to_tensor(images(16)), ops.zeros(16, "int32")
    found = [
        ops.convert_to_numpy(FGSM(epsilon=0.1, loss=loss)(small_cnn, x, y, key=random.key(0)))
        for loss in ("cross_entropy", CWMargin(confidence=50.0), DLR())
    ]
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])


def test_basic_iterative_takes_the_papers_number_of_steps():
    steps = {levels: BasicIterative(epsilon=levels / 255).steps for levels in (2, 4, 8, 16, 32)}
    assert steps == {2: 3, 4: 5, 8: 10, 16: 20, 32: 36}
    assert BasicIterative(epsilon=0.3, steps=7).steps == 7


def test_defaults_of_the_step_size():
    assert PGD(epsilon=0.2, steps=10).step_size == pytest.approx(0.05)
    assert MomentumIterative(epsilon=0.2).step_size == pytest.approx(0.02)
    assert FGSM(epsilon=0.2).step_size == 0.2


def test_epsilon_can_be_given_for_each_example(small_cnn, images):
    x, y = images(3), np.zeros(3, "int32")
    epsilons = np.array([0.0, 0.02, 0.05], "float32")
    attack = PGD(epsilon=0.3, steps=5)
    found = ops.convert_to_numpy(
        attack(
            small_cnn,
            ops.convert_to_tensor(x),
            ops.convert_to_tensor(y),
            key=random.key(0),
            epsilon=ops.convert_to_tensor(epsilons),
        )
    )
    reached = np.abs(found - x).max(axis=(1, 2, 3))
    np.testing.assert_allclose(reached, epsilons, atol=1e-6)


def test_restarts_inside_a_step_keep_the_highest_loss(small_cnn, images):
    x, y = ops.convert_to_tensor(images(20)), ops.zeros(20, "int32")
    key = random.key(0)

    def losses(attack):
        logits = small_cnn(attack(small_cnn, x, y, key=key))
        return ops.convert_to_numpy(attack.loss(logits, y))

    one = losses(PGD(epsilon=0.1, steps=1, step_size=0.01))
    five = losses(PGD(epsilon=0.1, steps=1, step_size=0.01, restarts=5))
    assert (five >= one - 1e-6).all()
    assert (five > one + 1e-3).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0}, "epsilon must be > 0"),
        ({"epsilon": float("nan")}, "epsilon must be > 0 and finite"),
        ({"epsilon": 8}, r"epsilon must be at most 1 .* 8/255"),
        ({"epsilon": 0.1, "norm": "l7"}, "norm must be one of"),
        ({"epsilon": 0.1, "steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"epsilon": 0.1, "restarts": 0}, "restarts must be an integer >= 1, got 0"),
        ({"epsilon": 0.1, "step_size": -1}, "step_size must be > 0"),
        ({"epsilon": 0.1, "labels": "guess"}, "labels must be one of"),
        ({"epsilon": 0.1, "labels": "random"}, "needs targeted=True"),
        ({"epsilon": 0.1, "labels": "predicted", "targeted": True}, "cannot be targeted"),
        ({"epsilon": 0.1, "loss": "huber"}, "loss must be a Loss or one of"),
    ],
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        PGD(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": "8/255"}, "epsilon must be a number, got '8/255'"),
        ({"epsilon": True}, "epsilon must be a number, got True"),
        ({"epsilon": 0.1, "steps": 2.5}, "steps must be an integer, got 2.5"),
        ({"epsilon": 0.1, "steps": "x"}, "steps must be an integer, got 'x'"),
        ({"epsilon": 0.1, "step_size": "a"}, "step_size must be a number, got 'a'"),
        ({"epsilon": 0.1, "random_start": "False"}, "random_start must be True or False"),
        ({"epsilon": 0.1, "targeted": 1}, "targeted must be True or False, got 1"),
    ],
)
def test_hyperparameters_of_the_wrong_type(arguments, message):
    with pytest.raises(TypeError, match=message):
        PGD(**arguments)


def test_numpy_numbers_become_plain_ones():
    attack = PGD(epsilon=np.float32(0.5), steps=np.int64(3))
    assert (type(attack.epsilon), type(attack.steps)) == (float, int)


def test_an_l2_epsilon_in_levels_is_refused(images):
    model, _ = two_layer()
    with pytest.raises(
        ValueError, match=r"epsilon must be at most 2, .*black to white.*got 128\.0"
    ):
        PGD(epsilon=128, norm="l2").run(model, images(2, (2, 2, 1)))


def test_dlr_needs_enough_classes(images):
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="'dlr' needs a model of at least 3 classes, got 2"):
        PGD(epsilon=0.1, loss="dlr").run(model, images(2, (2, 2, 1)))


def one_step(attack, model, x, y):
    key = random.key(0)
    arguments = map(ops.convert_to_tensor, (x, np.asarray(y, "int32")))
    return ops.convert_to_numpy(attack(model, *arguments, key=key))


def test_fast_gradients_are_the_papers_formulas(images):
    model, weights = two_layer()
    x = images(6, (2, 2, 1)) * 0.4 + 0.3
    y = np.array([0, 1, 2, 0, 1, 2])
    gradient, _ = numpy_input_gradient(weights, x.astype("float64"), y)
    axes = {"axis": (1, 2, 3), "keepdims": True}
    l2 = gradient / np.sqrt((gradient**2).sum(**axes))
    linf = gradient / np.abs(gradient).max(**axes)
    for attack, step in (
        (FGSM(epsilon=0.1, norm="l2"), 0.1 * l2),
        (FastGradient(epsilon=0.1), 0.1 * linf),
        (FastGradient(epsilon=0.25, scale=100), np.clip(100 * l2, -0.25, 0.25)),
        (FastGradient(epsilon=0.25, scale=0.2), np.clip(0.2 * l2, -0.25, 0.25)),
    ):
        np.testing.assert_allclose(one_step(attack, model, x, y), x + step, atol=2e-6)


def test_fast_entropy_and_predicted_labels_ignore_the_labels_given(small_cnn, images):
    x = images(8)
    for attack in (FGSM(epsilon=0.1, loss="entropy"), FGSM(epsilon=0.1, labels="predicted")):
        first, second = (one_step(attack, small_cnn, x, np.full(8, label)) for label in (0, 3))
        np.testing.assert_array_equal(first, second)
    predicted = ops.convert_to_numpy(small_cnn(x)).argmax(1)
    given = one_step(FGSM(epsilon=0.1), small_cnn, x, predicted)
    np.testing.assert_array_equal(second, given)


def test_fast_gradient_refuses_what_it_is_not():
    with pytest.raises(ValueError, match="scale must be > 0, got 0"):
        FastGradient(epsilon=0.1, scale=0)
    with pytest.raises(ValueError, match=r"norm must be one of \('linf',\) in FastGradient"):
        FastGradient(epsilon=0.1, norm="l2")
