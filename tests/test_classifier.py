import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo.classifier import as_classifier, serialise
from robust_zoo.contract import SQUASHING, check_classifier, check_logits


def head(kind):
    return {
        "dense": [layers.Dense(4, activation="softmax")],
        "layer": [layers.Dense(4), layers.Softmax()],
        "activation": [layers.Dense(4), layers.Activation("softmax")],
    }[kind]


def sequential(kind):
    model = keras.Sequential(
        [keras.Input((5, 5, 3)), layers.Conv2D(3, 3), layers.Flatten(), *head(kind)], name="theirs"
    )
    # Scaled for pixels of 0..255, as a model trained on them is.
    model.set_weights([weight / 100 for weight in model.get_weights()])
    return model


def functional(kind):
    inputs = keras.Input((5, 5, 3))
    outputs = sequential(kind)(inputs)
    return keras.Model(inputs, outputs, name="outer")


@pytest.mark.parametrize("make", [sequential, functional])
@pytest.mark.parametrize("kind", ["dense", "layer", "activation"])
def test_softmax_is_removed_and_pixels_are_rescaled(make, kind, images):
    theirs = make(kind)
    classifier = as_classifier(theirs, input_range=(0, 255), output="softmax")
    x = images(20, (5, 5, 3))
    logits = ops.convert_to_numpy(classifier(x))
    probabilities = ops.convert_to_numpy(theirs(255 * x))
    np.testing.assert_allclose(ops.convert_to_numpy(ops.softmax(logits)), probabilities, atol=1e-5)
    assert np.abs(logits.sum(1) - 1).max() > 1e-3
    assert "softmax" in str(theirs.get_config()).lower()  # theirs is left as it was


def test_layers_that_keras_cannot_rebuild_are_shared(images):
    class Theirs(keras.layers.Layer):  # registered nowhere
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, x):
            return self.factor * x

    model = keras.Sequential(
        [
            keras.Input((5, 5, 3)),
            Theirs(0.01),
            layers.Lambda(lambda x: x - 1),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    classifier = as_classifier(model, input_range=(0, 255), output="softmax")
    x = images(6, (5, 5, 3))
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.softmax(classifier(x))),
        ops.convert_to_numpy(model(255 * x)),
        atol=1e-5,
    )


def test_models_with_several_ends_or_integer_images_are_refused():
    inputs = keras.Input((5, 5, 3))
    flat = layers.Flatten()(inputs)
    two = keras.Model(inputs, [layers.Dense(3)(flat), layers.Dense(3)(flat)])
    with pytest.raises(TypeError, match="one output, got 2"):
        as_classifier(two)
    inputs = keras.Input((5, 5, 3), dtype="uint8")
    flat = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    with pytest.raises(TypeError, match="floating point images, got input dtype uint8"):
        as_classifier(keras.Model(inputs, layers.Dense(3)(flat)), input_range=(0, 255))


def test_ranges_with_negative_ends(images):
    model = keras.Sequential([keras.Input((5, 5, 3)), layers.Flatten(), layers.Dense(3)])
    classifier = as_classifier(model, input_range=(-1, 1))
    x = images(4, (5, 5, 3))
    np.testing.assert_allclose(
        ops.convert_to_numpy(classifier(x)), ops.convert_to_numpy(model(2 * x - 1)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"output": "tanh"},
            ValueError,
            r"output must be one of \('logits', 'softmax', 'sigmoid'\)",
        ),
        ({"data_format": "NCHW"}, ValueError, "data_format must be one of"),
        ({"input_range": 255}, ValueError, "input_range must be"),
        ({"input_range": (0, 1, 2)}, ValueError, "input_range must be"),
        ({"input_range": (0, float("inf"))}, ValueError, "input_range must be"),
        ({"input_range": (1, 0)}, ValueError, "input_range must be .*low < high"),
        ({"output": "softmax"}, ValueError, "ends in a softmax, but .* ends in Dense"),
    ],
)
def test_bad_arguments(arguments, error, message):
    model = keras.Sequential([keras.Input((5, 5, 3)), layers.Flatten(), layers.Dense(3)])
    with pytest.raises(error, match=message):
        as_classifier(model, **arguments)


