import json
import re

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import architectures
from robust_zoo.porting.layouts import LAYOUTS


def weights_without_normalisation(model):
    skipped = [
        int(np.prod(variable.shape))
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for variable in layer.variables
    ]
    return model.count_params() - sum(skipped)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: architectures.logistic(), 784),
        (lambda: architectures.mlp(), 784 * 500 + 500 + 500 * 150 + 150 + 150 * 10 + 10),
        (lambda: architectures.lenet(), 520 + 25_050 + 800 * 500 + 500 + 5_010),
        (lambda: architectures.convnet(), 2_432 + 25_632 + 51_264 + 65_600 + 650),
        (lambda: architectures.convnet(whitening=2), 145_578 + 3072 * 3 + 2 + 2),
        (lambda: architectures.nin(), 966_986),
        (lambda: architectures.cnn7(), 13_257_290),
        (lambda: architectures.madry_cnn(), 832 + 51_264 + 3_136 * 1024 + 1024 + 10_250),
        (lambda: architectures.madry_cnn(scale=1), 52 + 204 + 196 * 64 + 64 + 650),
        (lambda: architectures.madry_cnn(scale=1, dense_base=8), 52 + 204 + 196 * 8 + 8 + 90),
        (lambda: architectures.madry_resnet(), 461_882),
        (lambda: architectures.madry_resnet(width=10), 45_879_482),
        # 27 * 64; a stage of four 3 x 3 kernels; then stages with a 1 x 1 shortcut, each four times as large.
        (lambda: architectures.preact_resnet(), 1_728 + 147_456 + 524_288 * (1 + 4 + 16) + 5_130),
        (lambda: architectures.preact_resnet(width=16), 432 + 9_216 + 32_768 * 21 + 1_290),
        (lambda: architectures.galloway_cnn(), 184_832),
        (lambda: architectures.allconv(), 2_334_730),
        (lambda: architectures.allconv(num_classes=100), 2_749_540),
        (lambda: architectures.tramer_b(), 4_160 + 295_040 + 409_728 + 1_290),
        (lambda: architectures.small_cnn(), 312_202),
        (lambda: architectures.digits_cnn(), 320 + 18_496 + 1024 * 128 + 128 + 1_290),
    ],
)
def test_parameter_counts(make, parameters):
    assert weights_without_normalisation(make()) == parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: architectures.wide_resnet(width=4), 5_849_050),
        (lambda: architectures.wide_resnet(num_classes=100), 36_536_884),
        (lambda: architectures.wide_resnet(depth=34), 46_160_474),
        (lambda: architectures.wide_resnet(depth=34, stages=(320, 640, 512)), 68_116_698),
        (lambda: architectures.preact_resnet(), 11_172_170),
        (lambda: architectures.preact_resnet(shortcut="raw", final_norm=False), 11_171_146),
        (lambda: architectures.preact_resnet(shortcut="raw 3x3", border="end"), 12_548_426),
        (lambda: architectures.resnet(), 11_173_962),
        (lambda: architectures.resnet(num_classes=100, depth=50), 23_705_252),
        (lambda: architectures.resnet((224, 224, 3), 1000, stem="large"), 11_689_512),
        (lambda: architectures.resnet((224, 224, 3), 1000, depth=50, stem="large"), 25_557_032),
        (lambda: architectures.resnet(depth=20), 269_722),
        (lambda: architectures.resnet(depth=32), 464_154),
        (lambda: architectures.resnet(depth=44), 658_586),
        (lambda: architectures.resnet(depth=56), 853_018),
        (lambda: architectures.vnn_resnet(), 112_006),
        (lambda: architectures.lenet(), 431_080),
        (lambda: architectures.strided_cnn(), 166_406),
        (lambda: architectures.alexnet(), 61_100_840),
        (lambda: architectures.inception_v3(), 23_817_352),
        (lambda: architectures.efficientnet_lite0(), 4_652_008),
    ],
)
def test_parameter_counts_of_published_networks(make, parameters):
    """Those that are trained, batch normalisation's included, as RobustBench, torchvision and others have them."""
    assert sum(int(np.prod(part.shape)) for part in make().trainable_variables) == parameters


