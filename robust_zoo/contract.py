"""What a classifier and its inputs must be, checked before any work starts.

A classifier maps float images in [0, 1], NHWC, to logits. Every error names the argument, what is
allowed and what came.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from robust_zoo.sentences import one_line
from robust_zoo.typing import PRECISIONS


def check_images(x: npt.ArrayLike, model: keras.Model | None = None) -> np.ndarray:
    """Images as float32, after checking them.

    Args:
        x: array (n, height, width, channels) of a floating dtype, values in [0, 1].
        model: the classifier that will see them; its input shape must fit.

    Raises:
        TypeError: `x` is not floating (uint8 images, say).
        ValueError: wrong shape, no images, NaN or infinity, values outside [0, 1].
    """
    x = np.asarray(x)
    if not np.issubdtype(x.dtype, np.floating):
        raise TypeError(
            f"images must be floating point in [0, 1], got dtype {x.dtype}: divide 8-bit images by 255."
        )
    expected = "(n, height, width, channels)"
    if model is not None:
        shape = model.input_shape[1:]
        expected = f"(n, {', '.join('any' if side is None else str(side) for side in shape)})"
        fits = x.ndim == len(shape) + 1 and all(
            side is None or side == got for side, got in zip(shape, x.shape[1:], strict=True)
        )
    else:
        fits = x.ndim == 4
    if not fits:
        raise ValueError(f"images must have shape {expected}, got {x.shape}.")
    if len(x) == 0:
        raise ValueError("images must not be empty, got 0 of them.")
    if not np.isfinite(x).all():
        raise ValueError("images must be finite numbers in [0, 1], got NaN or infinity.")
    check_range(x.min(), x.max())
    return np.ascontiguousarray(x, dtype="float32")


def check_range(low: float, high: float) -> None:
    """ValueError unless images from `low` to `high` lie in [0, 1]; it says what may have happened."""
    if low >= 0 and high <= 1:
        return
    if low >= -1e-3 and high <= 1 + 1e-3:
        remedy = "a rounding error, it seems: np.clip(images, 0, 1)."
    elif low >= 0 and 1 < high <= 255:
        remedy = "divide 0..255 images by 255."
    elif -1.001 <= low < 0 and high <= 1.001:
        remedy = "bring [-1, 1] images to [0, 1] with (images + 1) / 2, and give a model trained on them to "
        remedy += "robust_zoo.as_classifier(model, input_range=(-1, 1))."
    else:
        remedy = "undo their normalisation, and put it into the model."
    raise ValueError(f"images must lie in [0, 1], got values from {low} to {high}: {remedy}")


def check_labels(y: npt.ArrayLike, num_classes: int, n: int) -> np.ndarray:
    """Labels as int32 of shape (n,), after checking them.

    Args:
        y: integer array (n,) or (n, 1).
        num_classes: number of classes.
        n: number of images.

    Raises:
        TypeError: `y` is not an integer array (one-hot floats, say).
        ValueError: wrong shape, or a label outside 0..num_classes-1.
    """
    y = np.asarray(y)
    if not np.issubdtype(y.dtype, np.integer):
        remedy = "."
        if y.dtype.kind in "USO":
            remedy = ": number them, for example with np.unique(labels, return_inverse=True)[1]."
        elif y.ndim == 2 and y.shape[1] > 1:
            remedy = ": take argmax(axis=1) of one-hot ones."
        raise TypeError(f"labels must be integer classes, got dtype {y.dtype}{remedy}")
    if y.shape == (n, 1):
        y = y[:, 0]
    if y.shape != (n,):
        raise ValueError(f"labels must be integer classes of shape ({n},), got shape {y.shape}.")
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1}, got values from {y.min()} to {y.max()}."
        )
    return y.astype("int32")


def check_targets(y: npt.ArrayLike, num_classes: int, n: int) -> np.ndarray:
    """Labels to train on: integer classes as in `check_labels`, or rows (n, num_classes) that sum to 1.

    Raises:
        TypeError, ValueError: neither of them.
    """
    y = np.asarray(y)
    if y.ndim != 2 or y.shape[1] == 1 or y.dtype.kind not in "fiub":
        return check_labels(y, num_classes, n)
    rows = y.astype("float64")
    if y.shape != (n, num_classes):
        raise ValueError(f"labels must have shape ({n},) or ({n}, {num_classes}), got {y.shape}.")
    if rows.min() < 0 or np.abs(rows.sum(1) - 1).max() > 1e-3:
        raise ValueError(
            "rows of labels must be distributions over the classes, that is, be >= 0 and sum to 1, got sums from "
            f"{rows.sum(1).min():g} to {rows.sum(1).max():g}."
        )
    return y


def check_numbers(numbers: npt.ArrayLike, n: int) -> np.ndarray:
    """The numbers of `n` images as int64 (n,); ValueError unless they are different integers in 0..2^31 - 1."""
    numbers = np.asarray(numbers)
    whole = numbers.dtype.kind in "iu" and numbers.shape == (n,)
    if not whole or len(np.unique(numbers)) < n or not ((numbers >= 0) & (numbers < 2**31)).all():
        raise ValueError(
            f"numbers must be {n} different integers in 0..2^31 - 1, one for each image, got {one_line(repr(numbers))}."
        )
    return numbers.astype("int64")


def check_precision(precision: str) -> str:
    """The precision of an attack's steps; ValueError unless it is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    return precision


