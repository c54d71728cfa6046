"""Copies of a model: in float32 or bfloat16, with a new head, or with layers that are configured in another way.

A copy is made layer by layer: each from its own configuration, and its state through Keras's saving protocol
(`save_own_variables`, `load_own_variables`, assets), since a layer may be more than its weights. No layer has to
be registered for serialisation. Every copy is compared with its original before it is handed out.
"""

import contextlib
import inspect
import tempfile
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from robust_zoo.contract import graph_of
from robust_zoo.layers import layers_in_order, layers_of
from robust_zoo.sentences import one_line

_PROBES = 8  # images that copy and original are compared on
_EXACT, _ROUGH = (
    1e-4,
    0.1,
)  # differences allowed, as a share of the largest logit: float32, and less
_WIDTHS = {"Dense": "units", "Conv2D": "filters"}
_Change = Callable[[keras.layers.Layer, dict], dict]  # of a layer and its configuration


class CopyError(ValueError):
    """A model that cannot be copied, or whose copy computes something else."""


def probe_images(model: keras.Model) -> np.ndarray:
    """A few images in [0, 1] for a model, float32 (n, ...): noise, some of it dark, black and white.

    Sides that may be any are 32.
    """
    shape = [side or 32 for side in model.inputs[0].shape[1:]]
    images = np.random.default_rng(0).uniform(0, 1, (_PROBES, *shape))
    images[-4], images[-3] = 0.0, 1.0
    images[-2] *= 0.1
    images[-1] **= 2
    return images.astype("float32")


def agree(found: np.ndarray, expected: np.ndarray, *, within: float) -> bool:
    """Whether two arrays (n, outputs) differ by at most `within` of what their values vary by.

    NaN stands where NaN stands. A class that is masked, with logits of -1e9 say, and an offset of all logits make
    nothing else agree: what counts is an output's distance from the row's median, by output, or that of an output in
    the middle if it is larger; and, at least, what float32 rounds the largest value to.
    """
    middle = 0.0 if expected.shape[1] == 1 else np.median(expected, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        centred = np.abs(expected - middle)
    finite = np.where(np.isfinite(centred), centred, 0.0)
    varies = finite.max(axis=0)
    varies = np.maximum(varies, np.median(varies))
    rounding = 1e-6 * np.abs(np.where(np.isfinite(expected), expected, 0.0)).max(axis=0)
    tolerance = np.maximum(within * varies, rounding) + 1e-30
    same = np.abs(found - expected) <= tolerance
    return bool(np.all(same | (found == expected) | (np.isnan(found) & np.isnan(expected))))


def copy_state(
    original: keras.layers.Layer, copy: keras.layers.Layer, *, without: object = None
) -> None:
    """Gives `copy`, a layer or model of the same structure, all that `original` saves: weights and whatever else.

    `without` is a layer inside `original` that `copy` does not have.
    """
    layers = [layer for layer in layers_of(original) if layer is not without]
    for old, new in zip(layers, layers_of(copy), strict=True):
        _copy_layer_state(old, new)


def _copy_layer_state(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    store: dict[str, Any] = {}
    old.save_own_variables(store)
    if store:
        new.load_own_variables({key: ops.convert_to_numpy(value) for key, value in store.items()})
    if hasattr(old, "save_assets") and hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            old.save_assets(directory)
            new.load_assets(directory)


def copy_model(model: keras.Model, change: _Change | None = None) -> keras.Model:
    """A functional copy with variables of its own, compared with the original.

    Args:
        model: functional or built sequential `keras.Model`, images to logits.
        change: given a layer and its configuration (free to edit), the configuration that its copy is made of.

    Raises:
        CopyError: a layer that does not tell how it was made, or a copy that computes something else.
    """
    copy = _clone(model, change)
    prove(model, copy)
    return copy


def fresh_copy(model: keras.Model) -> keras.Model:
    """A model of the same layers with new initial weights."""
    return _clone(model, state=False)


def prove(original: keras.Model, copy: keras.Model) -> None:
    """Raises CopyError unless both compute the same from a few images.

    They must agree to 1e-4 of the largest logit; where they compute in different dtypes, one of them in less than
    float32, to a tenth.
    """
    dtypes = [[layer.compute_dtype for layer in layers_of(model)] for model in (original, copy)]
    same = dtypes[0] == dtypes[1] or {*dtypes[0], *dtypes[1]} <= {"float32", "float64"}
    logits, again = [_probed(model) for model in (original, copy)], _probed(original)
    if not agree(again, logits[0], within=1e-6):
        raise CopyError(
            f"a copy of model {original.name!r} cannot be compared with it: it draws random numbers that Keras does "
            "not seed. Let its layers draw them with keras.random and a keras.random.SeedGenerator."
        )
    if not agree(logits[1], logits[0], within=_EXACT if same else _ROUGH):
        difference = np.nanmax(np.abs(logits[1] - logits[0]))
        raise CopyError(
            f"a copy of model {original.name!r} computes something else: logits differ by up to {difference:g}. One "
            "of its layers keeps state that Keras does not save: let it save that in save_own_variables and read it "
            "in load_own_variables."
        )


def _probed(model: keras.Model) -> np.ndarray:
    """The logits of the probe images, with the random numbers of one seed."""
    generators = [part for layer in layers_of(model) for part in layer._seed_generators]
    seeds = [
        (each.state, np.full(each.state.shape, number, each.state.dtype))
        for number, each in enumerate(generators)
    ]
    with keras.StatelessScope(state_mapping=seeds):
        logits = model(probe_images(model), training=False)
    return ops.convert_to_numpy(ops.cast(logits, "float32"))


def _clone(
    model: keras.Model,
    change: _Change | None = None,
    *,
    fresh: keras.layers.Layer | None = None,
    dtype: str | None = None,
    state: bool = True,
    copies: dict[keras.layers.Layer, keras.layers.Layer] | None = None,
) -> keras.Model:
    """A copy that is not compared.

    Args:
        model: see `copy_model`.
        change: see `copy_model`.
        fresh: layer that keeps the state it is made with.
        dtype: of the input; by default that of the model's.
        state: whether the other layers get the state of the original.
        copies: those of the outer model's layers so far: what it shares with a model inside stays shared.
    """
    outermost, copies = copies is None, {} if copies is None else copies

    def clone(layer: keras.Operation) -> keras.Operation:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation of keras.ops, which has no state
        if isinstance(layer, keras.Model) and graph_of(layer):
            return _clone(layer, change, copies=copies)
        if layer not in copies:
            copies[layer] = _clone_layer(layer, change)
        return copies[layer]

    # A sequential model as the graph that it is; and what `compile` added is left behind.
    ends = graph_of(model)
    assert ends is not None  # the callers looked
    inputs, outputs = ends
    graph = keras.Model(inputs, outputs, name=model.name)
    images = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=dtype or x.dtype, name=x.name), inputs
    )
    copy = keras.models.clone_model(graph, input_tensors=images, clone_function=clone)
    if outermost and state:
        for layer, other in copies.items():
            if layer is not fresh:
                copy_state(layer, other)
    return copy


