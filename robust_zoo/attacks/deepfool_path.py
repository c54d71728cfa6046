"""DeepFool as DeepDefense unrolls it (Yan et al., arXiv:1803.00404): differentiable by the weights.

The iterations are computed twice: once without a record, to find which boundary is the nearest in each (a
constant of the gradient, as is whether an example has crossed already), and once along that path, where a
single input gradient an iteration is enough. The result is that of recording everything. Nothing is
clipped to [0, 1].

`logits` is a function from images (batch, height, width, channels) to float32 logits (batch, classes).
"""

from collections.abc import Callable

import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks.losses import at
from robust_zoo.attacks.norms import over_images
from robust_zoo.typing import Tensor


def find_path(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    overshoot: float,
    candidates: int | None = None,
) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """Which of the examples are correct, (batch,), and DeepFool's choices in each iteration.

    Correct examples leave their class for the nearest other one; the others go to the class `y`. A choice is
    the class to leave, the class to reach, int32 (batch,), and whether the example still moves, bool
    (batch,): it stops where the perturbation, `overshoot` included, has crossed the boundary.

    Args:
        logits: see above.
        x: float32 (batch, height, width, channels).
        y: int32 (batch,).
        steps: iterations.
        overshoot: >= 0.
        candidates: only so many classes are looked at, the likeliest ones of `x`, `y` being one of them; None (default) for
            all.
    """
    seen, classes = logits, None
    if candidates is not None:
        classes = _likeliest(logits(x), y, candidates)

        def seen(x_adv: Tensor) -> Tensor:
            return ops.take_along_axis(logits(x_adv), classes, axis=1)

    def number(place: Tensor) -> Tensor:
        """The class at a place among those that are looked at."""
        return place if classes is None else at(classes, place)

    change, path = ops.zeros_like(x), []
    moves = ops.ones((ops.shape(x)[0],), "bool")
    correct = None
    # Where `y` stands among the classes: the first, if they are chosen.
    own_place = y if classes is None else ops.zeros_like(y)
    for step in range(steps):
        values, jacobian = backend.input_jacobian(seen, x + change)
        predicted = _argmax(values)
        correct = predicted == own_place if correct is None else correct
        base = ops.where(correct, own_place, predicted)
        rows = ops.reshape(jacobian, (ops.shape(x)[0], values.shape[1], -1))
        gaps = values - at(values, base)[:, None]
        left = at(rows, base)
        sizes = _size(rows - left[:, None])
        distances = ops.abs(gaps) / sizes
        own = ops.one_hot(base, values.shape[1], dtype="bool")
        distances = ops.where(own, np.inf, distances)
        nearest = ops.cast(ops.argmin(distances, axis=1), "int32")
        target = ops.where(correct, nearest, own_place)
        path.append((number(base), number(target), moves))
        if step < steps - 1:
            normal = ops.reshape(at(rows, target) - left, ops.shape(x))
            moved = _step(at(gaps, target), normal)
            change = change + ops.where(over_images(moves, x), moved, 0.0)
            now = _argmax(logits(x + (1 + overshoot) * change))
            crossed = ops.where(correct, now != y, now == y)
            moves = ops.logical_and(moves, ops.logical_not(crossed))
    return correct, path


def perturbation(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    path: list[tuple[Tensor, Tensor, Tensor]],
    *,
    overshoot: float,
) -> Tensor:
    """The perturbations (batch, height, width, channels) along a path, (1 + overshoot) times all steps."""
    change = ops.zeros_like(x)
    for base, target, moves in path:

        def gap(x_adv: Tensor, base: Tensor = base, target: Tensor = target) -> Tensor:
            values = logits(x_adv)
            return at(values, target) - at(values, base)

        value, normal = backend.value_and_input_gradient(gap, x + change)
        change = change + ops.where(over_images(moves, x), _step(value, normal), 0.0)
    return (1 + overshoot) * change


def length(x: Tensor) -> Tensor:
    """L2 norm of each example, (batch,), differentiable at zero."""
    squares = ops.sum(ops.square(x), axis=tuple(range(1, len(x.shape))))
    return ops.sqrt(ops.maximum(squares, 1e-12))


def _likeliest(values: Tensor, y: Tensor, count: int) -> Tensor:
    """The class `y` and behind it those of the highest logits, int32 (batch, count)."""
    own = ops.one_hot(y, values.shape[1], dtype="bool")
    _, found = ops.top_k(ops.where(own, np.inf, values), count)
    return ops.cast(found, "int32")


def _argmax(logits: Tensor) -> Tensor:
    return ops.cast(ops.argmax(logits, axis=1), "int32")


def _size(normal: Tensor) -> Tensor:
    """L2 norm along the last axis as the authors' code takes it on MNIST: 5e-6 is added to each entry."""
    return ops.sqrt(ops.maximum(ops.sum(ops.square(normal + 5e-6), axis=-1), 1e-24))


def _step(gap: Tensor, normal: Tensor) -> Tensor:
    """The step to a linearised boundary: |gap| / ||normal|| along the normal over its length."""
    size = _size(ops.reshape(normal, (ops.shape(normal)[0], -1)))
    return over_images(ops.abs(gap) / ops.square(size), normal) * normal