def check_batch_size(batch_size: object) -> int:
    """The batch size; ValueError unless it is an integer >= 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}.")
    return int(batch_size)


SQUASHING = (
    "softmax", "sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softplus", "softsign", "log_sigmoid", "relu6",
    "sparse_sigmoid", "sparsemax", "sparse_plus", "squareplus", "exponential", "clip", "arctan", "erf",
    "relu", "prelu", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "hard_silu", "mish",
    "hard_shrink", "soft_shrink", "tanh_shrink", "threshold", "glu", "where",
)  # fmt: skip
"""Final activations that hide how far the logits are: attacks on what comes out of them are weak."""
_BY_CLASS = {name.replace("_", ""): name for name in SQUASHING}  # LeakyReLU is leaky_relu
_KEEPING = ("linear", "log_softmax")  # activations that hide nothing

OUTPUTS = ("logits", "softmax", "sigmoid")  # what `as_classifier` takes


def squashing_of(operation: keras.Operation) -> str | None:
    """The squashing activation that an operation ends in, by its name in Keras, or None."""
    if isinstance(operation, keras.layers.ReLU) and operation.max_value is not None:
        return "relu6"
    name = type(operation).__name__
    activation = getattr(operation, "activation", None)
    if isinstance(operation, keras.layers.Layer) and activation is not None:
        if isinstance(activation, keras.layers.Layer):
            return squashing_of(activation)
        name = getattr(activation, "__name__", "")
        # Of Keras's own activations, those that are not known to hide nothing.
        if name not in _KEEPING and getattr(keras.activations, name or "-", None) is activation:
            return name
    elif name in ("Maximum", "Minimum") and not isinstance(operation, keras.layers.Layer):
        one = len(operation._inbound_nodes[0].input_tensors) == 1  # and a constant
        return name.lower() if one else None
    return _BY_CLASS.get(name.replace("_", "").lower())


def _final_activation(model: keras.Model) -> str | None:
    """The squashing activation that makes the output of a model with a graph, what only reshapes left out.

    "scaled " stands before one whose values are scaled or shifted.
    """
    tensor, scaled = model.outputs[0], ""
    while True:
        history = tensor._keras_history
        operation = history.operation
        if isinstance(operation, keras.Model):
            found = _final_activation(operation) if graph_of(operation) else None
            return found and scaled + found
        found = squashing_of(operation)
        sources = operation._inbound_nodes[history.node_index].input_tensors
        same_size = len(sources) == 1 and _size(sources[0]) == _size(tensor)
        computes = isinstance(operation, keras.layers.Layer) and operation.weights
        if found or computes or not same_size:
            return found and scaled + found
        if type(operation).__name__ in _SCALING:
            scaled = "scaled "
        elif not only_reshapes(operation):
            return None
        tensor = sources[0]


def _flattening_end(model: keras.Model) -> str | None:
    """The operation, not one of Keras's, that makes the output and hides how large what goes into it is, or None.

    Its output stays where it is, in places, between a thousand and ten thousand times the same input. (That of what
    only normalises stays everywhere, and between one and ten times the input as well; of a logarithm of softmax, the
    largest output of an image does.)
    """
    tensor = model.outputs[0]
    while True:
        history = tensor._keras_history
        operation = history.operation
        sources = operation._inbound_nodes[history.node_index].input_tensors
        if len(sources) != 1:
            return None
        if isinstance(operation, keras.Model):
            if not graph_of(operation):
                return None
            tensor = operation.outputs[0]
        elif only_reshapes(operation) or type(operation).__name__ in _SCALING:
            tensor = sources[0]
        else:
            break
    built_in = type(operation).__module__.startswith("keras.")
    if built_in and not isinstance(operation, keras.layers.Lambda):
        return None
    shape = [side or 1 for side in sources[0].shape]
    some = np.random.default_rng(0).normal(size=(8, *shape[1:])).astype("float32")

    def at(scale: float) -> np.ndarray:
        given = ops.cast(ops.convert_to_tensor(some * scale), sources[0].dtype)
        made = ops.convert_to_numpy(ops.cast(operation(given), "float32"))
        return np.reshape(made, (len(some), -1))

    try:
        near, far = (at(1), at(10)), (at(1e3), at(1e4))
    except Exception:  # of whatever the operation does with numbers that are no features of images
        return None

    def same(one: np.ndarray, other: np.ndarray) -> float:
        equal = np.isclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(near).max())
        return equal[np.arange(equal.shape[1]) != one.argmax(axis=1)[:, None]].mean()

    flattens = same(*far) > _FLAT and same(*near) < 1 - _FLAT
    return f"{type(operation).__name__} {operation.name!r}" if flattens else None


_FLAT = 0.1  # share of outputs
_RESHAPING = (
    *("Flatten", "Reshape", "Identity", "Dropout", "Permute"),  # layers
    *("Squeeze", "Cast", "GetItem"),  # operations; some have a layer's name
)


# What only scales and shifts what comes out of an activation, which hides as much then.
_SCALING = ("Rescaling", "Multiply", "Divide", "TrueDivide", "Add", "Subtract", "Negative")


def only_reshapes(operation: keras.Operation) -> bool:
    """Whether an operation may stand behind a final activation without changing a value."""
    return type(operation).__name__ in _RESHAPING


def _size(tensor: keras.KerasTensor) -> int:
    return math.prod(side or 1 for side in tensor.shape)


def _remedy(kind: str) -> str:
    if kind in OUTPUTS:
        return f"use robust_zoo.as_classifier(model, output={kind!r}) to remove the {kind}."
    return f"make a keras.Model of what goes into the {kind}."


def _has_channels_first(shape: Sequence[int | None]) -> bool:
    """Whether an image shape is (channels, height, width), as far as one can tell."""
    few, (height, width) = (1, 2, 3, 4), shape[1:]
    return (
        shape[0] in few
        and width not in few
        and all(side is None or side > 4 for side in (height, width))
    )


def _reads_channels_first(model: keras.Model) -> bool:
    """Whether what the images of a model go into takes (batch, channels, height, width)."""
    for node in _consumers(model.inputs[0], model):
        layer = node.operation
        if isinstance(layer, keras.Model) and graph_of(layer):
            if _reads_channels_first(layer):
                return True
        elif getattr(layer, "data_format", None) == "channels_first" or (
            isinstance(layer, keras.layers.Permute) and tuple(layer.dims) == (2, 3, 1)
        ):
            return True
    return False


def _consumers(tensor: keras.KerasTensor, model: keras.Model) -> list[Any]:
    """The nodes of a model's graph that read a tensor."""
    nodes = [node for layer in model.layers for node in layer._inbound_nodes]
    return [node for node in nodes if any(source is tensor for source in node.input_tensors)]


