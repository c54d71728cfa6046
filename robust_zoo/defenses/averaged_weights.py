"""Averaged weights that are fit to be looked at: with batch-norm statistics of their own."""

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.defenses.tools import reading
from robust_zoo.defenses.trainer import Defense
from robust_zoo.layers import layers_of
from robust_zoo.typing import Tensor

_IMAGES = 2048  # that statistics are taken from


class AveragedWeights(keras.callbacks.SwapEMAWeights):
    """Validates with the optimizer's averaged weights, and leaves them in the model when training ends.

    The moving statistics of batch normalisation belong to the weights that were trained, and average ones can be
    at chance with them. So whenever averaged weights are put in, statistics are computed anew: the mean over
    batches of what training sees, adversarial examples included (Izmailov et al., arXiv:1803.05407, section 3.2).

    Args:
        batches: a `keras.utils.PyDataset` of training batches (x, y); the first 2,048 images are used.

    Raises:
        ValueError: at the start of training, an optimizer without `use_ema=True`.
    """

    def __init__(self, batches: keras.utils.PyDataset) -> None:
        super().__init__()
        self.batches = batches
        self._compute: Callable[..., list[Tensor]] | None = None
        self._trained: list[np.ndarray] | None = None

    @property
    def _layers(self) -> list[keras.layers.Layer]:
        kind = keras.layers.BatchNormalization
        return [layer for layer in layers_of(self.model) if isinstance(layer, kind)]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.model.optimizer.use_ema:
            raise ValueError("AveragedWeights needs an optimizer with use_ema=True.")
        super().on_train_begin(logs)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_test_begin(logs)
        self._trained = [ops.convert_to_numpy(variable) for variable in self._statistics()]
        self.recompute()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        assert self._trained is not None  # `on_test_begin` has set it
        for variable, value in zip(self._statistics(), self._trained, strict=True):
            variable.assign(value)
        super().on_test_end(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.recompute()  # `fit` has put the averaged weights in

    def _statistics(self) -> list[keras.Variable]:
        return [v for layer in self._layers for v in (layer.moving_mean, layer.moving_variance)]

    def recompute(self) -> None:
        """Assigns batch normalisation the statistics of the weights that the model has now."""
        variables = self._statistics()
        if not variables:
            return
        compute: Callable[..., list[Tensor]]
        compute = self._compute or backend.function(self._of_batch, self.model)
        self._compute = compute
        found, images = [], 0
        for index in range(len(self.batches)):
            x, y = self.batches[index][:2]
            found.append(compute(x, y))
            images += len(x)
            if images >= _IMAGES:
                break
        for variable, *values in zip(variables, *found, strict=True):
            variable.assign(np.mean([ops.convert_to_numpy(value) for value in values], axis=0))

    def _of_batch(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Mean and variance in each layer, of one batch as training sees it."""
        parts = [x]
        if isinstance(self.model, Defense):
            batch, _, _ = self.model.prepare((x, y), training=True)
            trains: dict[Literal["clean", "adversarial"], bool] = {
                "clean": self.model.trains_on_clean,
                "adversarial": self.model.trains_on_adversarial,
            }
            parts = [batch[name] for name, used in trains.items() if used and name in batch]
        classifier: keras.Model = getattr(self.model, "classifier", self.model)
        momentum = [layer.momentum for layer in self._layers for _ in range(2)]
        variables = self._statistics()
        ids = {id(variable) for variable in variables}

        def zeroed(variable: keras.Variable, value: Tensor) -> Tensor:
            return ops.zeros_like(value) if id(variable) in ids else value

        sums = [0.0] * len(variables)
        for part in parts:
            with reading(self.model.variables, zeroed) as scope:
                classifier(part, training=True)
            # An update from zero leaves (1 - momentum) times the statistic of the batch.
            new = [scope.get_current_value(variable) for variable in variables]
            sums = [total + value for total, value in zip(sums, new, strict=True)]
        return [total / (len(parts) * (1 - m)) for total, m in zip(sums, momentum, strict=True)]
