"""Certificates against closed forms, exact solutions, brute force and attacks."""

import itertools
import re

import keras
import numpy as np
import pytest
import scipy.optimize
from keras import layers, ops

from robust_zoo.attacks import PGD
from robust_zoo.certification import (
    Affine,
    Interval,
    NoRuleError,
    box,
    certify,
    graph,
    interval_rule,
    margins,
    propagate,
)
from robust_zoo.inference import predict

METHODS = (("ibp",), ("crown-ibp",), ("ibp", "crown-ibp"))


def bounds_of(model, x, y, epsilon, slope=None):
    """float64 (n, classes) margins, and the intervals of the logits."""
    found = propagate(graph(model), box(ops.convert_to_tensor(x), epsilon))
    made = margins(found, ops.convert_to_tensor(y), model.output_shape[1], slope)
    logits = found.intervals[found.target]
    return [ops.convert_to_numpy(part).astype("float64") for part in (made, *logits)]


def randomised(model, seed=0, scale=1.0):
    """All weights drawn, those that must be positive of moving statistics kept so."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        value = (
            rng.normal(size=variable.shape) * scale / np.sqrt(max(np.prod(variable.shape[:-1]), 1))
        )
        if "variance" in variable.path:
            value = 0.5 + np.abs(value)
        variable.assign(value.astype("float32"))
    return model


@pytest.mark.parametrize("methods", METHODS)
def test_a_linear_model_is_certified_exactly(linear, images, methods):
    model, kernel, bias = linear
    x, y = images(50, (2, 2, 1)), np.arange(50) % 3
    for epsilon in (0.0, 0.1, 0.4):
        low, high = np.maximum(x - epsilon, 0), np.minimum(x + epsilon, 1)
        low, high = low.reshape(50, 4), high.reshape(50, 4)
        slopes = kernel.T[y][:, None] - kernel.T[None]  # (50, 3, 4)
        least = np.minimum(slopes * low[:, None], slopes * high[:, None]).sum(-1)
        expected = least + bias[y][:, None] - bias[None]
        expected[np.arange(50), y] = np.inf
        found = certify(model, x, y, epsilon=epsilon, methods=methods)
        np.testing.assert_allclose(found.margins, expected.min(1), atol=1e-5)
        assert (found.accuracy.correct, found.accuracy.n_examples) == (found.certified.sum(), 50)
        corners = np.array(list(itertools.product((0, 1), repeat=4)))
        points = np.where(corners[None], high[:, None], low[:, None])
        logits = points @ kernel + bias
        worst = np.delete(np.arange(50 * 3), np.arange(50) * 3 + y)
        others = logits.transpose(0, 2, 1).reshape(150, -1)[worst].reshape(50, 2, -1)
        true = logits[np.arange(50), :, y][:, None]
        np.testing.assert_allclose(found.margins, (true - others).min((1, 2)), atol=1e-5)


def test_without_a_ball_margins_are_the_logits(small_cnn, images):
    x, y = images(6), np.arange(6) % 5
    logits = predict(small_cnn, x, 6).astype("float64")
    expected = logits[np.arange(6), y][:, None] - logits
    for slope in (None, "adaptive", "zero"):
        found, *_ = bounds_of(small_cnn, x, y, 0.0, slope)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert certify(small_cnn, x, y, epsilon=0).accuracy.correct == (logits.argmax(1) == y).sum()


def test_kernels_without_negative_values_have_exact_bounds(small_cnn, images):
    small_cnn.set_weights([np.abs(part) for part in small_cnn.get_weights()])
    x, y = images(4), np.zeros(4, int)
    _, low, high = bounds_of(small_cnn, x, y, 0.1)
    ends = (np.maximum(x - 0.1, 0), np.minimum(x + 0.1, 1))
    for found, end in zip((low, high), ends, strict=True):
        np.testing.assert_allclose(found, predict(small_cnn, end.astype("float32"), 4), rtol=1e-5)


def test_linear_bounds_are_exact_where_no_relu_is_open(images):
    """All active: the network is linear in the box, though intervals of two layers do not know that."""
    inputs = keras.Input((2, 2, 1))
    x = layers.Dense(6, activation="relu", bias_initializer=keras.initializers.Constant(20))(
        layers.Flatten()(inputs)
    )
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    first, _, second, bias = (part.astype("float64") for part in model.get_weights())
    x, y = images(5, (2, 2, 1)), np.array([0, 1, 2, 0, 1])
    slopes = (first @ second).T
    slopes = slopes[y][:, None] - slopes[None]
    low, high = np.maximum(x - 0.2, 0).reshape(5, 1, 4), np.minimum(x + 0.2, 1).reshape(5, 1, 4)
    constant = 20 * second.sum(0) + bias
    exact = np.minimum(slopes * low, slopes * high).sum(-1) + constant[y][:, None] - constant
    for slope in ("adaptive", "zero"):
        np.testing.assert_allclose(bounds_of(model, x, y, 0.2, slope)[0], exact, atol=1e-4)
    loose = bounds_of(model, x, y, 0.2)[0]
    assert (loose <= exact + 1e-4).all()
    assert (loose < exact - 1e-2).any()


@pytest.fixture
def tiny():
    """2 inputs, two hidden layers of 8, 3 classes: small enough to be solved exactly."""
    inputs = keras.Input((1, 2, 1))
    x = layers.Flatten()(inputs)
    for _ in range(2):
        x = layers.Dense(8, activation="relu")(x)
    return randomised(keras.Model(inputs, layers.Dense(3, name="logits")(x)), seed=3, scale=2.0)


def test_bounds_are_below_a_grid_and_close_up(tiny, images):
    x, y = images(3, (1, 2, 1), seed=1), np.array([0, 1, 2])
    gaps = []
    for epsilon in (0.2, 0.05, 0.01):
        ends = [(max(v - epsilon, 0), min(v + epsilon, 1)) for v in x.reshape(3, 2).ravel()]
        for i in range(3):
            axes = [np.linspace(*ends[2 * i + k], 201) for k in (0, 1)]
            points = np.stack(np.meshgrid(*axes), -1).reshape(-1, 1, 2, 1).astype("float32")
            logits = predict(tiny, points, 4096).astype("float64")
            least = (logits[:, [y[i]]] - logits).min(0)
            for slope in (None, "adaptive", "zero"):
                found = bounds_of(tiny, x[i : i + 1], y[i : i + 1], epsilon, slope)[0][0]
                assert (found <= least + 1e-4).all()
                gaps.append((epsilon, slope, (least - found).max()))
    for slope in (None, "adaptive", "zero"):
        large, _, small = (
            max(gap for size, kind, gap in gaps if kind == slope and size == epsilon)
            for epsilon in (0.2, 0.05, 0.01)
        )
        assert small < large / 5


def exact_margin(model, low, high, y, k):
    """The least z_y - z_k over a box, as a mixed-integer program: a binary variable an open ReLU."""
    weights = [part.astype("float64") for part in model.get_weights()]
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    count = 2
    lower, upper, integer = list(low), list(high), [0, 0]
    rows, least, most = [], [], []
    before, bottom, top = [0, 1], low.copy(), high.copy()
    for kernel, bias in pairs[:-1]:
        centre, radius = (bottom + top) / 2, (top - bottom) / 2
        middle = centre @ kernel + bias
        a, b = middle - radius @ np.abs(kernel), middle + radius @ np.abs(kernel)
        made = []
        for unit in range(kernel.shape[1]):
            out, on = count, count + 1
            count += 2
            lower += [0, 0]
            upper += [max(b[unit], 0), 1]
            integer += [0, 1]
            terms = dict(zip(before, kernel[:, unit], strict=True))
            # out >= z; out <= z - a (1 - on); out <= b on, with z = kernel . before + bias.
            rows.append({out: 1, **{i: -w for i, w in terms.items()}})
            least.append(bias[unit]), most.append(np.inf)
            rows.append({out: 1, on: -min(a[unit], 0), **{i: -w for i, w in terms.items()}})
            least.append(-np.inf), most.append(bias[unit] - min(a[unit], 0))
            rows.append({out: 1, on: -max(b[unit], 0)})
            least.append(-np.inf), most.append(0)
            made.append(out)
        before, bottom, top = made, np.maximum(a, 0), np.maximum(b, 0)
    kernel, bias = pairs[-1]
    cost = np.zeros(count)
    cost[before] = kernel[:, y] - kernel[:, k]
    matrix = np.zeros((len(rows), count))
    for row, terms in enumerate(rows):
        for place, value in terms.items():
            matrix[row, place] += value
    found = scipy.optimize.milp(
        cost,
        integrality=integer,
        bounds=scipy.optimize.Bounds(lower, upper),
        constraints=scipy.optimize.LinearConstraint(matrix, least, most),
    )
    assert found.success, found.message
    return found.fun + bias[y] - bias[k]


def test_bounds_are_below_exact_solutions_which_are_below_attacks(tiny, images):
    x, y, epsilon = images(4, (1, 2, 1), seed=2), np.array([0, 1, 2, 0]), 0.15
    made = {slope: bounds_of(tiny, x, y, epsilon, slope)[0] for slope in (None, "adaptive", "zero")}
    attacked = PGD(epsilon=epsilon, steps=40, step_size=0.02, restarts=3)(
        tiny, ops.convert_to_tensor(x), ops.convert_to_tensor(y), key=np.zeros((4, 2), "uint32")
    )
    logits = predict(tiny, ops.convert_to_numpy(attacked), 4).astype("float64")
    low = np.maximum(x - epsilon, 0).reshape(4, 2).astype("float64")
    high = np.minimum(x + epsilon, 1).reshape(4, 2).astype("float64")
    tight = 0
    for i in range(4):
        for k in range(3):
            if k == y[i]:
                continue
            exact = exact_margin(tiny, low[i], high[i], y[i], k)
            assert exact <= logits[i, y[i]] - logits[i, k] + 1e-4
            for found in made.values():
                assert found[i, k] <= exact + 1e-4
            assert max(made["adaptive"][i, k], made["zero"][i, k]) >= made[None][i, k] - 2.0
            tight += made["adaptive"][i, k] > exact - 0.5
    assert tight >= 4


# Every layer with a rule, on 6 x 6 images of 2 channels (or what a Flatten makes of them).
RULED = {
    "dense": lambda: [layers.Flatten(), layers.Dense(5, activation="tanh")],
    "conv2d": lambda: [layers.Conv2D(3, 3, strides=2, padding="same", activation="elu")],
    "dilated": lambda: [layers.Conv2D(4, 2, dilation_rate=2, groups=2)],
    "depthwise": lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2, activation="softplus")],
    "conv1d": lambda: [layers.Reshape((12, 6)), layers.Conv1D(3, 4, padding="causal")],
    "conv3d": lambda: [layers.Reshape((6, 3, 2, 2)), layers.Conv3D(3, 2)],
    "batch normalisation": lambda: [layers.BatchNormalization()],
    "plain batch normalisation": lambda: [layers.BatchNormalization(scale=False, center=False)],
    "rescaling": lambda: [layers.Rescaling([-2.0, 3.0], [1.0, -1.0])],
    "normalization": lambda: [layers.Normalization(mean=[0.4, 0.5], variance=[0.1, 0.2])],
    "inverse": lambda: [layers.Normalization(mean=[0.4, 0.5], variance=[0.1, 0.2], invert=True)],
    "relu6": lambda: [layers.Rescaling(20, -8), layers.ReLU(6.0)],
    "relu": lambda: [layers.Rescaling(2, -1), layers.ReLU(negative_slope=0.1, threshold=0.2)],
    "leaky": lambda: [layers.Rescaling(2, -1), layers.LeakyReLU(0.3)],
    "ELU": lambda: [layers.Rescaling(2, -1), layers.ELU()],
    "max pooling": lambda: [layers.MaxPooling2D(3, strides=2, padding="same")],
    "average pooling": lambda: [layers.AveragePooling2D(3, strides=1, padding="same")],
    "global max": lambda: [layers.GlobalMaxPooling2D()],
    "global average": lambda: [layers.GlobalAveragePooling2D()],
    "moves": lambda: [layers.ZeroPadding2D(1), layers.Cropping2D(((0, 1), (2, 0))), layers.Permute((3, 1, 2))],
    "upsampling": lambda: [layers.Reshape((36, 2)), layers.UpSampling1D(2)],
    "repeat": lambda: [layers.Flatten(), layers.RepeatVector(2)],
    "nothing": lambda: [layers.Dropout(0.5), layers.GaussianNoise(1.0), layers.Identity()],
    **{
        name: (lambda name=name: [layers.Rescaling(8, -5), layers.Activation(name)])
        for name in (
            "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "log_sigmoid",
            "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "squareplus", "tanh",
        )
    },
}  # fmt: skip


def merged(kind):
    def build(inputs):
        one = layers.Conv2D(3, 3, padding="same")(inputs)
        other = layers.Conv2D(3, 1, activation="relu")(inputs)
        if isinstance(kind, str):
            return {"+": one + other, "-": one - other, "max": ops.maximum(one, other)}[kind]
        return kind()([one, other])

    return build


MERGED = {
    **{
        kind.__name__: merged(kind)
        for kind in (layers.Add, layers.Average, layers.Subtract, layers.Concatenate, layers.Maximum, layers.Minimum)
    },
    **{sign: merged(sign) for sign in ("+", "-", "max")},
}  # fmt: skip


def one_layer(name):
    inputs = keras.Input((6, 6, 2))
    if name in MERGED:
        return randomised(keras.Model(inputs, MERGED[name](inputs)), seed=5)
    x = inputs
    for layer in RULED[name]():
        x = layer(x)
    model = keras.Model(inputs, x)
    return model if "ormalization" in str(RULED[name]) else randomised(model, seed=5)


@pytest.mark.parametrize("name", [*RULED, *MERGED])
def test_no_point_of_a_box_leaves_the_bounds(name, images):
    """Inside, random points and corners stay within; and of an affine layer some corner touches every bound."""
    model = one_layer(name)
    rng = np.random.default_rng(0)
    x = images(1, (6, 6, 2))
    low, high = np.maximum(x - 0.3, 0), np.minimum(x + 0.2, 1)
    found = propagate(graph(model), Interval(*map(ops.convert_to_tensor, (low, high))))
    lower, upper = (ops.convert_to_numpy(part)[0] for part in found.intervals[found.target])
    share = rng.random((1000, 6, 6, 2))
    share[::2] = share[::2] > 0.5
    made = ops.convert_to_numpy(model((low + share * (high - low)).astype("float32")))
    slack = 1e-5 * (1 + np.abs(made).max())
    assert (made >= lower - slack).all()
    assert (made <= upper + slack).all()
    # Bounds of a value at a time are reached unless two branches disagree about a corner: never far away.
    assert (upper - lower).max() <= 6 * (made.max(0) - made.min(0)).max() + slack


def every_layer():
    """A network that has most kinds of layers, with a branch, a shared layer and models inside."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Rescaling(2.0, -1.0)(inputs)
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.LeakyReLU(0.1)(x)
    shared = layers.Conv2D(4, 3, padding="same", activation="relu")
    inside_input = keras.Input((8, 8, 4))
    inside = keras.Model(inside_input, shared(shared(inside_input)) + inside_input)
    x = inside(x)
    x = keras.Sequential([layers.MaxPooling2D(2), layers.Conv2D(3, 3, activation="silu")])(x)
    x = layers.Concatenate()([x, layers.ZeroPadding2D(0)(x)])
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    x = layers.Dense(8, activation="relu")(x)
    x = layers.Dense(7)(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(x))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_attacks_never_get_below_the_bounds(seed, images):
    model = randomised(every_layer(), seed, scale=1.5)
    x = images(8, (8, 8, 2), seed=seed)
    y = predict(model, x, 8).argmax(1)
    before = None
    for epsilon in (0.002, 0.01, 0.05):
        attack = PGD(epsilon=epsilon, steps=20, step_size=epsilon / 4, restarts=2)
        result = attack.run(model, x, y, seed=seed)
        moved = predict(model, result.x_adv, 8).astype("float64")
        reached = moved[np.arange(8), y][:, None] - moved
        reached[np.arange(8), y] = np.inf
        bounds = [bounds_of(model, x, y, epsilon, slope)[0] for slope in (None, "adaptive", "zero")]
        for found in bounds:
            found[np.arange(8), y] = np.inf
            assert (found <= reached + 1e-4 * (1 + np.abs(moved).max())).all()
        certified = certify(model, x, y, epsilon=epsilon)
        np.testing.assert_allclose(
            certified.margins, np.max(bounds, axis=0).min(1), atol=1e-4, rtol=1e-4
        )
        assert not (certified.certified & result.success).any()
        if before is not None:
            assert (certified.margins <= before + 1e-4).all()
        before = certified.margins
    assert certify(model, x, y, epsilon=1e-5).accuracy.correct == 8


