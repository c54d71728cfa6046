"""Auto-PGD in the l1 ball: sparse steps, in balls that shrink to the one that is asked for."""

import math
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from robust_zoo.attacks.expectation import value_and_input_gradient
from robust_zoo.attacks.norms import L0, L1, over_images
from robust_zoo.attacks.state import AttackState
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

if TYPE_CHECKING:
    from robust_zoo.attacks.apgd import APGD

_RADII = (3.0, 2.0, 1.0)  # of the balls, in units of epsilon
_SHARES = (0.3, 0.3)  # of the steps, in the first two
_SHRINK, _LEAST = 1.5, 0.1  # of the step size, in units of the radius
_SPARSER = 0.95  # share of changed values that counts as fewer than before
_LOOK_EVERY = 0.04  # of a ball's steps
_COUNTED, _BALL = L0(), L1()


def _lengths(steps: int) -> list[int]:
    """Steps in each ball."""
    first, second = (math.ceil(share * steps) for share in _SHARES)
    second = min(second, steps - first)
    return [first, second, steps - first - second]


def steps_of(steps: int) -> int:
    """Steps of an attempt: in each ball after the first, one that projects to it."""
    return steps + len(_RADII) - 1


def start(x: Tensor, y: Tensor, keys: Tensor, epsilon: Tensor | float) -> AttackState:
    """See `Attack.start`."""
    x_adv = _BALL.surface_start(keys, x, _RADII[0] * epsilon)
    none = ops.cast(ops.zeros_like(y), "float32")
    return {
        "x_adv": x_adv,
        "labels": y,
        "iteration": ops.zeros_like(y),
        "best": x_adv,
        "best_gradient": ops.zeros_like(x),
        "best_loss": none - np.inf,
        "step_size": none + 1.0,  # in units of the radius
        "changed_then": _changed(x_adv, x),  # at the last look
        "sparsity": _changed(x_adv, x) / (_SHRINK * _size(x)),
    }


def step(
    attack: "APGD", model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
) -> tuple[AttackState, Tensor]:
    """See `Attack.step`. What lies in a larger ball is no success: its logits are the label's own."""

    def choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        return ops.where(over_images(mask, x), yes, no)

    def ascended(x_adv: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(model, x_adv)
        return attack.loss_value(logits, state), logits

    x_adv, done = state["x_adv"], state["iteration"]
    (loss, logits), gradient = value_and_input_gradient(model, ascended, x_adv, has_aux=True)
    better = loss > state["best_loss"]
    best, best_gradient = (
        choose(better, new, state[name])
        for name, new in (("best", x_adv), ("best_gradient", gradient))
    )
    best_loss = ops.where(better, loss, state["best_loss"])

    lengths = _lengths(attack.steps)
    ends = np.cumsum([length + 1 for length in lengths])[:-1]  # points that are looked at before
    ball = ops.sum(
        ops.cast(done[:, None] >= ops.convert_to_tensor(ends.astype("int32")), "int32"), axis=1
    )

    def of_ball(values: list[float], place: Tensor) -> Tensor:
        return ops.take(ops.convert_to_tensor(np.asarray(values, "float32")), place)

    radius = over_images(of_ball(list(_RADII), ball), x) * epsilon
    begun = of_ball([0.0, *ends.tolist()], ball)
    inside = ops.cast(done, "float32") - begun  # steps in this ball that led to the point
    every = of_ball([max(int(_LOOK_EVERY * length), 1) for length in lengths], ball)
    look = ops.logical_and(inside > 0, ops.floor(inside / every) * every == inside)

    changed = _changed(best, x)
    sparser = ops.logical_and(look, changed < _SPARSER * state["changed_then"])
    smaller = ops.maximum(state["step_size"] / _SHRINK, _LEAST)
    size = ops.where(look, ops.where(sparser, 1.0, smaller), state["step_size"])
    sparsity = ops.where(look, changed / (_SHRINK * _size(x)), state["sparsity"])
    then = ops.where(look, changed, state["changed_then"])
    point = choose(sparser, best, x_adv)
    direction = _sparse(choose(sparser, best_gradient, gradient), sparsity)
    moved = _BALL.project(point + over_images(size, x) * radius * direction, x, radius)

    # After the last point of a ball the best one is projected to the next.
    over = ops.any(done[:, None] + 1 == ops.convert_to_tensor(ends.astype("int32")), axis=1)
    following = over_images(of_ball([*_RADII[1:], _RADII[-1]], ball), x) * epsilon
    first = _BALL.project(best, x, following)
    x_next = choose(over, first, moved)
    fresh = _changed(x_next, x)
    counts = ball == len(_RADII) - 1
    own = ops.one_hot(state["labels"], logits.shape[1], dtype=logits.dtype)
    state = {
        **state,
        "x_adv": x_next,
        "iteration": done + 1,
        "best": choose(over, first, best),
        "best_gradient": best_gradient,
        "best_loss": ops.where(over, -np.inf, best_loss),
        "step_size": ops.where(over, 1.0, size),
        "changed_then": ops.where(over, fresh, then),
        "sparsity": ops.where(over, fresh / (_SHRINK * _size(x)), sparsity),
    }
    return state, ops.where(counts[:, None], logits, own)


def _size(x: Tensor) -> int:
    return math.prod(x.shape[1:])


def _changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """How many values differ, float32 (batch,)."""
    return ops.reshape(_COUNTED.length(x_adv - x), (-1,))


def _sparse(gradient: Tensor, share: Tensor) -> Tensor:
    """Signs of the given share (batch,) of largest slopes, all equal in size, of l1 norm 1."""
    count = _size(gradient)
    size = ops.reshape(ops.abs(gradient), (-1, count))
    place = ops.clip(ops.floor((1 - share) * count), 0, count - 1)
    least = ops.take_along_axis(ops.sort(size, axis=1), ops.cast(place, "int32")[:, None], axis=1)
    kept = ops.where(size >= least, ops.sign(ops.reshape(gradient, (-1, count))), 0.0)
    kept = kept / (ops.sum(ops.abs(kept), axis=1, keepdims=True) + 1e-10)
    return ops.reshape(kept, ops.shape(gradient))
