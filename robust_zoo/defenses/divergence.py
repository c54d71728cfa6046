"""Training that has broken down stops, before it overwrites what was good."""

from typing import Any, NoReturn

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.copies import fresh_copy, probe_images
from robust_zoo.inference import logits_of


class DivergenceError(ArithmeticError):
    """The loss or a weight is NaN or infinite."""


class StopOnDivergence(keras.callbacks.Callback):
    """Raises DivergenceError as soon as the loss, or at an epoch's end a weight, is not finite.

    It has to stand before callbacks that save: what they saved last is then the last good epoch. A step's loss is
    looked at when the next one has been started, so that a device does not wait for that: callbacks that save within
    epochs may keep one bad step.
    """

    _before: tuple[int, Any] | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch, self._before = epoch, None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._look()
        self._before = batch, (logs or {}).get("loss", 0.0)

    def _look(self) -> None:
        if self._before is not None and not np.isfinite(self._before[1]):
            step, loss = self._before
            self._stop(f"the loss is {float(loss)} after step {step + 1}")

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._look()  # before validation looks at what the last step left

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._look()
        for variable in self.model.variables:
            if keras.backend.is_float_dtype(variable.dtype) and not np.isfinite(
                ops.convert_to_numpy(ops.sum(ops.abs(variable)))
            ):
                self._stop(f"weights of {variable.path!r} are not finite at the end")

    def _stop(self, what: str) -> NoReturn:
        raise DivergenceError(
            f"training diverged in epoch {self.epoch + 1}: {what}. {_cause(self.model)}"
        )


def _cause(trainer: keras.Model) -> str:
    """What to do: the classifier with fresh weights tells whether its slope is infinite at some pixels."""
    usual = "Lower the learning rate or ramp epsilon up, unless a later batch of a stream has NaN in it."
    classifier = getattr(trainer, "classifier", trainer)
    try:
        fresh = fresh_copy(classifier)
        found = [
            _infinite(fresh, np.full((1, *probe_images(classifier).shape[1:]), pixel, "float32"))
            for pixel in (0.0, 1.0)
        ]
    except Exception:  # the advice must not hide the divergence
        return usual
    places = [name for name, bad in zip(("black", "white"), found, strict=True) if bad]
    if not places:
        return usual
    return (
        f"The gradient of {classifier.name!r} by its input is not finite at {' and '.join(places)} pixels even with "
        "fresh weights: a root, a logarithm or a power has an infinite slope there. Keep its input away from that, "
        "x + 1e-3 under a root, say."
    )


def _infinite(model: keras.Model, images: np.ndarray) -> bool:
    tensor = ops.convert_to_tensor(images)
    _, gradient = backend.value_and_input_gradient(
        lambda x: ops.sum(logits_of(model, x), axis=1),
        tensor,
        cleaned=False,
    )
    return not np.isfinite(ops.convert_to_numpy(gradient)).all()
