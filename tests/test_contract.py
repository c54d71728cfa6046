import keras
import numpy as np
import pytest

from robust_zoo import contract
from robust_zoo.attacks import FGSM
from robust_zoo.classifier import as_classifier


@pytest.fixture
def attack():
    return FGSM(epsilon=0.1)


GOOD = np.full((2, 6, 6, 1), 0.5, "float32")


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ((GOOD * 255).astype("uint8"), TypeError, r"images must be floating.*uint8.*divide.*255"),
        (GOOD * 255, ValueError, r"images must lie in \[0, 1\], got values from 127.5 to 127.5"),
        (GOOD - 0.7, ValueError, r"images must lie in \[0, 1\], got values from -0.1999"),
        (np.where(GOOD == 0.5, np.nan, 0), ValueError, "images must be finite"),
        (np.where(GOOD == 0.5, np.inf, 0), ValueError, "images must be finite"),
        (GOOD[..., 0], ValueError, r"shape \(n, 6, 6, 1\), got \(2, 6, 6\)"),
        (np.zeros((2, 1, 6, 6)), ValueError, r"shape \(n, 6, 6, 1\), got \(2, 1, 6, 6\)"),
        (GOOD[:0], ValueError, "images must not be empty"),
    ],
)
def test_bad_images(small_cnn, attack, x, error, message):
    with pytest.raises(error, match=message):
        attack.run(small_cnn, x, np.zeros(len(x), int))


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 5], ValueError, r"labels must lie in 0..4, got values from 0 to 5"),
        ([-1, 0], ValueError, r"labels must lie in 0..4, got values from -1 to 0"),
        ([0, 1, 2], ValueError, r"labels must be .* of shape \(2,\), got shape \(3,\)"),
        (np.eye(5)[:2], TypeError, "labels must be integer classes, got dtype float64"),
        (np.eye(5, dtype=int)[:2], ValueError, r"got shape \(2, 5\)"),
    ],
)
def test_bad_labels(small_cnn, attack, y, error, message):
    with pytest.raises(error, match=message):
        attack.run(small_cnn, GOOD, y)


def test_labels_as_a_column_are_taken(small_cnn, attack):
    assert attack.run(small_cnn, GOOD, [[0], [1]]).success.shape == (2,)


def model_of(*layers):
    return keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), *layers], name="mine")


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Dense(5, activation="softmax")],
        [keras.layers.Dense(5), keras.layers.Softmax()],
        [keras.layers.Dense(5), keras.layers.Activation("softmax")],
        # Hidden from a look at the last layer, but not from a look at the numbers.
        [keras.layers.Dense(5, activation="softmax"), keras.layers.Reshape((5,))],
    ],
)
def test_softmax_models_are_refused_with_the_remedy(attack, layers):
    with pytest.raises(ValueError, match=r"must return logits, but .*'mine'.*as_classifier"):
        attack.run(model_of(*layers), GOOD)


def test_a_model_that_returns_nan_is_refused(attack):
    model = model_of(keras.layers.Dense(5))
    model.set_weights([np.full((36, 5), np.nan), np.zeros(5)])
    with pytest.raises(ValueError, match="'mine' returned NaN or infinite logits"):
        attack.run(model, GOOD)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("mlp", TypeError, "model must be a keras.Model, got str"),
        (model_of(keras.layers.Dense(1)), ValueError, r"classes >= 2\), got shape \(None, 1\)"),
        (keras.Sequential([keras.layers.Dense(5)]), TypeError, "built sequential"),
    ],
)
def test_what_is_not_a_classifier(attack, model, error, message):
    with pytest.raises(error, match=message):
        attack.run(model, GOOD)


def test_models_with_several_inputs_are_refused():
    inputs = [keras.Input((2,)), keras.Input((2,))]
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Add()(inputs)))
    with pytest.raises(TypeError, match="one input and one output"):
        contract.check_classifier(model)


