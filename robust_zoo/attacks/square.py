"""Square attack, the part of AutoAttack that uses no gradients."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import keras
import numpy as np
from keras import ops

from robust_zoo.attacks.attack import FixedBudgetAttack
from robust_zoo.attacks.losses import CWMargin
from robust_zoo.attacks.state import AttackState
from robust_zoo.backend import random
from robust_zoo.inference import logits_of
from robust_zoo.typing import Tensor

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_WITHIN = 1 - 1e-6  # of epsilon, in l1
_MARGIN = CWMargin(confidence=math.inf)  # without a floor


def square_sides(
    height: int, width: int, start: float, least: int = 1, *, odd: bool = False
) -> list[int]:
    """Side of the square in each phase of the schedule, in pixels, of a share `start` of the image at first.

    The share is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries.
    """
    sides = []
    for phase in range(len(_HALVINGS) + 1):
        side = max(round(math.sqrt(start / 2**phase * height * width)), least)
        side += odd and side % 2 == 0
        sides.append(min(side, height, width))
    return sides


def _length(values: np.ndarray, norm: str) -> float:
    return float(np.abs(values).sum() if norm == "l1" else np.sqrt((values**2).sum()))


def _pyramid(height: int, width: int, norm: str) -> np.ndarray:
    """A bump of unit norm: centred rectangles added up, the k-th of weight 1 / k^2 (l2) or 1 / k^4 (l1)."""
    bump = np.zeros((height, width))
    row, column = height // 2, width // 2
    for k in range(max(row, column) + 1):
        rows = slice(max(row - k, 0), min(row + k + 1, height))
        columns = slice(max(column - k, 0), min(column + k + 1, width))
        bump[rows, columns] += 1 / (k + 1) ** (4 if norm == "l1" else 2)
    return bump / max(_length(bump, norm), 1e-12)


def wave(side: int, norm: str = "l2") -> np.ndarray:
    """The pattern of unit norm, "l2" or "l1": a bump in the upper half, its negative in the lower (eq. 2)."""
    half = side // 2
    pattern = np.concatenate([_pyramid(half, side, norm), -_pyramid(side - half, side, norm)])
    return (pattern / _length(pattern, norm)).astype("float32")


def _signs(draws: Tensor) -> Tensor:
    """-1 or 1 of uniform numbers."""
    return ops.where(draws < 0.5, -1.0, 1.0)


def _place(draws: Tensor, height: int, width: int, side: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's row and column, counted from the corner of a random square.

    Args:
        draws: uniform (batch, 2).
        height: of the image.
        width: of the image.
        side: of the square, int32 (batch,).

    Returns:
        int32 (batch, height, 1) and (batch, 1, width).
    """

    def along(draw: Tensor, length: int) -> Tensor:
        # As in the authors' code, the last possible corner is never drawn.
        corner = ops.floor(draw * ops.cast(length - side, "float32"))
        return ops.arange(length, dtype="int32") - ops.cast(corner, "int32")[:, None]

    return along(draws[:, 0], height)[:, :, None], along(draws[:, 1], width)[:, None, :]


