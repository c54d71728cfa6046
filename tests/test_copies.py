import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo import architectures
from robust_zoo.copies import CopyError, agree, copy_model, in_float32, with_new_head
from robust_zoo.defenses import with_weight_decay


@pytest.fixture
def mixed_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def test_new_head_keeps_the_body(images):
    model = architectures.digits_cnn()
    fresh = with_new_head(model, 3)
    assert fresh.output_shape == (None, 3)
    for old, new in zip(model.layers, fresh.layers, strict=True):
        if old.name != "logits":
            for a, b in zip(old.get_weights(), new.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)
    assert fresh.get_layer("logits").get_weights()[0].shape == (128, 3)
    assert ops.convert_to_numpy(fresh(images(2, (8, 8, 1)))).shape == (2, 3)
    assert model.output_shape == (None, 10)


def test_new_head_of_a_convolution(images):
    fresh = with_new_head(architectures.allconv(filters=4), 7)
    assert ops.convert_to_numpy(fresh(images(2, (32, 32, 3)))).shape == (2, 7)


def test_new_head_needs_a_layer_to_replace():
    with pytest.raises(ValueError, match=r"Dense or Conv2D layer, but .*'logistic'.* Flatten"):
        with_new_head(architectures.logistic(), 3)
    with pytest.raises(ValueError, match="num_classes must be an integer >= 2, got 1"):
        with_new_head(architectures.digits_cnn(), 1)


def test_float32_copy_of_a_mixed_precision_model(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = architectures.digits_cnn()
    finally:
        keras.config.set_dtype_policy("float32")
    copy = in_float32(mixed)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    for a, b in zip(mixed.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert in_float32(copy) is copy


def normalised(x, *between):
    """A classifier that standardises images by what it was adapted to."""
    normalisation = layers.Normalization(axis=None)
    head = layers.Dense(4, dtype="float32", name="logits")
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), normalisation, *between, layers.Flatten(), head]
    )
    normalisation.adapt(x)
    return model


def by_hand(model, x):
    """The logits of `normalised`, in NumPy."""
    kernel, bias = model.get_layer("logits").get_weights()
    return ((x - x.mean()) / x.std()).reshape(len(x), -1) @ kernel + bias


def test_adapted_normalisation_is_copied(images):
    x = images(50, (5, 5, 3)) ** 3
    model = normalised(x)
    expected = by_hand(model, x)
    for copy in (
        copy_model(model),
        with_weight_decay(model, l2=1e-3),
        in_float32(model),
        with_new_head(with_new_head(model, 4), 4),
    ):
        if (
            copy.get_layer("logits").get_weights()[0].tolist()
            != model.get_layer("logits").get_weights()[0].tolist()
        ):
            copy.get_layer("logits").set_weights(model.get_layer("logits").get_weights())
        np.testing.assert_allclose(ops.convert_to_numpy(copy(x)), expected, atol=1e-4)


@pytest.mark.usefixtures("mixed_bfloat16")
def test_layers_that_are_registered_nowhere_are_copied_in_float32(images):
    class Doubled(layers.Layer):
        def __init__(self):  # takes neither name nor dtype
            super().__init__()

        def call(self, x):
            return 2 * x

    x = images(50, (5, 5, 3))
    model = normalised(x, Doubled(), layers.Lambda(lambda x: x / 2))
    copy = in_float32(model)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    assert in_float32(copy) is copy
    np.testing.assert_allclose(ops.convert_to_numpy(copy(x)), by_hand(model, x), atol=1e-4)


def test_a_layer_with_a_saving_protocol_of_its_own_is_copied(images):
    class Shifted(layers.Layer):
        shift = 0.0  # neither a weight nor configured

        def call(self, x):
            return x + self.shift

        def save_own_variables(self, store):
            store["shift"] = np.asarray(self.shift)

        def load_own_variables(self, store):
            self.shift = float(np.asarray(store["shift"]))

    layer = Shifted()
    layer.shift = 3.0
    model = keras.Sequential([keras.Input((5, 5, 3)), layer, layers.Flatten(), layers.Dense(3)])
    x = images(4, (5, 5, 3))
    np.testing.assert_allclose(
        ops.convert_to_numpy(copy_model(model)(x)), ops.convert_to_numpy(model(x)), atol=1e-5
    )