def test_logits_that_are_a_softmax_are_refused():
    with pytest.raises(ValueError, match="ends in softmax"):
        as_classifier(sequential("dense"), input_range=(0, 255))


class Subclass(keras.Model):
    """Declares a softmax; whether `call` uses it is another matter."""

    def __init__(self, squash):
        super().__init__()
        self.flatten, self.dense, self.softmax = layers.Flatten(), layers.Dense(4), layers.Softmax()
        self.squash = squash

    def call(self, x):
        logits = self.dense(self.flatten(x))
        return self.softmax(logits) if self.squash else logits


def test_subclasses_are_taken_once_they_are_built(images):
    x = images(6, (5, 5, 3))
    theirs = Subclass(squash=False)
    with pytest.raises(TypeError, match=r"must be built.*call it once on a batch of images"):
        as_classifier(theirs)
    expected = ops.convert_to_numpy(theirs(x))
    np.testing.assert_allclose(ops.convert_to_numpy(as_classifier(theirs)(x)), expected, atol=1e-6)


def endings(z):
    """Ways to end in a softmax."""
    inside = keras.Input(z.shape[1:])
    return {
        "functional Softmax": layers.Softmax()(z),
        "ops": ops.softmax(z),
        "activations": keras.activations.softmax(z),
        "reshaped": layers.Flatten()(layers.Softmax()(layers.Reshape((1, z.shape[1]))(z))),
        "nested": keras.Model(inside, layers.Softmax()(inside))(z),
        "nested sequential": keras.Sequential([layers.Dense(4, activation="softmax")])(z),
        "activation layer": layers.Identity()(layers.Activation("softmax")(z)),
    }


@pytest.mark.parametrize("ending", endings(keras.KerasTensor((None, 4))))
def test_every_ending_in_a_softmax_is_cut(ending, images):
    inputs = keras.Input((5, 5, 3))
    theirs = keras.Model(inputs, endings(layers.Dense(4)(layers.Flatten()(inputs)))[ending])
    check_cut(theirs, images)


def test_the_softmax_of_a_subclass_is_cut(images):
    theirs = Subclass(squash=True)
    theirs(images(2, (5, 5, 3)))
    check_cut(theirs, images)


def check_cut(theirs, images):
    x = images(6, (5, 5, 3))
    logits = ops.convert_to_numpy(as_classifier(theirs, output="softmax")(x))
    expected = ops.convert_to_numpy(theirs(x))
    exponential = np.exp(logits.astype("float64"))
    np.testing.assert_allclose(exponential / exponential.sum(1, keepdims=True), expected, atol=1e-6)
    assert np.abs(logits.sum(1) - 1).max() > 1e-3


def test_sigmoids_are_cut(images):
    x = images(6, (5, 5, 3))
    inputs = keras.Input((5, 5, 3))
    theirs = keras.Model(inputs, layers.Dense(4, activation="sigmoid")(layers.Flatten()(inputs)))
    logits = ops.convert_to_numpy(as_classifier(theirs, output="sigmoid")(x))
    np.testing.assert_allclose(
        1 / (1 + np.exp(-logits)), ops.convert_to_numpy(theirs(x)), atol=1e-6
    )


def test_one_sigmoid_unit_becomes_two_logits(images):
    x = images(6, (5, 5, 3))
    inputs = keras.Input((5, 5, 3))
    theirs = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match=r"one sigmoid: use .*output='sigmoid'"):
        check_classifier(theirs)
    logits = ops.convert_to_numpy(as_classifier(theirs, output="sigmoid")(x))
    assert logits.shape == (6, 2)
    assert (logits[:, 0] == 0).all()
    positive = ops.convert_to_numpy(theirs(x))[:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 1])), positive, atol=1e-6)