def _clone_layer(layer: keras.layers.Layer, change: _Change | None) -> keras.layers.Layer:
    try:
        config = {**_common(layer), **layer.get_config()}
        config = change(layer, config) if change else config
        with keras.saving.custom_object_scope(_own_objects(layer)), _trusted():
            return _made_of(type(layer), config)
    except Exception as error:
        raise CopyError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot be copied: its get_config does not say how to make "
            f"it again ({one_line(error)}). Give it a get_config that returns the arguments of its __init__."
        ) from error


def _common(layer: keras.layers.Layer) -> dict:
    """What every layer has, whether or not its class tells it."""
    policy = keras.dtype_policies.serialize(layer.dtype_policy)
    return {"name": layer.name, "trainable": layer.trainable, "dtype": policy}


def _made_of(kind: type[keras.layers.Layer], config: dict) -> keras.layers.Layer:
    """A layer of a class, also of one whose __init__ does not take the name, dtype and trainable of every layer."""
    arguments = inspect.signature(kind.__init__).parameters
    if any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values()):
        return kind.from_config(config)
    later = {"name", "dtype", "trainable"} - set(arguments)
    layer = kind.from_config({key: value for key, value in config.items() if key not in later})
    layer.name = config["name"]
    layer.dtype_policy = keras.dtype_policies.get(config["dtype"])
    layer.trainable = config["trainable"]
    return layer


def _own_objects(layer: keras.layers.Layer) -> dict:
    """Classes and functions that belong to a layer and its parts, by name."""
    found: dict[str, Any] = {}
    for part in layers_of(layer):
        found[type(part).__name__] = type(part)
        for value in vars(part).values():
            if isinstance(value, types.FunctionType):
                found[value.__name__] = value
            elif type(value).__module__.partition(".")[0] != "builtins":
                found.setdefault(type(value).__name__, type(value))
    return found


