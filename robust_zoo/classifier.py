"""From anybody's Keras model to a classifier that keeps our contract, and copies of one.

What comes out is always a plain functional Keras model. Wrapping shares the layers of the model that
came in; a copy in float32 or with a new head is made of an edited configuration and the same weights.
"""

import hashlib
import json

import keras
import numpy as np
from keras import layers

from robust_zoo.contract import check_classifier
from robust_zoo.record import Configuration

_OUTPUTS = ("logits", "softmax")


def serialise(model: keras.Model) -> dict:
    """The model's configuration as Keras serialises it, without what `compile` added; free to edit."""

    def plain(node):
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items() if key != "compile_config"}
        return [plain(item) for item in node] if isinstance(node, (list, tuple)) else node

    return plain(keras.saving.serialize_keras_object(model))


def describe_config(model: keras.Model) -> Configuration:
    """The hash of the model's configuration, as `config.json` holds it."""
    return Configuration(sha256=config_sha256(serialise(model)))


def config_sha256(config: dict) -> str:
    """Hexadecimal SHA-256 of a configuration's canonical JSON, without what `compile` added."""
    config = {key: value for key, value in config.items() if key != "compile_config"}
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def with_weights_of(model: keras.Model, config: dict) -> keras.Model:
    """A new model of a configuration, with the weights of `model`."""
    rebuilt = keras.saving.deserialize_keras_object(config)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _output_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer that makes the output of a functional or sequential model."""
    return model.outputs[0]._keras_history.operation


def _without_softmax(model: keras.Model) -> keras.Model:
    """`model` up to its final softmax, sharing every layer but the one that has it."""
    last = _output_layer(model)
    stripped = []

    def clone(layer):
        if layer is not last:
            return layer
        if isinstance(layer, keras.Model):
            return _without_softmax(layer)
        if isinstance(layer, layers.Softmax):
            return layers.Activation("linear", name=layer.name, dtype=layer.dtype_policy)
        config = layer.get_config()
        if config.get("activation") != "softmax":
            raise ValueError(
                f"output='softmax' needs a model whose last layer is a softmax, but {model.name!r} ends in "
                f"{type(layer).__name__} {layer.name!r}."
            )
        stripped.append(type(layer).from_config({**config, "activation": "linear"}))
        return stripped[0]

    cloned = keras.models.clone_model(model, clone_function=clone)
    for layer in stripped:
        layer.set_weights(last.get_weights())
    return cloned


def _check_softmax_removed(model: keras.Model, logits_model: keras.Model, bounds) -> None:
    low, high = bounds
    shape = [side or 32 for side in model.input_shape[1:]]
    images = np.random.default_rng(0).uniform(low, high, (16, *shape)).astype("float32")
    logits = keras.ops.cast(logits_model(images, training=False), "float32")
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    probabilities = keras.ops.cast(model(images, training=False), "float32")
    if not np.allclose(keras.ops.convert_to_numpy(probabilities), expected, atol=1e-3):
        raise ValueError(f"removing the softmax of {model.name!r} changed what it predicts.")


def as_classifier(
    model: keras.Model, *, input_range=(0.0, 1.0), output: str = "logits"
) -> keras.Model:
    """A classifier that keeps robust_zoo's contract, around anybody's Keras model.

    Args:
        model: functional or sequential `keras.Model`, images NHWC to (batch, classes). The result shares
            its layers, but for the one that has the softmax.
        input_range: the pixel range (low, high) that `model` was trained on; images in [0, 1] are
            rescaled to it inside the result.
        output: "logits", or "softmax" if the model ends in one, which is removed.

    Returns:
        Functional `keras.Model`: float32 images in [0, 1], NHWC, in; logits out.

    Raises:
        TypeError: not a Keras model with one input and one output.
        ValueError: a bad range or output, no softmax to remove, or an output that is not (batch, classes).

    Example:
        >>> mine = keras.saving.load_model("mine.keras")
        >>> classifier = as_classifier(mine, input_range=(0, 255), output="softmax")
    """
    if output not in _OUTPUTS:
        raise ValueError(f"output must be one of {_OUTPUTS}, got {output!r}.")
    bounds = tuple(np.ravel(input_range).tolist())
    if len(bounds) != 2 or not np.isfinite(bounds).all() or not bounds[0] < bounds[1]:
        raise ValueError(f"input_range must be (low, high) with low < high, got {input_range!r}.")
    inputs, outputs = (getattr(model, part, None) for part in ("inputs", "outputs"))
    if not isinstance(model, keras.Model) or not inputs or not outputs:
        raise TypeError(
            "model must be a functional or built sequential keras.Model, "
            f"got {type(model).__name__}: call it inside a keras.Model(inputs, outputs) first."
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise TypeError(
            f"model must have one input and one output, got {len(inputs)} and {len(outputs)}: make a "
            "keras.Model of the input and the output that are meant."
        )
    if not keras.backend.is_float_dtype(inputs[0].dtype):
        raise TypeError(
            f"model must take floating point images, got input dtype {inputs[0].dtype}."
        )
    inner = model
    if output == "softmax":
        inner = _without_softmax(model)
        _check_softmax_removed(model, inner, bounds)
    low, high = bounds
    images = keras.Input(model.input_shape[1:])
    x = layers.Rescaling(high - low, low)(images) if bounds != (0.0, 1.0) else images
    return check_classifier(keras.Model(images, inner(x), name=model.name))


def in_float32(model: keras.Model) -> keras.Model:
    """`model` itself if it computes in float32, else a copy that does, with the same weights."""
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model

    def set_policy(node):
        if isinstance(node, dict):
            if node.get("class_name") == "DTypePolicy":
                return {**node, "config": {"name": "float32"}}
            return {key: set_policy(value) for key, value in node.items()}
        return [set_policy(value) for value in node] if isinstance(node, list) else node

    return with_weights_of(model, set_policy(serialise(model)))


def with_new_head(model: keras.Model, num_classes: int) -> keras.Model:
    """A copy of `model` whose last layer with weights is new and makes `num_classes` logits.

    Raises:
        ValueError: `num_classes` below 2, or a model whose logits do not come from a Dense or Conv2D
            layer named "logits" or standing last.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer >= 2, got {num_classes!r}.")
    config = serialise(model)
    named = [layer for layer in _all_layers(config) if layer["config"].get("name") == "logits"]
    if not named:
        last = _output_layer(model).name
        named = [layer for layer in _all_layers(config) if layer["config"].get("name") == last]
    head = named[0]
    width = {"Dense": "units", "Conv2D": "filters"}.get(head["class_name"])
    if width is None:
        raise ValueError(
            f"num_classes needs a model whose logits come from a Dense or Conv2D layer, but those of "
            f"{model.name!r} come from {head['class_name']} {head['config']['name']!r}."
        )
    head["config"][width] = num_classes
    _forget_shapes(config)
    fresh = keras.saving.deserialize_keras_object(config)
    name = head["config"]["name"]
    for new, old in zip(fresh._flatten_layers(), model._flatten_layers(), strict=True):
        if new.name != name and not isinstance(new, keras.Model):
            new.set_weights(old.get_weights())
    return fresh


def _all_layers(config: dict):
    for layer in config["config"].get("layers", ()):
        yield layer
        yield from _all_layers(layer)


def _forget_shapes(node) -> None:
    """Drops recorded build shapes, which a new head would contradict."""
    children = node.values() if isinstance(node, dict) else node
    if isinstance(node, dict):
        node.pop("build_config", None)
    for child in children:
        if isinstance(child, (dict, list)):
            _forget_shapes(child)
