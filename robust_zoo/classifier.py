"""From anybody's Keras model to a classifier that keeps our contract.

What comes out is always a plain functional Keras model that shares the layers of the model that came in. Copies
of a model are made in `copies.py`.
"""

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from robust_zoo.contract import (
    OUTPUTS,
    check_classifier,
    graph_of,
    only_reshapes,
    squashing_of,
)
from robust_zoo.copies import agree, copy_state, probe_images
from robust_zoo.record import Configuration
from robust_zoo.sentences import one_line

_FORMATS = ("channels_last", "channels_first")


def serialise(model: keras.Model) -> dict:
    """The model's configuration as Keras serialises it, without what a trained model does not need; free to edit.

    That is what `compile` added, initial values, that batch normalisation shares statistics between replicas, and
    options of layers that are off: versions of Keras that do not know an option refuse to read it.

    Raises:
        TypeError: a layer that cannot tell how it was made.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise TypeError(
            f"model {model.name!r} has a layer that cannot tell how it was made, which the record needs: give it a "
            f"get_config that returns all of its arguments as plain values ({one_line(error)})."
        ) from error
    return _lean(_uncompiled(config))


def _lean(node: Any) -> Any:
    if isinstance(node, list):
        return [_lean(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _lean(value) for key, value in node.items()}
    config = node.get("config")
    if node.get("module") == "keras.layers" and isinstance(config, dict):
        node["config"] = _needed(config, getattr(keras.layers, node["class_name"], None))
    return node


def _needed(config: dict, layer: type | None) -> dict:
    if config.get("synchronized"):
        config = {**config, "synchronized": False}
    known = inspect.signature(layer).parameters if isinstance(layer, type) else {}
    off = {
        key
        for key, value in config.items()
        if key in known and (value is None or value is False) and value is known[key].default
    }
    return {
        key: value
        for key, value in config.items()
        if key not in off
        and not key.endswith("_initializer")
        and not any(key.startswith(f"{option}_") for option in off)
    }


def _uncompiled(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _uncompiled(value) for key, value in node.items() if key != "compile_config"}
    return [_uncompiled(item) for item in node] if isinstance(node, (list, tuple)) else node


def describe_config(model: keras.Model) -> Configuration:
    """The hash of the model's configuration, as `config.json` holds it."""
    return Configuration(sha256=config_sha256(serialise(model)))


def without_names(config: Any, names: dict[str, int] | None = None) -> Any:
    """A configuration without the names of models and layers, which Keras numbers anew in each process.

    Layers are referred to by their places in their model instead; `names` are those of the model around, by place.
    """
    names = names or {}
    if isinstance(config, list):
        match config:
            case [str(name), int(), int()] if name in names:
                return [names[name], *config[1:]]
        return [without_names(part, names) for part in config]
    if not isinstance(config, dict):
        return config
    if isinstance(layers := config.get("layers"), list):
        names = {layer["config"]["name"]: place for place, layer in enumerate(layers)}
        bare = [
            {**layer, "name": "", "config": {**layer["config"], "name": ""}} for layer in layers
        ]
        config = {**config, "name": "", "layers": bare}
    return {key: without_names(value, names) for key, value in config.items()}


