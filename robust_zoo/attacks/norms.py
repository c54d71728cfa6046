"""Norm geometry: everything an attack needs to know about the ball it stays in.

In all functions images are float32 (batch, ...) in [0, 1] and epsilon is a positive number, a scalar
tensor or a tensor (batch, 1, ...).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from robust_zoo.backend import random
from robust_zoo.typing import Tensor


def over_images(values: Tensor, x: Tensor) -> Tensor:
    """Values (batch,) in a shape (batch, 1, ...) that broadcasts over images `x`."""
    return ops.reshape(values, (-1,) + (1,) * (len(x.shape) - 1))


def _axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(1, len(x.shape)))


def divided_by_largest(tensor: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A tensor over the largest absolute value along some axes, and that value (1 for zero), which it keeps.

    Squares of what is left neither vanish nor overflow in float32.
    """
    largest = ops.max(ops.abs(tensor), axis=axes, keepdims=True)
    largest = ops.where(largest > 0, largest, 1.0)
    return tensor / largest, largest


def _by_parts(
    measure: Callable[[np.ndarray], np.ndarray], x_adv: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """`measure` of the images, some at a time: in float64 all of them would take several times their room."""
    parts = [slice(i, i + _PART) for i in range(0, len(x), _PART)]
    return np.concatenate([measure(x_adv[part].astype("float64") - x[part]) for part in parts])


_PART = 256  # images


@dataclass(frozen=True)
class Linf:
    """The largest absolute change of a pixel."""

    name = "linf"

    def length(self, change: Tensor) -> Tensor:
        """Of each example, (batch, 1, ...)."""
        return ops.max(ops.abs(change), axis=_axes(change), keepdims=True)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest ascent of unit norm."""
        return ops.sign(gradient)

    def shrink(self, change: Tensor, epsilon: Tensor | float) -> Tensor:
        """The change of the ball around zero that is nearest."""
        return ops.clip(change, -epsilon, epsilon)

    def project(self, x_adv: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        """The point of the ball around `x` and of [0, 1] that is nearest to `x_adv`."""
        x_adv = ops.minimum(ops.maximum(x_adv, x - epsilon), x + epsilon)
        return ops.clip(x_adv, 0.0, 1.0)

    def random_start(self, keys: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        """Uniform in the ball, then clipped to [0, 1]."""
        noise = random.uniform(keys, x.shape[1:], -1.0, 1.0)
        return ops.clip(x + epsilon * noise, 0.0, 1.0)

    def surface_start(self, keys: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        """Random, stretched to the surface of the ball, then clipped to [0, 1]."""
        noise = random.uniform(keys, x.shape[1:], -1.0, 1.0)
        return ops.clip(x + epsilon * noise / (self.length(noise) + 1e-12), 0.0, 1.0)

    def distance(self, x_adv: np.ndarray, x: np.ndarray) -> np.ndarray:
        """NumPy, float64 (n,)."""
        return _by_parts(lambda change: np.abs(change).max(axis=_axes(x)), x_adv, x)


@dataclass(frozen=True)
class L2:
    """The Euclidean length of the change."""

    name = "l2"

    def length(self, change: Tensor) -> Tensor:
        """Of each example, (batch, 1, ...)."""
        scaled, largest = divided_by_largest(change, _axes(change))
        squares = ops.sum(ops.square(scaled), axis=_axes(change), keepdims=True)
        return largest * ops.sqrt(squares)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest ascent of unit norm; zero where the gradient is."""
        scaled, _ = divided_by_largest(gradient, _axes(gradient))
        return scaled / ops.maximum(self.length(scaled), 1e-12)

    def shrink(self, change: Tensor, epsilon: Tensor | float) -> Tensor:
        """The change of the ball around zero that is nearest."""
        return change * ops.minimum(1.0, epsilon / ops.maximum(self.length(change), 1e-12))

    def project(self, x_adv: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        """`x_adv` pulled back along the ray to the ball around `x`, then clipped to [0, 1]."""
        return ops.clip(x + self.shrink(x_adv - x, epsilon), 0.0, 1.0)

    def random_start(self, keys: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        """Uniform in the ball's volume, then clipped to [0, 1]."""
        shape = x.shape[1:]
        direction = random.normal(random.fold_in(keys, 0), shape)
        radius = random.uniform(random.fold_in(keys, 1), (1,) * len(shape))
        radius = radius ** (1.0 / math.prod(shape))
        unit = direction / ops.maximum(self.length(direction), 1e-12)
        return ops.clip(x + epsilon * radius * unit, 0.0, 1.0)

    def surface_start(self, keys: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        """Uniform on the sphere, then clipped to [0, 1]."""
        noise = random.normal(keys, x.shape[1:])
        return ops.clip(x + epsilon * noise / (self.length(noise) + 1e-12), 0.0, 1.0)

    def distance(self, x_adv: np.ndarray, x: np.ndarray) -> np.ndarray:
        """NumPy, float64 (n,)."""
        return _by_parts(lambda change: np.sqrt((change**2).sum(axis=_axes(x))), x_adv, x)


_HALVINGS = 40  # of an interval that holds a threshold; float32 tells no more


def _thresholded(change: Tensor, room: Tensor | float, epsilon: Tensor | float) -> Tensor:
    """sign(v) * clip(|v| - t, 0, room) for a change v, with the least t >= 0 of each example at which the sum of absolute
    values is at most epsilon.
    """
    size = ops.abs(change)

    def left(threshold: Tensor) -> Tensor:
        return ops.minimum(ops.maximum(size - threshold, 0.0), room)

    def halve(_: Tensor, ends: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        low, high = ends
        middle = (low + high) / 2
        inside = ops.sum(left(middle), axis=_axes(change), keepdims=True) <= epsilon
        return ops.where(inside, low, middle), ops.where(inside, middle, high)

    none = ops.zeros_like(size)
    start = ops.max(none, axis=_axes(change), keepdims=True)
    ends = (start, ops.max(size, axis=_axes(change), keepdims=True))
    _, threshold = ops.fori_loop(0, _HALVINGS, halve, ends)
    inside = ops.sum(left(none), axis=_axes(change), keepdims=True) <= epsilon
    return ops.sign(change) * left(ops.where(inside, 0.0, threshold))


@dataclass(frozen=True)
class L1:
    """The sum of absolute changes."""

    name = "l1"

    def length(self, change: Tensor) -> Tensor:
        """Of each example, (batch, 1, ...)."""
        return ops.sum(ops.abs(change), axis=_axes(change), keepdims=True)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest ascent of unit norm: the value of the largest slope alone, or several that share it."""
        size = ops.abs(gradient)
        steepest = size >= ops.max(size, axis=_axes(gradient), keepdims=True)
        chosen = ops.where(steepest, ops.sign(gradient), 0.0)
        return chosen / ops.maximum(self.length(chosen), 1.0)

    def shrink(self, change: Tensor, epsilon: Tensor | float) -> Tensor:
        """The change of the ball around zero that is nearest (Duchi et al., ICML 2008)."""
        return _thresholded(change, np.inf, epsilon)

    def project(self, x_adv: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        """The point of the ball around `x` and of [0, 1] that is nearest to `x_adv` (arXiv:2103.01208, section 3.1)."""
        change = x_adv - x
        room = ops.where(change > 0, 1.0 - x, x)
        return ops.clip(x + _thresholded(change, room, epsilon), 0.0, 1.0)

    def surface_start(self, keys: Tensor, x: Tensor, epsilon: Tensor | float) -> Tensor:
        """Normal noise, projected to the ball and to [0, 1]."""
        return self.project(x + random.normal(keys, x.shape[1:]), x, epsilon)

    def distance(self, x_adv: np.ndarray, x: np.ndarray) -> np.ndarray:
        """NumPy, float64 (n,)."""
        return _by_parts(lambda change: np.abs(change).sum(axis=_axes(x)), x_adv, x)


@dataclass(frozen=True)
class L0:
    """How many numbers (channels of pixels) change."""

    name = "l0"

    def shrink(self, change: Tensor, epsilon: Tensor | float) -> Tensor:
        """The change with its `epsilon` largest values alone; of equal ones some, so that there are no more."""
        flat = ops.reshape(ops.abs(change), (ops.shape(change)[0], -1))
        ranks = ops.argsort(ops.argsort(-flat, axis=1), axis=1)
        ranks = ops.reshape(ops.cast(ranks, "float32"), ops.shape(change))
        return ops.where(ranks < epsilon, change, 0.0)

    def length(self, change: Tensor) -> Tensor:
        """Of each example, float32 (batch, 1, ...)."""
        changed = ops.cast(ops.not_equal(change, 0), "float32")
        return ops.sum(changed, axis=_axes(change), keepdims=True)

    def distance(self, x_adv: np.ndarray, x: np.ndarray) -> np.ndarray:
        """NumPy, float64 (n,)."""
        return _by_parts(lambda change: (change != 0).sum(axis=_axes(x)) * 1.0, x_adv, x)


DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
"""The norm by which a gradient is measured, of the norm of the change."""

NORMS = {norm.name: norm for norm in (Linf(), L2(), L1(), L0())}


def get_norm(name: str) -> Linf | L2 | Any:  # Any is L1 or L0, which not all attacks can do with
    """The geometry of "linf", "l2", "l1" or "l0"; ValueError for any other name."""
    if name not in NORMS:
        raise ValueError(f"norm must be one of {tuple(NORMS)}, got {name!r}.")
    return NORMS[name]
