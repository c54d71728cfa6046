import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo import architectures
from robust_zoo.classifier import as_classifier, in_float32, with_new_head


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
    with pytest.raises(TypeError, match="one input and one output, got 1 and 2"):
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
        ({"output": "sigmoid"}, ValueError, r"output must be one of \('logits', 'softmax'\)"),
        ({"input_range": 255}, ValueError, "input_range must be"),
        ({"input_range": (0, 1, 2)}, ValueError, "input_range must be"),
        ({"input_range": (0, float("inf"))}, ValueError, "input_range must be"),
        ({"input_range": (1, 0)}, ValueError, "input_range must be .*low < high"),
        ({"output": "softmax"}, ValueError, "last layer is a softmax, but .* ends in Dense"),
    ],
)
def test_bad_arguments(arguments, error, message):
    model = keras.Sequential([keras.Input((5, 5, 3)), layers.Flatten(), layers.Dense(3)])
    with pytest.raises(error, match=message):
        as_classifier(model, **arguments)


def test_logits_that_are_a_softmax_are_refused():
    with pytest.raises(ValueError, match="ends in softmax"):
        as_classifier(sequential("dense"), input_range=(0, 255))


def test_subclassed_models_are_refused_with_a_way_out():
    class Theirs(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match=r"functional or built sequential.*keras.Model\(inputs"):
        as_classifier(Theirs())


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