@pytest.mark.home
@pytest.mark.long
def test_inception_is_that_of_keras_applications(images):
    """With the same weights, whose layers are in one order in both: they have the same logits."""
    ours = architectures.inception_v3(num_classes=17, input_shape=(91, 83, 3))
    theirs = keras.applications.InceptionV3(
        weights=None, classes=17, input_shape=(91, 83, 3), classifier_activation=None
    )
    assert ours.count_params() == theirs.count_params()
    for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.Dense):
        named = LAYOUTS["inception_v3"][0].parts
        made = [ours.get_layer(name) for name in named if isinstance(ours.get_layer(name), kind)]
        found = [layer for layer in theirs.layers if isinstance(layer, kind)]
        # Keras numbers its layers as it makes them, and lists them by depth.
        found.sort(key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or [0])[0]))
        rng = np.random.default_rng(0)
        for a, b in zip(made, found, strict=True):
            weights = [
                value if value.ndim > 1 else np.abs(value) + rng.random(value.shape) / 2
                for value in b.get_weights()
            ]
            a.set_weights(weights)
            b.set_weights(weights)
    x = images(2, (91, 83, 3))
    expected = ops.convert_to_numpy(theirs(2 * x - 1))
    np.testing.assert_allclose(ops.convert_to_numpy(ours(x)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_what_kurakin_changes_in_inception():
    shape = (75, 75, 3)
    narrow = architectures.inception_v3(shape, width=0.25, extra_blocks=2, activation="elu")
    assert narrow.get_layer("mixed_6g").output.shape[1:] == (3, 3, 4 * 48)
    assert "mixed_6f" not in [part.name for part in architectures.inception_v3(shape).layers]
    activations = {
        layer.activation.__name__
        for layer in narrow.layers
        if isinstance(layer, keras.layers.Activation)
    }
    assert activations == {"elu"}


ALL = {
    "logistic": ({}, (28, 28, 1)),
    "mlp": ({}, (28, 28, 1)),
    "lenet": ({}, (28, 28, 1)),
    "cnn7": ({"width": 0.125}, (28, 28, 1)),
    "convnet": ({}, (32, 32, 3)),
    "nin": ({}, (32, 32, 3)),
    "madry_cnn": ({"scale": 2}, (28, 28, 1)),
    "madry_resnet": ({"units": 1}, (32, 32, 3)),
    "preact_resnet": ({"width": 4, "activation": "silu"}, (32, 32, 3)),
    "resnet": ({"width": 2, "mean": [0.5] * 3, "deviation": [0.25] * 3}, (32, 32, 3)),
    "wide_resnet": ({"depth": 10, "width": 1, "border": "end"}, (32, 32, 3)),
    "vnn_resnet": ({}, (32, 32, 3)),
    "strided_cnn": ({}, (28, 28, 1)),
    "alexnet": ({"input_shape": (63, 63, 3), "num_classes": 10}, (63, 63, 3)),
    "inception_v3": (
        {"input_shape": (75, 75, 3), "num_classes": 10, "width": 0.1},
        (75, 75, 3),
    ),
    "efficientnet_lite0": (
        {"input_shape": (32, 32, 3), "width": 0.25, "num_classes": 10},
        (32, 32, 3),
    ),
    "galloway_cnn": ({"weight_decay": 1e-3}, (32, 32, 3)),
    "allconv": ({"filters": 4}, (32, 32, 3)),
    "small_cnn": ({}, (28, 28, 1)),
    "tramer_b": ({}, (28, 28, 1)),
    "digits_cnn": ({}, (8, 8, 1)),
}


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_model_keeps_the_contract(name, images):
    arguments, shape = ALL[name]
    model = getattr(architectures, name)(**arguments)
    assert type(model).__name__ == "Functional"
    assert model.name == (name if name != "madry_cnn" else "madry_cnn_scale2")
    assert model.optimizer is None if hasattr(model, "optimizer") else True
    logits = ops.convert_to_numpy(model(images(3, shape)))
    assert logits.shape == (3, 2 if name == "logistic" else 10)
    assert logits.dtype == np.float32
    assert logits.std() > 0
    assert "logits" in [layer.name for layer in model.layers]
    modules = {
        layer["module"] for layer in keras.saving.serialize_keras_object(model)["config"]["layers"]
    }
    assert modules == {"keras.layers"}


def test_models_keep_float32_logits_in_mixed_precision(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = architectures.allconv(filters=4)
    finally:
        keras.config.set_dtype_policy("float32")
    first, _, second = model.layers[1:4]
    assert (first.compute_dtype, second.compute_dtype) == ("float32", "bfloat16")
    assert keras.backend.standardize_dtype(model(images(2, (32, 32, 3))).dtype) == "float32"


def test_logistic_logits_are_zero_and_the_margin(images):
    model = architectures.logistic((4, 4, 1), use_bias=True)
    x = images(5, (4, 4, 1))
    kernel, bias = np.random.default_rng(0).normal(size=(16, 1)), np.array([0.7])
    model.set_weights([kernel, bias])
    logits = ops.convert_to_numpy(model(x))
    np.testing.assert_array_equal(logits[:, 0], 0)
    np.testing.assert_allclose(logits[:, 1], (x.reshape(5, 16) @ kernel)[:, 0] + 0.7, rtol=1e-5)


def test_resnet_standardises_each_image(images):
    model = architectures.madry_resnet(units=1)
    standardise = keras.Model(model.inputs[0], model.layers[1].output)
    x = images(2, (32, 32, 3))
    expected = (x - x.mean(axis=(1, 2, 3), keepdims=True)) / x.std(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(ops.convert_to_numpy(standardise(x)), expected, atol=1e-4)


def test_galloway_filters_start_at_unit_norm():
    for kernel in architectures.galloway_cnn().get_weights():
        norms = np.sqrt((kernel**2).sum(axis=tuple(range(kernel.ndim - 1))))
        np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_galloway_weight_decay_is_half_the_squared_norm():
    model = architectures.galloway_cnn(weight_decay=1e-3)
    # Every output filter has norm 1, so that each kernel's squared norm is its number of filters.
    assert float(sum(model.losses)) == pytest.approx(1e-3 * (32 + 64 + 64 + 10) / 2, rel=1e-4)


def test_binary_weights_have_one_size_and_a_gradient_straight_through(images):
    model = architectures.logistic((4, 4, 1), binary=True)
    layer, x = model.get_layer("z"), images(5, (4, 4, 1))
    w = np.random.default_rng(0).normal(size=(16, 1)).astype("float32")
    w[3] = 0
    layer.kernel.assign(w)
    flat = x.reshape(5, 16)
    z = ops.convert_to_numpy(model(x))[:, 1]
    np.testing.assert_allclose(z, (flat @ (np.sign(w) * np.abs(w).mean()))[:, 0], atol=1e-5)
    # One step of training moves the kernel as a linear layer with those weights would move.
    model.compile(keras.optimizers.SGD(1.0), keras.losses.MeanSquaredError())
    targets = np.stack([np.zeros(5), np.arange(5)], axis=1).astype("float32")
    model.fit(x, targets, batch_size=5, verbose=0)
    gradient = flat.T @ (z - targets[:, 1]) / 5
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer.kernel)[:, 0], w[:, 0] - gradient, atol=1e-5
    )


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("relu6", lambda x: np.clip(x, 0, 6)),
        ("tanh", np.tanh),
        ("elu", lambda x: np.where(x > 0, x, np.exp(x) - 1)),
        (
            architectures.ReluDecay(0.1),
            lambda x: np.maximum(x, 0) / (1 + 0.1 * np.maximum(x, 0) ** 2),
        ),
    ],
)
def test_activations(activation, expected):
    x = np.linspace(-8, 8, 41, dtype="float32").reshape(1, 1, 41, 1)
    model = architectures.mlp((1, 41, 1), hidden=(41,), activation=activation)
    model.layers[2].set_weights([np.eye(41), np.zeros(41)])
    hidden = keras.Model(model.inputs[0], model.layers[3].output)
    np.testing.assert_allclose(ops.convert_to_numpy(hidden(x))[0], expected(x.ravel()), atol=1e-5)