def _trusted() -> contextlib.AbstractContextManager:
    """A scope in which a Lambda may be made again: its code is already part of this process."""
    from keras.src.saving.serialization_lib import SafeModeScope

    return SafeModeScope(False)


def in_float32(model: keras.Model) -> keras.Model:
    """`model` itself if it computes in float32, else a copy that does, with the same state."""
    if all(layer.compute_dtype == "float32" for layer in layers_of(model)):
        return model
    copy_model(model)  # proves exactly that it can be copied
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # for the layers that a custom layer makes by itself
    try:
        copy = _clone(model, lambda layer, config: _in(config, "float32"), dtype="float32")
    finally:
        keras.config.set_dtype_policy(before)
    left = [layer.name for layer in layers_of(copy) if layer.compute_dtype != "float32"]
    if left:
        raise CopyError(
            f"model {model.name!r} cannot be measured in float32: layer {left[0]!r} computes in another dtype, "
            "whatever its dtype policy says."
        )
    prove(model, copy)
    return copy


def in_bfloat16(model: keras.Model) -> keras.Model:
    """A copy of a float32 model for the steps of attacks, which computes in bfloat16 but for its ends.

    Kernels are kept in bfloat16, so that no pass casts them. In float32 stay all layers up to the first that has
    weights, since bfloat16 rounds a pixel near 1 to 1/256; the last one that has, so that logits which are nearly
    equal stay apart; and what else has weights but no kernel, such as normalisation, keeps them in float32.

    Raises:
        CopyError: a layer that cannot be copied, or that computes something else in bfloat16, by more than a tenth of
            the largest logit.
    """
    layers = list(layers_in_order(model))
    weighted = [place for place, layer in enumerate(layers) if layer.weights]
    between = layers[weighted[0] + 1 : weighted[-1]] if weighted else []

    def change(layer: keras.layers.Layer, config: dict) -> dict:
        if not any(layer is other for other in between):
            return config
        kernels = any("kernel" in variable.name for variable in layer.weights)
        return _in(config, "bfloat16" if kernels or not layer.weights else "mixed_bfloat16")

    try:
        copy = _clone(model, change)
        prove(model, copy)
    except CopyError:
        raise
    except Exception as error:  # of whatever operation has no bfloat16
        raise CopyError(
            f"model {model.name!r} cannot compute in bfloat16: {one_line(error)}."
        ) from error
    return copy


def _in(node: Any, policy: str) -> Any:
    """A layer's configuration with another dtype policy, for it and what is in it."""
    if isinstance(node, dict):
        kind = node.get("class_name")
        if kind == "DTypePolicy":
            return {**node, "config": {"name": policy}}
        if kind == "QuantizedDTypePolicy":
            return {**node, "config": {**node["config"], "source_name": policy}}
        changed = {key: _in(value, policy) for key, value in node.items()}
        if isinstance(changed.get("dtype"), str) and "float" in changed["dtype"]:
            changed["dtype"] = policy
        return changed
    return [_in(value, policy) for value in node] if isinstance(node, list) else node


def with_new_head(model: keras.Model, num_classes: int) -> keras.Model:
    """A copy of `model` whose last layer with weights is new and makes `num_classes` logits.

    Raises:
        ValueError: `num_classes` below 2, or a model whose logits do not come from a Dense or Conv2D
            layer named "logits" or standing last.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer >= 2, got {num_classes!r}.")
    named = [layer for layer in layers_of(model) if layer.name == "logits"]
    head = named[0] if named else _last_layer(model)
    kind = type(head).__name__
    if kind not in _WIDTHS:
        raise ValueError(
            f"num_classes needs a model whose logits come from a Dense or Conv2D layer, but those of "
            f"{model.name!r} come from {kind} {head.name!r}."
        )
    copy_model(model)  # proves that the other layers can be copied

    def change(layer: keras.layers.Layer, config: dict) -> dict:
        return {**config, _WIDTHS[kind]: num_classes} if layer is head else config

    return _clone(model, change, fresh=head)


def _last_layer(model: keras.Model) -> keras.Operation:
    """The layer that makes the output of a model with a graph, inside models in it too."""
    last = model.outputs[0]._keras_history.operation
    return _last_layer(last) if isinstance(last, keras.Model) and graph_of(last) else last
