"""From anybody's Keras model to a classifier that keeps our contract, and copies of one.

These functions edit a model's serialised configuration and carry the weights over, so that what comes
out is again a plain Keras model of built-in layers.
"""

import keras
import numpy as np
from keras import layers

from robust_zoo.contract import check_classifier

_OUTPUTS = ("logits", "softmax")


def serialise(model: keras.Model) -> dict:
    """The model's configuration as Keras serialises it, without what `compile` added; free to edit."""

    def plain(node):
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items() if key != "compile_config"}
        return [plain(item) for item in node] if isinstance(node, (list, tuple)) else node

    return plain(keras.saving.serialize_keras_object(model))


def _rebuild(config: dict, model: keras.Model) -> keras.Model:
    """The model of `config` with the weights of `model`."""
    rebuilt = keras.saving.deserialize_keras_object(config)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _output_layer(config: dict) -> dict:
    """The serialised layer that makes the output of a serialised model, inner models included."""
    while config["class_name"] in ("Functional", "Sequential"):
        inner = config["config"]
        if config["class_name"] == "Sequential":
            config = inner["layers"][-1]
        else:
            outputs = inner["output_layers"]
            name = outputs[0][0] if isinstance(outputs[0], (list, tuple)) else outputs[0]
            config = next(layer for layer in inner["layers"] if layer["config"]["name"] == name)
    return config


def _without_softmax(model: keras.Model) -> keras.Model:
    config = serialise(model)
    layer = _output_layer(config)
    if layer["class_name"] == "Softmax":
        kept = {key: layer["config"][key] for key in ("name", "dtype", "trainable")}
        layer.update(module="keras.layers", class_name="Activation")
        layer["config"] = {**kept, "activation": "linear"}
    elif layer["config"].get("activation") == "softmax":
        layer["config"]["activation"] = "linear"
    else:
        raise ValueError(
            f"output='softmax' needs a model whose last layer is a softmax, but {model.name!r} ends in "
            f"{layer['class_name']} {layer['config']['name']!r}."
        )
    stripped = _rebuild(config, model)
    images = np.random.default_rng(0).random((16, *(side or 32 for side in model.input_shape[1:])))
    logits = keras.ops.convert_to_numpy(stripped(images, training=False))
    probabilities = keras.ops.convert_to_numpy(model(images, training=False))
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    if not np.allclose(probabilities, expected, atol=1e-3):
        raise ValueError(f"removing the softmax of {model.name!r} changed what it predicts.")
    return stripped


def as_classifier(
    model: keras.Model, *, input_range=(0.0, 1.0), output: str = "logits"
) -> keras.Model:
    """A classifier that keeps robust_zoo's contract, around anybody's Keras model.

    Args:
        model: functional or sequential `keras.Model`, images NHWC to (batch, classes). It shares its
            weights with the result if `output` is "logits", and is left as it is otherwise.
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
    low, high = (float(bound) for bound in input_range)
    if not low < high:
        raise ValueError(f"input_range must be (low, high) with low < high, got {input_range!r}.")
    if not isinstance(model, (keras.Sequential, keras.models.Model)) or not getattr(
        model, "inputs", None
    ):
        raise TypeError(
            "model must be a functional or built sequential keras.Model, "
            f"got {type(model).__name__}: call it inside a keras.Model(inputs, outputs) first."
        )
    inner = _without_softmax(model) if output == "softmax" else model
    inputs = keras.Input(model.input_shape[1:])
    x = layers.Rescaling(high - low, low)(inputs) if (low, high) != (0.0, 1.0) else inputs
    return check_classifier(keras.Model(inputs, inner(x), name=model.name))


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

    return _rebuild(set_policy(serialise(model)), model)


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
    head = named[0] if named else _output_layer(config)
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