def graph_of(model: keras.Model) -> tuple[Any, Any] | None:
    """The symbolic input and output of a functional or built sequential model, in their structure, or None.

    None is for subclasses with a call of their own.
    """
    try:
        inputs, outputs = model.inputs, model.outputs
    except (AttributeError, ValueError):
        return None
    if not inputs or not outputs:
        return None
    if isinstance(model, keras.Sequential):  # has an `input` of its own only once it was called
        last = model.layers[-1] if model.layers else None
        ends = graph_of(last) if isinstance(last, keras.Model) else None
        if ends is not None and not isinstance(ends[1], keras.KerasTensor):
            return inputs[0], ends[1]
        return inputs[0], outputs[0]
    return model.input, model.output


def check_classifier(model: keras.Model) -> keras.Model:
    """The model, after checking that it maps one image batch to one batch of logits.

    Raises:
        TypeError: not a built keras.Model of one floating input tensor and one output tensor.
        ValueError: an output that is not (batch, classes >= 2), or that ends in a squashing activation; images
            that are not (height, width, channels).
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, got {type(model).__name__}.")
    if isinstance(getattr(model, "classifier", None), keras.Model):
        raise TypeError(
            f"model must be a classifier, got the trainer {type(model).__name__} around one: give its .classifier."
        )
    ends = graph_of(model)
    if ends is None or not all(isinstance(part, keras.KerasTensor) for part in ends):
        raise TypeError(
            f"model must be a functional or built sequential keras.Model of one input and one output tensor, "
            f"got {model.name!r} ({type(model).__name__}): robust_zoo.as_classifier makes one."
        )
    given, made = ends
    if not keras.backend.is_float_dtype(given.dtype):
        raise TypeError(
            f"model must take floating point images in [0, 1], got input dtype {given.dtype} of {model.name!r}: "
            "give it a float input."
        )
    if len(given.shape) == 4 and (
        _has_channels_first(given.shape[1:]) or _reads_channels_first(model)
    ):
        raise ValueError(
            f"model must take images (height, width, channels), got shape {given.shape[1:]}, which looks like "
            "channels first: use robust_zoo.as_classifier(model, data_format='channels_first')."
        )
    shape = made.shape
    if len(shape) == 2 and shape[1] == 1 and _final_activation(model) == "sigmoid":
        raise ValueError(
            f"model must return logits (batch, classes >= 2), but {model.name!r} ends in one sigmoid: "
            + _remedy("sigmoid")
        )
    if len(shape) != 2 or shape[1] is None or shape[1] < 2:
        raise ValueError(f"model must return logits (batch, classes >= 2), got shape {shape}.")
    activation = _final_activation(model) or _flattening_end(model)
    if activation is not None:
        raise ValueError(
            f"model must return logits, but {model.name!r} ends in {activation}: {_remedy(activation)}"
        )
    return model


def softmax_deviation(logits: np.ndarray) -> float:
    """How far the rows are from probabilities: 0 where all lie in [0, 1] and sum to 1."""
    outside = np.maximum(logits - 1, -logits).max()
    return float(max(np.abs(logits.sum(1) - 1).max(), outside, 0.0))


def check_logits(logits: np.ndarray, model: keras.Model) -> np.ndarray:
    """Logits as computed, after checking that they are finite and not squashed.

    Raises:
        ValueError: NaN or infinity; rows in [0, 1] that sum to 1; or values that all lie in [0, 1], or in
            [-1, 1] up to its ends, as those of a sigmoid or tanh do.
    """
    if not np.isfinite(logits).all():
        raise ValueError(f"model {model.name!r} returned NaN or infinite logits.")
    if softmax_deviation(logits) < 1e-5:
        raise ValueError(
            f"model must return logits, but the outputs of {model.name!r} are probabilities: {_remedy('softmax')}"
        )
    low, high = float(logits.min()), float(logits.max())
    # The first logit of a logistic regression is always 0, and of images of one class the other may lie anywhere.
    logistic = logits.shape[1] == 2 and not logits[:, 0].any()
    some = logits.size >= _ENOUGH and not logistic
    if some and 0 <= low < 0.5 < high <= 1:
        raise ValueError(
            f"model must return logits, but all outputs of {model.name!r} lie in [0, 1] ({low:.3g} to {high:.3g}), "
            f"as those of a sigmoid do: {_remedy('sigmoid')}"
        )
    if some and -1 <= low < -_SATURATED and _SATURATED < high <= 1:
        raise ValueError(
            f"model must return logits, but all outputs of {model.name!r} lie in [-1, 1] and reach its ends "
            f"({low:.4g} to {high:.4g}), as those of a tanh do: {_remedy('tanh')}"
        )
    if some and len(logits) >= _SEVERAL and _at_the_ends(logits, low, high):
        raise ValueError(
            f"model must return logits, but most outputs of {model.name!r} lie at the ends of [{low:.4g}, {high:.4g}], "
            f"as those of a scaled sigmoid do: {_remedy('activation')}"
        )
    return logits


def _at_the_ends(logits: np.ndarray, low: float, high: float) -> bool:
    """Whether most outputs lie at the ends of their range, each class at both of them over the images."""
    edge = _EDGE * (high - low)
    at_the_top, at_the_bottom = logits > high - edge, logits < low + edge
    moves = at_the_top.any(axis=0) & at_the_bottom.any(axis=0)
    return bool(at_the_top.any(axis=1).mean() > 0.5 < at_the_bottom.mean() and moves.mean() > 0.5)


_ENOUGH, _SEVERAL = 64, 16  # outputs, and images, that a verdict on their range needs
_SATURATED = 0.99
_EDGE = 1e-3  # share of the range