def test_batches_and_order_change_nothing(small_cnn, images):
    x, y = images(11), np.arange(11) % 5
    whole = certify(small_cnn, x, y, epsilon=0.03, batch_size=16).margins
    np.testing.assert_allclose(
        certify(small_cnn, x, y, epsilon=0.03, batch_size=3).margins, whole, atol=1e-6
    )
    back = certify(small_cnn, x[::-1].copy(), y[::-1].copy(), epsilon=0.03).margins
    np.testing.assert_allclose(back[::-1], whole, atol=1e-6)


def test_batch_normalisation_is_that_of_the_folded_network(images):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3)(inputs)
    normalised = layers.BatchNormalization()(x)
    end = layers.Dense(4, name="logits")
    model = randomised(
        keras.Model(inputs, end(layers.Flatten()(layers.ReLU()(normalised)))), seed=4
    )
    kernel, bias, gamma, beta, *rest = model.get_weights()
    last, constant, mean, variance = (
        (*rest[:2], *rest[2:]) if rest[0].ndim == 2 else (*rest[2:], *rest[:2])
    )
    factor = gamma / np.sqrt(variance + 1e-3)
    folded = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    folded.set_weights([kernel * factor, (bias - mean) * factor + beta, last, constant])
    x, y = images(3, (6, 6, 2)), np.arange(3)
    for slope in (None, "adaptive"):
        one, other = (bounds_of(each, x, y, 0.1, slope)[0] for each in (model, folded))
        np.testing.assert_allclose(one, other, atol=1e-4)


