"""Inference: a model's logits, by functions that are compiled once, in batches of a few fixed sizes."""

import functools
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.contract import check_logits
from robust_zoo.fingerprint import OMITTED, fingerprint
from robust_zoo.layers import layers_of
from robust_zoo.typing import Tensor

_T = TypeVar("_T")

# What was compiled for a model goes when the model does: nothing in it refers to the model itself.
_COMPILED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


# What Keras itself keeps or changes in a layer, or what `compile` and `fit` change in a model, and no logit depends on.
_BOOKKEEPING = {
    "_auto_config",
    "_call_signature",
    "_called",
    "_inbound_nodes",
    "_lock",
    "_outbound_nodes",
    "_parent_path",
    "_path",
    "_self_update_uid",
    "build",
    "built",
    "call_signature_parameters",
    "quantize",
}
_TRAINER = {
    "compiled",
    "loss",
    "jit_compile",
    "run_eagerly",
    "steps_per_execution",
    "auto_scale_loss",
    "history",
    "optimizer",
    "predict_function",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
    "test_function",
    "train_function",
    "training",
    "_compile_config",
    "_compile_loss",
    "_compile_metrics",
    "_compiled_trainable_state",
    "_jax_state",
    "_jax_state_synced",
    "_loss_tracker",
}


@functools.cache
def _of_every_model() -> frozenset[str]:
    """Private names of what every `keras.Model` keeps for itself."""
    functional = keras.Sequential([keras.Input((1,)), keras.layers.Identity(name="of")], name="of")
    functional(np.zeros((1, 1), "float32"))
    found = {*vars(functional), *vars(functional._functional)}
    return frozenset(name for name in found if name.startswith("_"))


def _state_of(model: keras.Model) -> str:
    """A hash of what a compiled function of the model has in it as constants: all state but its variables."""
    parts: list[object] = []
    for layer in layers_of(model):
        is_model = isinstance(layer, keras.Model)
        parts.append(type(layer))
        for name, value in sorted(vars(layer).items()):
            private = is_model and (name in _TRAINER or name in _of_every_model())
            if not private and name not in _BOOKKEEPING:
                parts += (name, value)
    return fingerprint(*parts, array=_as_array)


def _as_array(value: object) -> object:
    # Layers are looked at one by one, variables not at all, and Keras's graphs hold no state.
    if isinstance(value, (keras.Variable, keras.Operation, keras.KerasTensor)):
        return OMITTED
    if isinstance(value, (dict, list, tuple, type, np.ndarray)):
        return None  # before the slow look at what is a tensor
    return ops.convert_to_numpy(value) if ops.is_tensor(value) else None


def forget(model: keras.Model) -> None:
    """Drops all that was compiled for a model."""
    _COMPILED.pop(model, None)


def once(
    model: keras.Model, image_shape: tuple[int, ...], part: Hashable, compile_part: Callable[[], _T]
) -> _T:
    """What `compile_part()` gives, made once for a part, an image shape and a model as it now is."""
    variables = tuple(id(variable) for variable in model.variables)
    key = (part, image_shape, _state_of(model), variables)
    parts = _COMPILED.setdefault(model, {})
    if key not in parts:
        parts[key] = compile_part()
    return parts[key]


def logits_of(model: keras.Model, x: Tensor) -> Tensor:
    """The model's logits, a float32 tensor (batch, classes), traceable."""
    return ops.cast(model(x, training=False), "float32")


def predict(model: keras.Model, x: np.ndarray, batch_size: int) -> np.ndarray:
    """The model's logits, float32 (n, classes), computed in batches of a few fixed sizes.

    Args:
        model: classifier, images in [0, 1] to logits.
        x: float32 (n, height, width, channels) in [0, 1].
        batch_size: images in the largest batch, an integer >= 1.

    Raises:
        ValueError: logits that are not finite, or outputs that look like probabilities.
    """
    reference = weakref.ref(model)
    compiled = once(
        model,
        x.shape[1:],
        "predict",
        lambda: backend.function(lambda x: logits_of(reference(), x), model),
    )
    return check_logits(in_batches(compiled, batch_sizes(batch_size), x), model)


def in_batches(
    function: Callable[..., Tensor], sizes: list[int], *arrays: np.ndarray
) -> np.ndarray:
    """What a compiled function gives for all rows of the arrays, in batches of fixed sizes."""
    rows = batches(sizes, len(arrays[0]))
    return np.concatenate([call(function, sizes, part, *arrays) for part in rows])


def batch_sizes(batch_size: int) -> list[int]:
    """The fixed sizes that batches are padded to, in rising order: halves, down to a sixteenth."""
    return sorted({max(batch_size >> shift, 1) for shift in range(5)})


def batches(sizes: list[int], rows: int | np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers, or all below a count, in batches that waste at most a quarter of a fixed size."""
    rows = np.arange(rows) if isinstance(rows, int) else rows
    while len(rows):
        size = next((size for size in reversed(sizes) if 4 * len(rows) >= 3 * size), sizes[0])
        yield rows[:size]
        rows = rows[size:]


def call(function: Callable[..., Any], sizes: list[int], rows: np.ndarray, *arrays: Any) -> Any:
    """`function` of some rows of the (nested) arrays, padded to a fixed size; NumPy, cut again.

    Numbers are handed on as they are.
    """
    size = next(size for size in sizes if size >= len(rows))
    padded = np.concatenate([rows, np.full(size - len(rows), rows[0])])

    def take(leaf: np.ndarray) -> Tensor:
        return ops.convert_to_tensor(leaf[padded] if leaf.ndim else leaf)

    result = function(*keras.tree.map_structure(take, arrays))
    return keras.tree.map_structure(lambda leaf: ops.convert_to_numpy(leaf)[: len(rows)], result)