def test_preact_resnet_keeps_pixels_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = architectures.preact_resnet(width=4)
    finally:
        keras.config.set_dtype_policy(before)
    dtypes = {
        kind: [layer.compute_dtype for layer in model.layers if isinstance(layer, kind)]
        for kind in (keras.layers.Rescaling, keras.layers.Conv2D)
    }
    assert dtypes[keras.layers.Rescaling] == ["float32"]
    first, *others = dtypes[keras.layers.Conv2D]
    assert first == "float32"
    assert set(others) == {"bfloat16"}


def test_relu_decay_survives_saving(tmp_path, images):
    model = architectures.lenet(activation=architectures.ReluDecay(0.01))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = images(2, (28, 28, 1))
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), ops.convert_to_numpy(loaded(x)))
    config = json.dumps(loaded.get_config())
    assert "robust_zoo>ReluDecay" in config
    assert '"beta": 0.01' in config


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: architectures.mlp(activation="swish"), "activation must be one of.*'swish'"),
        (lambda: architectures.ReluDecay(0), "beta must be > 0, got 0"),
        (lambda: architectures.madry_cnn(scale=0), "scale must be >= 1, got 0"),
        (lambda: architectures.cnn7(width=0.01), "width must be at least 1/64, got 0.01"),
        (lambda: architectures.madry_cnn(initial="zeros"), "initial must be 'paper' or 'glorot'"),
        (lambda: architectures.madry_resnet(width=0), "width must be >= 1, got 0"),
        (lambda: architectures.wide_resnet(depth=30), "depth must be 6 n . 4, 10 or more, got 30"),
        (lambda: architectures.wide_resnet(border="top"), "border must be one of .*'top'"),
        (lambda: architectures.wide_resnet(stages=(1, 2)), "stages must be 3 numbers"),
        (lambda: architectures.preact_resnet(shortcut="x"), "shortcut must be one of .*'x'"),
        (lambda: architectures.resnet(depth=21), "depth must be one of .*, got 21"),
        (lambda: architectures.alexnet((40, 70, 3)), "input_shape must be at least 63 x 63, got"),
        (lambda: architectures.strided_cnn((27, 28, 1)), "must have sides divisible by 4, got"),
        (lambda: architectures.vnn_resnet((32, 30, 3)), "must have sides divisible by 4, got"),
        (lambda: architectures.resnet((36, 36, 3)), "must have sides divisible by 8, got"),
        (lambda: architectures.resnet((30, 30, 3), depth=20), "sides divisible by 4, got"),
        (
            lambda: architectures.resnet((48, 48, 3), stem="large"),
            "must have sides divisible by 32, got",
        ),
        (lambda: architectures.vnn_resnet(width=0), "width must be >= 1, got 0"),
        (lambda: architectures.vnn_resnet(blocks=0), "blocks must be >= 1, got 0"),
        (lambda: architectures.inception_v3(width=0), "width must be > 0, got 0"),
        (lambda: architectures.inception_v3(extra_blocks=1), "extra_blocks must be 0 or 2, got 1"),
        (lambda: architectures.inception_v3(pool_border="x"), "pool_border must be 'counted' or"),
        (lambda: architectures.inception_v3((64, 64, 3)), "input_shape must be at least 75 x 75"),
        (lambda: architectures.efficientnet_lite0(depth=0), "depth must be > 0, got 0"),
        (lambda: architectures.resnet(stem="tiny"), "stem must be 'small' or 'large', got 'tiny'"),
        (
            lambda: architectures.resnet(mean=[0.5] * 3),
            "mean and deviation must both be None, or a num",
        ),
        (
            lambda: architectures.resnet(mean=[0.5] * 3, deviation=[1.0, 0.0, 1.0]),
            "deviation must be above 0 and finite",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def whitened(images, least_deviation, floor):
    """Contrast normalisation and whitening as MatConvNet's example has them, with all components."""
    flat = images.reshape(len(images), -1).astype("float64")
    flat = flat - flat.mean(axis=0)
    flat = flat - flat.mean(axis=1, keepdims=True)
    deviation = flat.std(axis=1, ddof=1, keepdims=True)
    flat = flat * deviation.mean() / np.maximum(deviation, least_deviation)
    variances, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    deviations = np.sqrt(variances.clip(min=0))
    total = np.sqrt((deviations**2).mean())
    factors = total / np.maximum(deviations, floor)
    return ((flat @ vectors) * factors @ vectors.T).reshape(images.shape), deviations


@pytest.mark.parametrize("floor", [0.01, 0.047])
def test_whitening(floor):
    rng = np.random.default_rng(0)
    images = rng.uniform(0.3, 0.7, (200, 4, 4, 1)) * rng.uniform(0.05, 1, (200, 1, 1, 1))
    images = images.astype("float32")
    expected, deviations = whitened(images, 0.06, floor)
    above = int((deviations > floor).sum())
    assert (above == 15) == (floor == 0.01)  # the mean is taken out: one component is zero
    layer = architectures.ZCAWhitening(above, least_deviation=0.06, floor=floor)
    model = keras.Sequential([keras.Input((4, 4, 1)), layer])
    model.compile()
    layer.adapt(images)
    np.testing.assert_allclose(ops.convert_to_numpy(model(images)), expected, atol=2e-3)
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    assert np.array_equal(ops.convert_to_numpy(again(images)), ops.convert_to_numpy(model(images)))
    assert not model.trainable_variables


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be an integer >= 1, got 0"),
        ({"rank": 3, "floor": 0.0}, "floor must be > 0, got 0.0"),
        ({"rank": 17}, "rank must be at most 16, the values of an image, got 17"),
    ],
)
def test_whitening_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        architectures.ZCAWhitening(**options).build((None, 4, 4, 1))