def test_the_callers_images_are_not_changed(small_cnn, attack):
    x = np.random.default_rng(0).random((4, 6, 6, 1)).astype("float32")
    kept = x.copy()
    attack.run(small_cnn, x)
    np.testing.assert_array_equal(x, kept)


def ending(operation):
    inputs = keras.Input((6, 6, 1))
    return keras.Model(inputs, operation(keras.layers.Dense(5)(keras.layers.Flatten()(inputs))))


@pytest.mark.parametrize(
    "operation",
    [
        *(
            keras.layers.Activation(name)
            for name in ("relu", "elu", "selu", "gelu", "silu", "leaky_relu", "hard_silu", "mish", "celu",
                         "hard_shrink", "soft_shrink", "tanh_shrink", "threshold", "softplus")
        ),
        keras.layers.LeakyReLU(), keras.layers.PReLU(), keras.layers.ReLU(), keras.layers.ELU(),
        keras.layers.Activation(keras.layers.ReLU(6.0)),
        keras.ops.relu, keras.ops.silu, keras.ops.leaky_relu,
        lambda z: keras.ops.maximum(z, 0.0), lambda z: keras.ops.minimum(z, 5.0),
        lambda z: keras.ops.where(z > 3, 3.0, z), lambda z: keras.ops.clip(z, -3, 3),
    ],
)  # fmt: skip
def test_any_final_activation_is_refused(operation):
    with pytest.raises(
        ValueError, match=r"must return logits, but .* ends in \w+: make a keras.Model"
    ):
        contract.check_classifier(ending(operation))


@pytest.mark.parametrize(
    "operation",
    [
        keras.layers.Activation("linear"),
        keras.layers.Activation("log_softmax"),
        keras.layers.BatchNormalization(),
        lambda z: z * 2 + 1,
        lambda z: keras.ops.maximum(z, keras.layers.Dense(5)(z)),  # of two models
    ],
)
def test_what_hides_nothing_is_taken(operation):
    assert contract.check_classifier(ending(operation))


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ((3, None, None), False), ((3, 32, 48), False), ((4, 32, 32), False), ((2, 16, 16), False),
        ((3, 12, 16), False), ((1, 28, 28), False), ((8, 8, 1), True), ((32, 32, 3), True), ((28, 28, 4), True),
        ((None, None, 3), True), ((4, 4, 4), True), ((8, 8, 16), True),
    ],
)  # fmt: skip
def test_shapes_that_look_like_channels_first(shape, taken):
    inputs = keras.Input(shape)
    pooled = keras.layers.GlobalMaxPooling2D("channels_last" if shape[-1] else "channels_first")
    model = keras.Model(inputs, keras.layers.Dense(5)(pooled(inputs)))
    if taken:
        assert contract.check_classifier(model)
    else:
        with pytest.raises(ValueError, match="looks like channels first"):
            contract.check_classifier(model)


@pytest.mark.parametrize(
    "first", [keras.layers.Permute((2, 3, 1)), keras.layers.Flatten("channels_first")]
)
def test_layers_that_read_channels_first_tell(first):
    inputs = keras.Input((3, 4, 4))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(first(inputs))))
    with pytest.raises(ValueError, match="looks like channels first"):
        contract.check_classifier(model)
    right = as_classifier(model, data_format="channels_first")
    assert contract.check_classifier(right).input_shape == (None, 4, 4, 3)


def test_a_dictionary_from_the_last_model_of_a_sequential_one():
    inner_inputs = keras.Input((6, 6, 1))
    logits = keras.layers.Dense(5)(keras.layers.Flatten()(inner_inputs))
    inner = keras.Model(inner_inputs, {"logits": logits})
    model = keras.Sequential([keras.Input((6, 6, 1)), inner])
    with pytest.raises(TypeError, match="one output tensor"):
        contract.check_classifier(model)
    np.testing.assert_array_equal(as_classifier(model)(GOOD), model(GOOD)["logits"])