@pytest.mark.parametrize(
    "activation", sorted(set(SQUASHING) - {"softmax", "arctan", "clip", "erf", "prelu", "where"})
)
def test_final_squashing_is_refused_by_name(activation):
    inputs = keras.Input((5, 5, 3))
    z = layers.Dense(4)(layers.Flatten()(inputs))
    squashed = layers.Reshape((4,))(layers.Activation(activation)(z))
    with pytest.raises(ValueError, match=rf"must return logits, but .* ends in {activation}"):
        check_classifier(keras.Model(inputs, squashed))


def test_squashing_is_refused_by_its_values(images):
    model = keras.Sequential([keras.Input((5, 5, 3)), layers.Flatten(), layers.Dense(4)])
    z = np.random.default_rng(0).normal(0, 4, (32, 4)).astype("float32")
    for values, message in (
        (1 / (1 + np.exp(-z)), r"lie in \[0, 1\].*sigmoid"),
        (np.tanh(z), r"lie in \[-1, 1\].*tanh"),
        (np.exp(z) / np.exp(z).sum(1, keepdims=True), "are probabilities"),
    ):
        with pytest.raises(ValueError, match=message):
            check_logits(values, model)
    for factor in (1e-6, 1e-3, 1, 1e12):
        assert check_logits(factor * z, model) is not None


@pytest.mark.parametrize("pack", [lambda z: [z], lambda z: {"logits": z}])
def test_one_output_in_a_list_or_dictionary_is_unwrapped(pack, images):
    inputs = keras.Input((5, 5, 3))
    z = layers.Dense(4)(layers.Flatten()(inputs))
    theirs = keras.Model(inputs, pack(z))
    with pytest.raises(TypeError, match=r"one output tensor.*as_classifier makes one"):
        check_classifier(theirs)
    x = images(3, (5, 5, 3))
    found = ops.convert_to_numpy(as_classifier(theirs)(x))
    np.testing.assert_array_equal(found, ops.convert_to_numpy(keras.Model(inputs, z)(x)))


def test_channels_first(images):
    inputs = keras.Input((3, 5, 5))
    theirs = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match=r"channels first: use .*data_format='channels_first'"):
        check_classifier(theirs)
    x = images(3, (5, 5, 3))
    classifier = as_classifier(theirs, data_format="channels_first", input_range=(0, 255))
    assert classifier.input_shape == (None, 5, 5, 3)
    expected = ops.convert_to_numpy(theirs(255 * np.transpose(x, (0, 3, 1, 2))))
    np.testing.assert_allclose(ops.convert_to_numpy(classifier(x)), expected, rtol=1e-4, atol=1e-4)


def test_integer_inputs_are_refused_where_they_would_truncate():
    inputs = keras.Input((5, 5, 3), dtype="uint8")
    theirs = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(layers.Rescaling(1.0)(inputs))))
    with pytest.raises(TypeError, match=r"floating point images.*input dtype uint8"):
        check_classifier(theirs)


def test_a_trainer_is_not_its_classifier():
    class Trainer(keras.Model):
        def __init__(self, classifier):
            super().__init__()
            self.classifier = classifier

    trainer = Trainer(keras.Sequential([keras.Input((5, 5, 3)), layers.Flatten(), layers.Dense(3)]))
    for refuse in (check_classifier, as_classifier):
        with pytest.raises(TypeError, match=r"trainer Trainer around one: give its \.classifier"):
            refuse(trainer)


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (lambda z: -ops.softmax(-z), "scaled softmax"),
        (lambda z: layers.Rescaling(4.0, -2.0)(ops.sigmoid(z)), "scaled sigmoid"),
        (lambda z: 30 * ops.tanh(z / 30), "scaled tanh"),
        (ops.arctan, "arctan"),
        (lambda z: ops.clip(z, -5, 5), "clip"),
        (layers.ReLU(max_value=6), "relu6"),
    ],
)
def test_squashing_that_is_scaled_or_cut_is_refused(end, name):
    inputs = keras.Input((2, 2, 1))
    z = layers.Dense(4)(layers.Flatten()(inputs))
    with pytest.raises(ValueError, match=f"ends in {name}: "):
        check_classifier(keras.Model(inputs, end(z)))
    for harmless in (2 * z - 1, z - ops.mean(z, axis=1, keepdims=True)):
        check_classifier(keras.Model(inputs, harmless))


