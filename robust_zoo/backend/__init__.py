"""The one folder that knows which backend Keras runs on.

`tensorflow.py`, `jax.py` and `torch.py` hold the same few functions under the same names; `random.py`
is written in `keras.ops` and gives the same numbers on all three. Everything above this folder is
one source.
"""

import os
import platform
from collections.abc import Callable
from typing import Any

from keras import ops

from robust_zoo.backend import random
from robust_zoo.backend.selected import backend as _backend
from robust_zoo.backend.selected import name
from robust_zoo.typing import Tensor

PreparedSteps = _backend.PreparedSteps
UpdateSteps = _backend.UpdateSteps
check_scope = _backend.check_scope
devices = _backend.devices
full_precision = _backend.full_precision
function = _backend.function
gpus = _backend.gpus
gradients = _backend.gradients
replica_count = _backend.replica_count
replica_id = _backend.replica_id
replica_sum = _backend.replica_sum
version = _backend.version

__all__ = [
    "PreparedSteps",
    "UpdateSteps",
    "check_scope",
    "devices",
    "finite_gradient",
    "full_precision",
    "function",
    "gpus",
    "gradients",
    "hardware",
    "input_jacobian",
    "name",
    "random",
    "replica_count",
    "replica_id",
    "replica_sum",
    "value_and_input_gradient",
    "version",
]


def value_and_input_gradient(
    fn: Callable[[Tensor], Any], x: Tensor, has_aux: bool = False, *, cleaned: bool = True
) -> tuple[Any, Tensor]:
    """`fn(x)` and the gradient of its sum with respect to `x`.

    Args:
        fn: maps `x` to one value an example, (batch,); with `has_aux`, to such values and anything else.
        x: tensor (batch, ...).
        has_aux: whether `fn` returns a pair, of which only the first is differentiated.
        cleaned: whether entries that are not finite are replaced, see `finite_gradient`.

    Returns:
        What `fn` returned, and the gradient in the shape of `x`. Differentiable again when an outer
        gradient records it.
    """
    result, gradient = _backend.value_and_input_gradient(fn, x, has_aux=has_aux)
    return result, finite_gradient(gradient) if cleaned else gradient


def hardware(devices: int) -> str:
    """What trains on so many devices, in words."""
    names = _backend.gpus()
    if names:
        return f"{devices} {names[0]}"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def input_jacobian(
    fn: Callable[[Tensor], Any], x: Tensor, has_aux: bool = False
) -> tuple[Any, Tensor]:
    """Outputs (batch, k) of `fn` and their Jacobian with respect to `x`, (batch, k, *x.shape[1:]).

    With `has_aux`, `fn` returns a pair, of which only the first is differentiated. Entries that are not finite
    are replaced as in `finite_gradient`.
    """
    outputs, jacobian = _backend.input_jacobian(fn, x, has_aux=has_aux)
    return outputs, finite_gradient(jacobian)


def finite_gradient(gradient: Tensor) -> Tensor:
    """A gradient (batch, ...) with 0 for NaN, and for infinity the largest finite size in that example, or 1.

    Roots, logarithms and powers have an infinite slope at black pixels, which says where to go, but not how far.
    """
    finite = ops.isfinite(gradient)
    sizes = ops.where(finite, ops.abs(gradient), 0.0)
    largest = ops.max(sizes, axis=tuple(range(1, len(gradient.shape))), keepdims=True)
    largest = ops.where(largest > 0, largest, 1.0)
    replaced = ops.where(ops.isnan(gradient), 0.0, ops.sign(gradient) * largest)
    return ops.where(finite, gradient, ops.cast(replaced, gradient.dtype))