@keras.saving.register_keras_serializable("robust_zoo")
@dataclass(frozen=True, kw_only=True)
class Square(FixedBudgetAttack):
    """Square attack (Andriushchenko et al., arXiv:1912.00049, algorithms 1 to 3), equal to AutoAttack's.

    With norm "l1" (arXiv:2103.01208, appendix) windows are as those of "l2", and projected to the ball.

    A random search: a square of random place and sign is tried, and kept if the margin falls. Unlike in
    the authors' code, every image has a place of its own.

    Attributes:
        steps: queries of each attempt, after its first.
        start_share: share of the image's area that the first squares cover (p), in (0, 1].
        restarts: random starts.
    """

    steps: int = 5000
    start_share: float = 0.8
    restarts: int = 1

    # Keeping whatever lowers the margin a little, it would climb the rounding errors.
    bears_rounding: ClassVar[bool] = False
    norms: ClassVar = ("linf", "l2", "l1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.start_share <= 1:
            raise ValueError(f"start_share must lie in (0, 1], got {self.start_share!r}.")

    def template(self) -> Self:
        return self.replace(epsilon=1.0, steps=1, restarts=1)

    def loss_value(self, logits: Tensor, state: AttackState) -> Tensor:
        return _MARGIN(logits, state["labels"])

    def start(
        self,
        model: keras.Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        epsilon: Tensor | float,
        attempt: Tensor | int,
    ) -> AttackState:
        first = random.fold_in(keys, 0)
        if self.norm == "linf":
            stripes = _signs(random.uniform(first, (1, *x.shape[2:])))
            x_adv = ops.clip(x + epsilon * stripes, 0.0, 1.0)
        else:
            pattern = self._tiles(first, x.shape[1:])
        if self.norm == "l1":
            x_adv = self.geometry.project(x + pattern, x, _WITHIN * epsilon)
        elif self.norm == "l2":
            unit = pattern / (self.geometry.length(pattern) + 1e-12)
            x_adv = ops.clip(x + epsilon * unit, 0.0, 1.0)
        return {
            "x_adv": x_adv,
            "best": x_adv,
            "best_loss": ops.cast(ops.zeros_like(y), "float32") - np.inf,
            "labels": y,
            "iteration": ops.zeros_like(y),
            "keys": random.fold_in(keys, 1),
        }

    def step(
        self, model: keras.Model, x: Tensor, state: AttackState, epsilon: Tensor | float
    ) -> tuple[AttackState, Tensor]:
        logits = logits_of(model, state["x_adv"])
        loss = self.loss_value(logits, state)
        better = ops.reshape(loss > state["best_loss"], (-1, 1, 1, 1))
        best = ops.where(better, state["x_adv"], state["best"])
        keys = random.fold_in(state["keys"], state["iteration"])
        propose = self._propose_linf if self.norm == "linf" else self._propose_windows
        state = {
            **state,
            "x_adv": propose(x, best, keys, state["iteration"], epsilon),
            "best": best,
            "best_loss": ops.maximum(loss, state["best_loss"]),
            "iteration": state["iteration"] + 1,
        }
        return state, logits

    def _phase(self, iteration: Tensor) -> Tensor:
        halvings = ops.convert_to_tensor(np.asarray(_HALVINGS, "int32"))
        return ops.sum(ops.cast(iteration[:, None] > halvings, "int32"), axis=1)

    def _propose_linf(
        self, x: Tensor, best: Tensor, keys: Tensor, iteration: Tensor, epsilon: Tensor | float
    ) -> Tensor:
        height, width, channels = x.shape[1:]
        sides = np.asarray(square_sides(height, width, self.start_share), "int32")
        side = ops.take(ops.convert_to_tensor(sides), self._phase(iteration))
        draws = random.uniform(keys, (2 + channels,))
        inside = _inside(*_place(draws[:, :2], height, width, side), side)
        signs = _signs(draws[:, None, None, 2:])
        return self.geometry.project(best + 2 * epsilon * signs * inside, x, epsilon)

    def _propose_windows(
        self, x: Tensor, best: Tensor, keys: Tensor, iteration: Tensor, epsilon: Tensor | float
    ) -> Tensor:
        height, width, channels = x.shape[1:]
        sides = square_sides(height, width, self.start_share, 3, odd=True)
        largest = max(sides)
        table = np.zeros((len(sides), largest, largest), "float32")
        for row, side in zip(table, sides, strict=True):
            row[:side, :side] = wave(side, self.norm)
        phase = self._phase(iteration)
        side = ops.take(ops.convert_to_tensor(np.asarray(sides, "int32")), phase)

        draws = random.uniform(keys, (5 + channels,))
        rows, columns = _place(draws[:, :2], height, width, side)
        window = _inside(rows, columns, side)
        other = _inside(*_place(draws[:, 2:4], height, width, side), side)
        # The pattern, upright or transposed, moved to the window.
        upright = draws[:, 4, None, None] < 0.5
        across = ops.where(upright, rows, columns)
        down = ops.where(upright, columns, rows)
        index = ops.clip(across, 0, largest - 1) * largest + ops.clip(down, 0, largest - 1)
        index = index + phase[:, None, None] * largest**2
        pattern = ops.take(ops.convert_to_tensor(table.reshape(-1)), index)[..., None] * window
        signs = _signs(draws[:, None, None, 5:])

        change = best - x
        norm = self.geometry.length

        def per_channel(values: Tensor) -> Tensor:
            if self.norm == "l1":
                return ops.sum(ops.abs(values), axis=(1, 2), keepdims=True)
            return ops.sqrt(ops.sum(ops.square(values), axis=(1, 2), keepdims=True))

        old = change * window
        new = signs * pattern + old / (per_channel(old) + 1e-12)
        new = new / (per_channel(new) + 1e-12)
        # What the two windows hold, and what the image has left, goes into the first (algorithm 3).
        both = ops.maximum(window, other)
        if self.norm == "l1":
            left = ops.maximum(epsilon - norm(change), 0.0) / channels
            new = new * channels * (left + per_channel(change * both))
            moved = x + change * (1 - both) + new * window
            return self.geometry.project(moved, x, _WITHIN * epsilon)
        left = ops.maximum(epsilon**2 - norm(change) ** 2, 0.0) / channels
        new = new * ops.sqrt(left + norm(change * both) ** 2)
        change = change * (1 - both) + new * window
        return ops.clip(x + epsilon * change / (norm(change) + 1e-12), 0.0, 1.0)

    def _tiles(self, keys: Tensor, shape: Sequence[int]) -> Tensor:
        """The pattern in tiles of a fifth of the height, each of random sign and orientation."""
        height, width, channels = shape
        side = max(height // 5, 1)
        first = max((height - side * 5) // 2, 0)
        row, column = (np.arange(length) - first for length in (height, width))
        down, across = max(height // side, 1), max(width // side, 1)
        tiled = np.outer((row >= 0) & (row < down * side), (column >= 0) & (column < across * side))
        tile_row, tile_column = (
            np.clip(row // side, 0, down - 1),
            np.clip(column // side, 0, across - 1),
        )
        tile = ops.convert_to_tensor((tile_row[:, None] * across + tile_column).astype("int32"))
        place = np.ix_(row % side, column % side)
        one = wave(side, self.norm)
        unit, turned = (ops.convert_to_tensor(part[place]) for part in (one, one.T))
        count = down * across
        upright = random.uniform(random.fold_in(keys, 0), (count,)) < 0.5
        signs = _signs(random.uniform(random.fold_in(keys, 1), (count, channels)))
        pattern = ops.where(ops.take(upright, tile, axis=1), unit, turned)
        pattern = pattern * ops.convert_to_tensor(tiled.astype("float32"))
        return ops.take(signs, tile, axis=1) * pattern[..., None]


def _inside(rows: Tensor, columns: Tensor, side: Tensor) -> Tensor:
    """1 inside the square, else 0: float32 (batch, height, width, 1)."""
    side = side[:, None, None]
    inside = ops.logical_and(
        ops.logical_and(rows >= 0, rows < side), ops.logical_and(columns >= 0, columns < side)
    )
    return ops.cast(inside, "float32")[..., None]
