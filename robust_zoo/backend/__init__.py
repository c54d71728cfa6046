"""The one folder that knows which backend Keras runs on.

`tensorflow.py`, `jax.py` and `torch.py` hold the same few functions under the same names; `random.py`
is written in `keras.ops` and gives the same numbers on all three. Everything above this folder is
one source.
"""

import importlib

import keras

from robust_zoo.backend import random

_NAMES = ("tensorflow", "jax", "torch")

name = keras.config.backend()
if name not in _NAMES:
    raise ImportError(f"robust_zoo needs KERAS_BACKEND to be one of {_NAMES}, not {name!r}.")

_backend = importlib.import_module(f"robust_zoo.backend.{name}")

DefenseSteps = _backend.DefenseSteps
UpdateSteps = _backend.UpdateSteps
check_scope = _backend.check_scope
devices = _backend.devices
function = _backend.function
gpu_count = _backend.gpu_count
gradients = _backend.gradients
input_jacobian = _backend.input_jacobian
replica_count = _backend.replica_count
replica_id = _backend.replica_id
replica_sum = _backend.replica_sum
version = _backend.version
value_and_input_gradient = _backend.value_and_input_gradient

__all__ = [
    "DefenseSteps",
    "UpdateSteps",
    "check_scope",
    "devices",
    "function",
    "gpu_count",
    "gradients",
    "input_jacobian",
    "name",
    "random",
    "replica_count",
    "replica_id",
    "replica_sum",
    "value_and_input_gradient",
    "version",
]