def test_discretization_and_shared_layers_are_copied(images):
    x = images(50, (5, 5, 3))
    bins = layers.Discretization(num_bins=4, output_mode="int")
    bins.adapt(x)
    inputs = keras.Input((5, 5, 3))
    flat = layers.Flatten()(layers.Rescaling(0.25)(bins(inputs)))
    shared = layers.Dense(75, activation="tanh")
    model = keras.Model(inputs, layers.Dense(4)(shared(shared(flat))))
    copy = copy_model(model)
    assert len(copy.weights) == len(model.weights) == 4
    np.testing.assert_allclose(
        ops.convert_to_numpy(copy(x)), ops.convert_to_numpy(model(x)), atol=1e-5
    )


@pytest.mark.usefixtures("mixed_bfloat16")
def test_a_copy_that_computes_something_else_is_an_error(images):
    class Hidden(layers.Layer):
        factor = 1.0

        def call(self, x):
            return self.factor * x

    layer = Hidden()
    layer.factor = 5.0
    head = layers.Dense(3, dtype="float32")
    model = keras.Sequential([keras.Input((5, 5, 3)), layer, layers.Flatten(), head])
    with pytest.raises(CopyError, match="computes something else: logits differ by up to"):
        in_float32(model)


@pytest.mark.usefixtures("mixed_bfloat16")
def test_a_layer_that_does_not_tell_how_it_was_made_is_named():
    class Needs(layers.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)

        def get_config(self):
            return super().get_config()

        def call(self, x):
            return x

    model = keras.Sequential(
        [keras.Input((5, 5, 3)), Needs(lambda x: x, name="odd"), layers.Flatten(), layers.Dense(3)]
    )
    with pytest.raises(CopyError, match=r"layer 'odd' .* cannot be copied.*get_config"):
        in_float32(model)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda z: z * (1 + 1e-6), True),
        (lambda z: z * 1.01, False),
        (lambda z: z + np.where(z > -1e8, 1e-3, 0), False),
    ],
)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_neither_a_mask_nor_an_offset_hides_a_difference(change, same, offset):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (8, 10)).astype("float32")
    masked = np.concatenate([logits + offset, np.full((8, 2), -1e9)], axis=1).astype("float32")
    assert agree((change(logits) + offset), logits + offset, within=1e-4) == same
    assert (
        agree(
            np.where(masked > -1e8, change(masked - offset) + offset, masked), masked, within=1e-4
        )
        == same
    )
    masked[0, 0] = np.nan
    assert agree(masked, masked, within=1e-4)


@keras.saving.register_keras_serializable("tests")
class Noisy(layers.Layer):
    """Random by a seed generator, or by other means; and with state that is not saved."""

    def __init__(self, seeded=True, **options):
        super().__init__(**options)
        self.seeded, self.shift = seeded, 0.0
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        if self.seeded:
            noise = keras.random.normal(ops.shape(x), seed=self.seeds, dtype=x.dtype)
        else:
            noise = ops.convert_to_tensor(np.random.default_rng().normal(size=x.shape[1:]), x.dtype)
        return x + 0.1 * noise + ops.cast(self.shift, x.dtype)


def noisy(**options):
    inputs = keras.Input((6, 6, 1))
    layer = Noisy(**options)
    outputs = layers.Dense(4, dtype="float32")(layers.Flatten(dtype="bfloat16")(layer(inputs)))
    return keras.Model(inputs, outputs), layer


def test_copies_of_random_models_are_compared_too():
    model, layer = noisy()
    assert in_float32(model) is not model
    layer.shift = 5.0
    with pytest.raises(CopyError, match="computes something else"):
        in_float32(model)


def test_randomness_that_keras_does_not_seed_cannot_be_compared():
    model, _ = noisy(seeded=False)
    with pytest.raises(CopyError, match=r"random numbers that Keras does not seed.*SeedGenerator"):
        in_float32(model)
