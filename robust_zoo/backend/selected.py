"""Of `tensorflow.py`, `jax.py` and `torch.py`, the one for the backend that Keras runs on."""

import importlib

import keras

_NAMES = ("tensorflow", "jax", "torch")

name = keras.config.backend()
if name not in _NAMES:
    raise ImportError(f"robust_zoo needs KERAS_BACKEND to be one of {_NAMES}, not {name!r}.")

backend = importlib.import_module(f"robust_zoo.backend.{name}")
