"""The one folder that knows which backend Keras runs on.

`tensorflow.py`, `jax.py` and `torch.py` hold the same few functions under the same names; `random.py`
is written in `keras.ops` and gives the same numbers on all three. Everything above this folder is
one source.
"""

import os
import platform
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from robust_zoo.backend import random
from robust_zoo.backend.selected import backend as _backend
from robust_zoo.backend.selected import name
from robust_zoo.typing import Tensor

PreparedSteps = _backend.PreparedSteps
UpdateSteps = _backend.UpdateSteps
check_scope = _backend.check_scope
device_count = _backend.device_count
devices = _backend.devices
from_first_host = _backend.from_first_host
full_precision = _backend.full_precision
function = _backend.function
gpus = _backend.gpus
gradients = _backend.gradients
host = _backend.host
local_rows = _backend.local_rows
lost_host = _backend.lost_host
replica_count = _backend.replica_count
replica_id = _backend.replica_id
replica_sum = _backend.replica_sum
shards = _backend.shards
version = _backend.version

__all__ = [
    "PreparedSteps",
    "UpdateSteps",
    "check_scope",
    "device_count",
    "devices",
    "finite_gradient",
    "from_first_host",
    "full_precision",
    "function",
    "gpus",
    "gradients",
    "hardware",
    "host",
    "input_jacobian",
    "local_rows",
    "lost_host",
    "name",
    "random",
    "replica_count",
    "replica_id",
    "replica_sum",
    "shards",
    "value_and_input_gradient",
    "version",
    "wait_for_hosts",
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


def hardware(trainer: keras.Model) -> str:
    """What a keras.Model trains on, in words."""
    names, (_, hosts) = _backend.gpus(), host(trainer)
    several = f"{hosts} hosts, each " if hosts > 1 else ""
    if names:
        return f"{several}{device_count(trainer) // hosts} {names[0]}"
    return f"{several}{platform.machine()} CPU, {os.cpu_count()} cores"


def wait_for_hosts(trainer: keras.Model) -> None:
    """Returns when all hosts that train a keras.Model together have called it."""
    from_first_host(trainer, np.zeros(1))


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