class Scaled(keras.layers.Layer):
    """An operation of the author's own, with a dense layer before it or without."""

    def __init__(self, end, units=None):
        super().__init__()
        self.end = end
        self.dense = None if units is None else layers.Dense(units)

    def build(self, shape):
        if self.dense is not None:
            self.dense.build(shape)

    def call(self, z):
        return self.end(z if self.dense is None else self.dense(z))


def cosine(z):
    """What only depends on the direction: its logits are as far as they look."""
    return 20 * z / ops.sqrt(ops.sum(z * z, axis=1, keepdims=True))


@pytest.mark.parametrize("wrap", [Scaled, lambda end: Scaled(end, 4), layers.Lambda])
def test_squashing_in_the_authors_own_layers_is_refused(wrap):
    inputs = keras.Input((2, 2, 1))
    z = layers.Dense(4)(layers.Flatten()(inputs))
    for end in (
        lambda z: 10 * ops.sigmoid(z),
        lambda z: 30 * ops.tanh(z / 30),
        lambda z: ops.softmax(z) - 0.1,
        lambda z: ops.relu(z),
        lambda z: ops.log(ops.softmax(z) + 1e-3),
    ):
        squashed = wrap(end)(z)
        for made in (squashed, layers.Reshape((4,))(squashed), 10 * squashed - 1):
            with pytest.raises(
                ValueError, match=r"ends in (Scaled|Lambda) '.*make a keras\.Model of"
            ):
                check_classifier(keras.Model(inputs, made))
    for end in (lambda z: 3 * z - 1, ops.log_softmax, cosine, lambda z: ops.sign(z) * z * z):
        check_classifier(keras.Model(inputs, wrap(end)(z)))


def test_outputs_at_both_ends_of_a_range_are_squashed():
    model = keras.Sequential([keras.Input((5, 5, 3)), layers.Flatten(), layers.Dense(4)])
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 4)) + 12 * np.eye(4)[rng.integers(0, 4, 40)] - 6
    assert check_logits(z, model) is z
    squashed = 10 / (1 + np.exp(-2 * z))
    with pytest.raises(ValueError, match=r"lie at the ends of .*as those of a scaled sigmoid do"):
        check_logits(squashed, model)
    for always in (np.zeros(4), np.eye(4)[0] * 2):  # a model that has collapsed
        assert check_logits(np.tile(always, (40, 1)), model).shape == (40, 4)


def test_logits_that_happen_to_lie_in_the_unit_interval():
    """Logistic regression has a first logit of 0; of images of one class, the other may lie anywhere above."""
    z = np.linspace(0, 0.8, 50, dtype="float32")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)], name="logistic")
    assert check_logits(np.stack([0 * z, z], axis=1), model) is not None
    with pytest.raises(ValueError, match=r"lie in \[0, 1\] \(0 to 0.8\), as those of a sigmoid do"):
        check_logits(np.stack([z[::-1], z], axis=1), model)
    # A sigmoid's class that is never seen underflows to 0.
    with pytest.raises(ValueError, match="as those of a sigmoid do"):
        check_logits(np.stack([0 * z, z[::-1], z], axis=1), model)


class Unkept(keras.layers.Layer):
    """Without a get_config for its argument."""

    def __init__(self, scale, **options):
        super().__init__(**options)
        self.scale = scale

    def call(self, x):
        return x * float(self.scale)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Unkept(np.float32(2)),
        lambda: keras.layers.Activation(
            functools.partial(keras.activations.leaky_relu, negative_slope=0.1)
        ),
    ],
)
def test_layers_that_do_not_tell_how_they_were_made_are_refused_in_a_sentence(layer):
    inputs = keras.Input((6, 6, 1))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(layer()(inputs))))
    with pytest.raises(TypeError, match=r"cannot tell how it was made.*get_config") as info:
        serialise(model)
    assert "\n" not in str(info.value)