class Strange(layers.Layer):
    def call(self, x):
        return ops.sin(x)


class OtherDense(layers.Dense):
    def call(self, x):
        return -super().call(x)


def ending(*parts):
    return keras.Sequential([keras.Input((4, 4, 1)), *parts, layers.Flatten(), layers.Dense(2)])


def with_operation(operation):
    inputs = keras.Input((4, 4, 1))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(operation(inputs))))


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (lambda: ending(Strange(name="odd")), "'odd' (Strange)"),
        (lambda: ending(OtherDense(3, name="negated")), "'negated' (OtherDense)"),
        (lambda: ending(layers.LayerNormalization(name="norm")), "'norm' (LayerNormalization)"),
        (lambda: ending(layers.Activation(ops.sin, name="wave")), "sin' of layer 'wave'"),
        (lambda: ending(layers.Dense(3, activation="softmax", name="x")), "'softmax' of layer 'x'"),
        (lambda: with_operation(ops.square), "(Square)"),
        (lambda: with_operation(lambda x: x + 1), "(Add) is none"),
    ],
)
def test_layers_without_a_rule_are_named(model, named, images):
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        certify(model(), images(2, (4, 4, 1)), np.array([0, 1]), epsilon=0.1)
    assert "interval rule" in str(caught.value) or isinstance(caught.value, NoRuleError)


def test_a_rule_of_one_s_own(images):
    class Halved(layers.Layer):
        def call(self, x):
            return x / 2

    @interval_rule(Halved)
    def rule(layer):
        return [Affine(lambda x: x / 2, lambda radius: radius / 2)]

    plain, halved = ending(), ending(Halved())
    weights = plain.get_weights()
    halved.set_weights([2 * weights[0], weights[1]])
    x, y = images(4, (4, 4, 1)), np.array([0, 1, 0, 1])
    np.testing.assert_allclose(
        *(certify(model, x, y, epsilon=0.1).margins for model in (plain, halved)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -0.1}, "epsilon must be a number >= 0, got -0.1"),
        ({"epsilon": np.nan}, "epsilon must be a number >= 0, got nan"),
        ({"epsilon": True}, "epsilon must be a number >= 0, got True"),
        ({"methods": ()}, "methods must be some of .*, got ()"),
        ({"methods": ("crown",)}, "methods must be some of .*'crown'"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_bad_arguments(small_cnn, images, change, message):
    with pytest.raises(ValueError, match=message):
        certify(small_cnn, images(2), np.array([0, 1]), **({"epsilon": 0.1} | change))
