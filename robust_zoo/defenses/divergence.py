"""Training that has broken down stops, before it overwrites what was good."""

import keras
import numpy as np
from keras import ops


class DivergenceError(ArithmeticError):
    """The loss or a weight is NaN or infinite."""


class StopOnDivergence(keras.callbacks.Callback):
    """Raises DivergenceError as soon as the loss, or at an epoch's end a weight, is not finite.

    It has to stand before callbacks that save: what they saved last is then the last good epoch.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self._stop(f"the loss is {float(loss)} after step {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        for variable in self.model.variables:
            if keras.backend.is_float_dtype(variable.dtype) and not np.isfinite(
                ops.convert_to_numpy(ops.sum(ops.abs(variable)))
            ):
                self._stop(f"weights of {variable.path!r} are not finite at the end")

    def _stop(self, what: str):
        raise DivergenceError(
            f"training diverged in epoch {self.epoch + 1}: {what}. Lower the learning rate, or ramp epsilon up."
        )
