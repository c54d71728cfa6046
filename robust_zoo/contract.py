"""What a classifier and its inputs must be, checked before any work starts.

A classifier maps float images in [0, 1], NHWC, to logits. Every error names the argument, what is
allowed and what came.
"""

import math
from numbers import Integral

import keras
import numpy as np


def check_images(x, model: keras.Model | None = None) -> np.ndarray:
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
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"images must lie in [0, 1], got values from {low:g} to {high:g}: divide 0..255 images by 255."
        )
    return np.ascontiguousarray(x, dtype="float32")


def check_labels(y, num_classes: int, n: int) -> np.ndarray:
    """Labels as int32 of shape (n,), after checking them.

    Raises:
        TypeError: `y` is not an integer array (one-hot floats, say).
        ValueError: wrong shape, or a label outside 0..num_classes-1.
    """
    y = np.asarray(y)
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"labels must be integer classes, got dtype {y.dtype}.")
    if y.shape == (n, 1):
        y = y[:, 0]
    if y.shape != (n,):
        raise ValueError(f"labels must be integer classes of shape ({n},), got shape {y.shape}.")
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1}, got values from {y.min()} to {y.max()}."
        )
    return y.astype("int32")


def check_epsilon(epsilon: float, norm: str) -> float:
    """Epsilon as a float, after checking that it is a size in [0, 1] pixel units (l0: a number of values).

    Raises:
        ValueError: not > 0, not finite, (linf) above 1, or (l0) no whole number.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be > 0 and finite, got {epsilon!r}.")
    if norm == "linf" and epsilon > 1:
        raise ValueError(
            f"epsilon must be at most 1 for norm 'linf', got {epsilon!r}: images are in [0, 1], so write "
            f"{epsilon:g}/255 for {epsilon:g} of 255 levels."
        )
    if norm == "l0" and epsilon != int(epsilon):
        raise ValueError(
            f"epsilon must be a whole number of changed values for norm 'l0', got {epsilon!r}."
        )
    return float(epsilon)


def check_batch_size(batch_size) -> int:
    """The batch size; ValueError unless it is an integer >= 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}.")
    return int(batch_size)


def _final_activation(model) -> str | None:
    layer = model.layers[-1] if getattr(model, "layers", None) else None
    if isinstance(layer, keras.Model):
        return _final_activation(layer)
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", None)


_REMEDY = "use robust_zoo.as_classifier(model, output='softmax') to remove the softmax."


def check_classifier(model) -> keras.Model:
    """The model, after checking that it maps one image batch to one batch of logits.

    Raises:
        TypeError: not a built keras.Model with a single input and a single output.
        ValueError: an output that is not (batch, classes >= 2), or that ends in softmax.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, got {type(model).__name__}.")
    try:
        inputs, outputs = model.inputs, model.outputs
    except (AttributeError, ValueError):
        inputs = outputs = None
    if not inputs or not outputs or len(inputs) != 1 or len(outputs) != 1:
        raise TypeError(
            f"model must be a functional or built sequential keras.Model with one input and one output, "
            f"got {model.name!r} ({type(model).__name__}): robust_zoo.as_classifier makes one."
        )
    shape = outputs[0].shape
    if len(shape) != 2 or shape[1] is None or shape[1] < 2:
        raise ValueError(f"model must return logits (batch, classes >= 2), got shape {shape}.")
    if _final_activation(model) == "softmax":
        raise ValueError(f"model must return logits, but {model.name!r} ends in softmax: {_REMEDY}")
    return model


def softmax_deviation(logits: np.ndarray) -> float:
    """How far the rows are from probabilities: 0 where all lie in [0, 1] and sum to 1."""
    outside = np.maximum(logits - 1, -logits).max()
    return float(max(np.abs(logits.sum(1) - 1).max(), outside, 0.0))


def check_logits(logits: np.ndarray, model: keras.Model) -> np.ndarray:
    """Logits as computed, after checking that they are finite and no probabilities.

    Raises:
        ValueError: NaN or infinity, or rows in [0, 1] that sum to 1.
    """
    if not np.isfinite(logits).all():
        raise ValueError(f"model {model.name!r} returned NaN or infinite logits.")
    if softmax_deviation(logits) < 1e-5:
        raise ValueError(
            f"model must return logits, but the outputs of {model.name!r} are probabilities: {_REMEDY}"
        )
    return logits
