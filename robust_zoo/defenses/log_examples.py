"""Robust accuracy and adversarial images of each epoch, for TensorBoard."""

import pathlib
from typing import Any

import keras
import numpy as np

from robust_zoo import backend
from robust_zoo.attacks import Attack
from robust_zoo.contract import check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.inference import predict
from robust_zoo.typing import Tensor

_GREY = 0.5  # of no difference


class LogAdversarialExamples(keras.callbacks.Callback):
    """Writes, after every few epochs, accuracy under an attack and a grid of its images to a folder for TensorBoard.

    The scalars are "clean_accuracy" and "robust_accuracy", measured in float32 on `x`. The grid, "adversarial_examples",
    has a column an image: clean, adversarial, and the difference, which is divided by the largest of that image. On
    several hosts the first alone writes.

    Args:
        directory: folder of event files, made if need be; `tensorboard --logdir` shows it.
        attack: any attack, for example `PGD(epsilon=8 / 255, steps=10)`.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        images: how many columns the grid has, >= 1; default 8, or n if that is less.
        every: epochs from one log to the next, >= 1; default 1.

    Raises:
        ImportError: tensorboardX is not installed (extra `tensorboard`).
        ValueError: `images` or `every` out of range.

    Example:
        >>> from robust_zoo.defenses import LogAdversarialExamples
        >>> LogAdversarialExamples("logs", PGD(epsilon=0.1, steps=5), x, y)  # doctest: +SKIP
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        attack: Attack,
        x: Tensor,
        y: Tensor,
        *,
        images: int = 8,
        every: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("images", images), ("every", every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ImportError(
                "LogAdversarialExamples needs tensorboardX, which is not installed: pip install "
                "'robust-zoo[tensorboard]'."
            ) from None
        self.directory, self.attack, self.x, self.y = pathlib.Path(directory), attack, x, y
        self.images, self.every = images, every
        self._open = SummaryWriter
        self._writer: Any = None

    @property
    def _classifier(self) -> keras.Model:
        return getattr(self.model, "classifier", self.model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.x = check_images(self.x, self._classifier)
        self.y = check_labels(self.y, self._classifier.output_shape[1], len(self.x))
        self.attack.check_model(self._classifier)
        if backend.host(self.model)[0] == 0:
            self._writer = self._open(str(self.directory))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every or self._writer is None:
            return
        model = in_float32(self._classifier)
        found = self.attack.run(model, self.x, self.y, progress=False, with_flags=False)
        right = predict(model, self.x, 128).argmax(1) == self.y
        self._writer.add_scalar("clean_accuracy", right.mean(), epoch + 1)
        self._writer.add_scalar("robust_accuracy", (right & ~found.success).mean(), epoch + 1)
        grid = grid_of(self.x[: self.images], found.x_adv[: self.images])
        self._writer.add_image("adversarial_examples", grid, epoch + 1, dataformats="HWC")
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def grid_of(x: np.ndarray, x_adv: np.ndarray) -> np.ndarray:
    """Rows of clean images, adversarial ones and magnified differences: float32 (3 height, n width, 3) in [0, 1]."""
    rows = [np.concatenate([*part], axis=1) for part in (x, x_adv, magnified(x, x_adv))]
    grid = np.concatenate(rows, axis=0)
    return np.repeat(grid, 3, axis=2) if grid.shape[2] == 1 else grid[..., :3]


def magnified(x: np.ndarray, x_adv: np.ndarray) -> np.ndarray:
    """x_adv - x (n, ...), of each image divided by twice its largest value, around grey."""
    change = x_adv - x
    largest = np.abs(change).max(axis=tuple(range(1, x.ndim)), keepdims=True)
    return _GREY + _GREY * change / np.where(largest > 0, largest, 1)