def config_sha256(config: dict) -> str:
    """Hexadecimal SHA-256 of a configuration's canonical JSON, without what `compile` added at any level."""
    text = json.dumps(_uncompiled(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def as_classifier(
    model: keras.Model,
    *,
    input_range: Sequence[float] = (0.0, 1.0),
    output: str = "logits",
    data_format: str = "channels_last",
) -> keras.Model:
    """A classifier that keeps robust_zoo's contract, around anybody's Keras model.

    Args:
        model: built `keras.Model` of one input and one output (which may stand alone in a list or a dictionary),
            images to (batch, classes). The result shares its layers, but for one whose activation is removed.
        input_range: the pixel range (low, high) that `model` was trained on; images in [0, 1] are
            rescaled to it inside the result.
        output: "logits", or what the model ends in, which is removed: "softmax", or "sigmoid". One sigmoid unit,
            the probability of class 1, becomes the two logits (0, z).
        data_format: "channels_last", or "channels_first" of a model that takes (channels, height, width); the
            result takes (height, width, channels).

    Returns:
        Functional `keras.Model`: float32 images in [0, 1], NHWC, in; logits out.

    Raises:
        TypeError: not a Keras model with one floating input and one output.
        ValueError: a bad argument, nothing of that kind to remove, or an output that is not (batch, classes).

    Example:
        >>> mine = keras.saving.load_model("mine.keras")
        >>> classifier = as_classifier(mine, input_range=(0, 255), output="softmax")
        >>> classifier.output_shape
        (None, 10)
    """
    if output not in OUTPUTS:
        raise ValueError(f"output must be one of {OUTPUTS}, got {output!r}.")
    if data_format not in _FORMATS:
        raise ValueError(f"data_format must be one of {_FORMATS}, got {data_format!r}.")
    bounds = tuple(np.ravel(input_range).tolist())
    if len(bounds) != 2 or not np.isfinite(bounds).all() or not bounds[0] < bounds[1]:
        raise ValueError(f"input_range must be (low, high) with low < high, got {input_range!r}.")
    plain = _with_one_tensor(model)
    inner = plain
    if output != "logits":
        inner = _without_activation(plain, output)
        _check_removed(plain, inner, output, bounds)
    shape = plain.inputs[0].shape[1:]
    low, high = bounds
    if data_format == "channels_first":
        shape = (*shape[1:], shape[0])
    x = images = keras.Input(shape)
    if bounds != (0.0, 1.0):
        x = layers.Rescaling(high - low, low)(x)
    if data_format == "channels_first":
        x = layers.Permute((3, 1, 2))(x)
    logits = inner(x)
    if output == "sigmoid" and logits.shape[1] == 1:
        # (0, z): a zero is put before the one value.
        logits = layers.ZeroPadding1D((1, 0))(layers.Reshape((1, 1))(logits))
        logits = layers.Reshape((2,))(logits)
    return check_classifier(keras.Model(images, logits, name=model.name))


def _with_one_tensor(model: keras.Model) -> keras.Model:
    """A functional model of one image tensor to one output tensor, around any built model."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, got {type(model).__name__}.")
    if isinstance(getattr(model, "classifier", None), keras.Model):
        raise TypeError(
            f"model must be a classifier, got the trainer {type(model).__name__} around one: give its .classifier."
        )
    inputs, outputs = graph_of(model) or (_built_input(model), None)
    flat = keras.tree.flatten(inputs)
    if len(flat) != 1:
        raise TypeError(
            f"model must have one input, got {len(flat)}: make a keras.Model of the one that images go to."
        )
    (source,) = flat
    if not keras.backend.is_float_dtype(source.dtype):
        raise TypeError(
            f"model must take floating point images, got input dtype {source.dtype}: give it a float input and "
            "round inside, or remove the cast."
        )
    single = outputs is not None and not isinstance(outputs, (list, tuple, dict))
    if single and not isinstance(inputs, (list, tuple, dict)):
        return model
    tensor = keras.Input(source.shape[1:], dtype=source.dtype)
    made = keras.tree.flatten(model(keras.tree.pack_sequence_as(inputs, [tensor])))
    if len(made) != 1:
        raise TypeError(
            f"model must have one output, got {len(made)}: make a keras.Model of the one that is the logits."
        )
    return keras.Model(tensor, made[0], name=model.name)


def _built_input(model: keras.Model) -> keras.KerasTensor:
    """The input of a subclass, from the shape that it was built with."""
    shape = (getattr(model, "_build_shapes_dict", None) or {}).get("input_shape")
    if not model.built or not isinstance(shape, (list, tuple)):
        raise TypeError(
            f"model must be built, got {type(model).__name__} {model.name!r}, of which no input shape is known: "
            "call it once on a batch of images."
        )
    if any(isinstance(side, (list, tuple)) for side in shape):
        raise TypeError(f"model must have one input, got shapes {shape}.")
    return keras.KerasTensor((None, *shape[1:]), keras.config.floatx())


def _without_activation(model: keras.Model, kind: str) -> keras.Model:
    """`model` up to its final activation of a kind, sharing every layer but one that has it inside."""
    ends = graph_of(model)
    assert ends is not None  # the callers looked
    return keras.Model(ends[0], _cut(model.outputs[0], kind, model.name), name=model.name)


def _cut(tensor: keras.KerasTensor, kind: str, name: str) -> keras.KerasTensor:
    """The tensor that goes into the activation that makes `tensor`; what only reshapes comes behind it again."""
    history = tensor._keras_history
    operation = history.operation
    sources = operation._inbound_nodes[history.node_index].input_tensors
    if isinstance(operation, keras.Model) and graph_of(operation):
        return _without_activation(operation, kind)(sources[0])
    if isinstance(operation, keras.Model):
        return _cut(_inlined(operation, sources[0], kind), kind, name)
    found = squashing_of(operation)
    if found == kind and not _computes_before(operation):
        return sources[0]
    if found == kind:
        linear = type(operation).from_config({**operation.get_config(), "activation": "linear"})
        made = linear(sources[0])
        copy_state(operation, linear, without=operation.activation)
        return made
    passes = only_reshapes(operation)
    linear = getattr(operation, "activation", None) is keras.activations.linear
    passes = passes or (linear and not _computes_before(operation))
    if found is not None or not passes or len(sources) != 1:
        raise _nothing_to_remove(kind, name, operation)
    if isinstance(operation, layers.Layer):
        operation = type(operation).from_config(operation.get_config())
    return operation(_cut(sources[0], kind, name))


def _computes_before(operation: keras.Operation) -> bool:
    """Whether a layer computes something of its own before its activation, as a dense one does."""
    return hasattr(operation, "activation") and not isinstance(operation, layers.Activation)


def _inlined(model: keras.Model, source: keras.KerasTensor, kind: str) -> keras.KerasTensor:
    """The output of a subclass as a graph of what its call does."""
    try:
        return model.call(source)
    except Exception as error:
        raise ValueError(
            f"output={kind!r}: the call of {model.name!r} ({type(model).__name__}) cannot be cut "
            f"({type(error).__name__}): let it return what goes into the {kind} instead."
        ) from error


def _nothing_to_remove(kind: str, name: str, operation: keras.Operation) -> ValueError:
    ends = f"{type(operation).__name__} {operation.name!r}"
    activation = squashing_of(operation)
    if activation is not None:
        ends += f" with activation {activation!r}"
    return ValueError(
        f"output={kind!r} needs a model that ends in a {kind}, but {name!r} ends in {ends}."
    )


def _check_removed(
    model: keras.Model, logits_model: keras.Model, kind: str, bounds: tuple[float, float]
) -> None:
    low, high = bounds
    images = low + (high - low) * probe_images(model)
    logits = keras.ops.cast(logits_model(images, training=False), "float32")
    expected = keras.ops.convert_to_numpy(getattr(keras.ops, kind)(logits))
    probabilities = keras.ops.cast(model(images, training=False), "float32")
    if not agree(keras.ops.convert_to_numpy(probabilities), expected, within=1e-3):
        raise ValueError(f"removing the {kind} of {model.name!r} changed what it predicts.")
