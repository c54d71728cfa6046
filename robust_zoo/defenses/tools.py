"""What several defenses need: checks of hyperparameters, kernels, and models that compute otherwise for a while."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral, Real
from typing import Any

import keras
import numpy as np
from keras import ops

from robust_zoo.layers import layers_of
from robust_zoo.typing import Tensor


def check_count(name: str, value: Any, *, least: int) -> int:
    """The value as an int; ValueError unless it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}.")
    return int(value)


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -np.inf,
    least: float = -np.inf,
    most: float = np.inf,
    below: float = np.inf,
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
def synchronised(classifier: keras.Model, replicas: int) -> Iterator[None]:
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


def reading(
    variables: Iterable[keras.Variable],
    change: Callable[[keras.Variable, Tensor], Tensor] = lambda variable, value: value,
) -> keras.StatelessScope:
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

    def __init__(self, classifier: keras.Model) -> None:
        self._classifier = classifier

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        with reading(self._classifier.variables):
            return self._classifier(x, training=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._classifier, name)


class Mean(keras.losses.Loss):
    """Values already computed, (batch,), as a Keras loss: weighted by example and scaled for replicas."""

    def __call__(self, values: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        return super().__call__(values, values, sample_weight=sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred


def finite(tensor: Tensor) -> Tensor:
    """The tensor with 0 for NaN and infinity, which loss scaling brings forth now and then."""
    return ops.where(ops.isfinite(tensor), tensor, 0.0)
