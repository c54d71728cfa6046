"""What several defenses need: checks of hyperparameters, kernels, and models that compute otherwise for a while."""

import contextlib
from numbers import Integral, Real

import keras
import numpy as np
from keras import ops

from robust_zoo.layers import layers_of


def check_count(name: str, value, *, least: int) -> int:
    """The value as an int; ValueError unless it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}.")
    return int(value)


def check_number(
    name: str, value, *, above=-np.inf, least=-np.inf, most=np.inf, below=np.inf
) -> float:
    """The value as a float; ValueError unless it is a finite number within the bounds."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    bounded = number and -np.inf < value < np.inf
    if not (bounded and above < value < below and least <= value <= most):
        low = f"> {above:g}" if above > -np.inf else f">= {least:g}"
        high = f" and <= {most:g}" if most < np.inf else ""
        high = f" and < {below:g}" if below < np.inf else high
        raise ValueError(f"{name} must be a number {low}{high}, got {value!r}.")
    return float(value)


def kernels_of(classifier: keras.Model) -> dict[str, keras.Variable]:
    """The kernels (..., units) of all dense and convolutional layers, by the layers' names.

    Raises:
        ValueError: no such layers, two of one name, or other layers with weight matrices.
    """
    known = tuple(getattr(keras.layers, name) for name in ("Dense", "Conv1D", "Conv2D", "Conv3D"))
    kernels = {}
    for layer in layers_of(classifier):
        if isinstance(layer, keras.Model):
            continue
        matrices = [variable for variable in layer.trainable_variables if len(variable.shape) > 1]
        if matrices and (not isinstance(layer, known) or layer.name in kernels):
            raise ValueError(
                "classifier must have its weight matrices in dense and convolutional layers of different names, "
                f"got {type(layer).__name__} {layer.name!r}."
            )
        if matrices:
            kernels[layer.name] = layer.kernel
    if not kernels:
        raise ValueError(f"classifier must have layers with kernels, got {classifier.name!r}.")
    return kernels


@contextlib.contextmanager
def synchronised(classifier: keras.Model, replicas: int):
    """Inside, batch normalisation shares statistics between several replicas, however it was built.

    Its configuration says so only inside, since backends without replicas refuse to load such layers.
    """
    kind = keras.layers.BatchNormalization
    found = [layer for layer in layers_of(classifier) if isinstance(layer, kind)]
    before = [layer.synchronized for layer in found]
    for layer in found:
        layer.synchronized = layer.synchronized or replicas > 1
    try:
        yield
    finally:
        for layer, value in zip(found, before, strict=True):
            layer.synchronized = value


def reading(variables, change=lambda variable, value: value):
    """A scope in which the variables have changed values, and what is assigned to them is forgotten.

    Args:
        variables: all that the code inside reads or assigns.
        change: given a variable and its value, its value inside.
    """
    pairs = [(variable, ops.convert_to_tensor(variable)) for variable in variables]
    return keras.StatelessScope(
        state_mapping=[(variable, change(variable, value)) for variable, value in pairs]
    )


class InTrainingMode:
    """A classifier that computes in training mode, whatever it is told, and keeps no statistics of it."""

    def __init__(self, classifier):
        self._classifier = classifier

    def __call__(self, x, training=False):
        with reading(self._classifier.variables):
            return self._classifier(x, training=True)

    def __getattr__(self, name):
        return getattr(self._classifier, name)


class Mean(keras.losses.Loss):
    """Values already computed, (batch,), as a Keras loss: weighted by example and scaled for replicas."""

    def __call__(self, values, sample_weight=None):
        return super().__call__(values, values, sample_weight=sample_weight)

    def call(self, y_true, y_pred):
        return y_pred


def finite(tensor):
    """The tensor with 0 for NaN and infinity, which loss scaling brings forth now and then."""
    return ops.where(ops.isfinite(tensor), tensor, 0.0)
