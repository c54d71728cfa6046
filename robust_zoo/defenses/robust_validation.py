"""Robust accuracy on held-out images after each epoch: chooses the epoch, and notices a collapse."""

import json
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from robust_zoo import backend
from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.contract import check_images, check_labels
from robust_zoo.copies import in_float32
from robust_zoo.files import replacing
from robust_zoo.inference import predict
from robust_zoo.npz import read_npz
from robust_zoo.sentences import one_line
from robust_zoo.typing import Tensor

_COLLAPSED = 0.5  # of the best accuracy so far


class RobustValidation(keras.callbacks.Callback):
    """Measures a strong attack on held-out images after each epoch, and keeps the weights of the best epoch.

    One-step training can overfit catastrophically: within an epoch the model learns to withstand the training
    attack alone, and its accuracy under several steps falls to nothing (Wong et al., arXiv:2001.03994, section
    5.4). Training stops with a RuntimeWarning when the accuracy measured here falls below half of its best while that
    under the training attack ("robust_accuracy") rises, provided the best was above twice chance level (2 / classes).
    Slow overfitting (Rice et al., arXiv:2002.11569) is handled by keeping the best epoch, whose weights are in the
    model when training ends.

    On several hosts each measures; all use the result of the first, which alone writes the file.

    The logs get "val_clean_accuracy" and "val_attack_accuracy", measured in float32 with the weights that Keras
    validates with: with averaged weights, `AveragedWeights` has to stand before this callback.

    Args:
        attack: attack to measure with, for example `PGD(epsilon=8 / 255, steps=10, step_size=2 / 255)`.
        x: float array (n, height, width, channels) in [0, 1].
        y: integer array (n,).
        file: file (.npz) that the best epoch is saved to (atomic write). If it exists, training resumes from it.
            Default: the best epoch is kept in memory only.

    Attributes:
        best_epoch: number of the best epoch, from 1; 0 before the first.
        best: accuracy under `attack` after it, in [0, 1].
        best_weights: the classifier's weights after it, as `get_weights` gives them.
        collapsed: number of the epoch after which training was stopped, or 0.
    """

    def __init__(
        self,
        attack: FixedBudgetAttack,
        x: Tensor,
        y: Tensor,
        *,
        file: str | pathlib.Path | None = None,
    ) -> None:
        super().__init__()
        self.attack, self.x, self.y = attack, x, y
        self.file = None if file is None else pathlib.Path(file)
        self.best, self.best_epoch, self.collapsed = -1.0, 0, 0
        self.best_weights: list[np.ndarray] | None = None
        self._measured: keras.Model | None = None
        self._found: tuple[float, float, list[np.ndarray]] | None = None
        # Epochs and the accuracy under the training attack in each.
        self._trained: list[Sequence[float]] = []
        if self.file is not None and self.file.exists():
            self._go_on(self.file)

    def _go_on(self, file: pathlib.Path) -> None:
        try:
            kept = read_npz(file)
            told = json.loads(str(kept["told"]))
            self.best_weights = [kept[f"weight{index}"] for index in range(int(told["weights"]))]
            self.best, self.best_epoch = float(told["best"]), int(told["best_epoch"])
            self.collapsed, self._trained = int(told["collapsed"]), list(told["_trained"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"{str(file)!r}, the best epoch of an interrupted training, cannot be read: {one_line(error)}. "
                "Remove it, and the training's state with it, to start over."
            ) from None

    @property
    def _classifier(self) -> keras.Model:
        return getattr(self.model, "classifier", self.model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        classifier = self._classifier
        self.x = check_images(self.x, classifier)
        self.y = check_labels(self.y, classifier.output_shape[1], len(self.x))
        self._measured = in_float32(classifier)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._found = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        # The weights to validate with, averaged ones maybe, are in the model now.
        self._found = self._measure()

    def _measure(self) -> tuple[float, float, list[np.ndarray]]:
        assert self._measured is not None  # since training began
        if self._measured is not self._classifier:
            self._measured.set_weights(self._classifier.get_weights())
        result = self.attack.run(self._measured, self.x, self.y, progress=False)
        clean = predict(self._measured, self.x, 128).argmax(1) == self.y
        found = np.array([clean.mean(), 1 - result.success.mean()])
        accuracies = backend.from_first_host(self.model, found)
        return float(accuracies[0]), float(accuracies[1]), self._classifier.get_weights()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        clean, accuracy, weights = self._found or self._measure()
        logs = {} if logs is None else logs
        logs |= {"val_clean_accuracy": clean, "val_attack_accuracy": accuracy}
        if accuracy > self.best:
            self.best, self.best_epoch, self.best_weights = accuracy, epoch + 1, weights
        trained = logs.get("robust_accuracy", 0.0)
        chance = 1 / self._classifier.output_shape[1]
        # An epoch that was interrupted before the training was kept comes once more.
        earlier = [pair for pair in self._trained if pair[0] < epoch]
        rises = trained > (earlier[-1][1] if earlier else 0.0)
        if self.best > 2 * chance and accuracy < _COLLAPSED * self.best and rises:
            self.collapsed = epoch + 1
            self.model.stop_training = True
            warnings.warn(
                f"catastrophic overfitting in epoch {epoch + 1}: {accuracy:.1%} withstand "
                f"{type(self.attack).__name__} after {self.best:.1%} before, while accuracy under the training "
                f"attack rose to {trained:.1%}. Training stops; the weights of epoch {self.best_epoch} are kept. "
                "More noise, a lower learning rate, more attack steps or float32 may help.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._trained = [*earlier, (epoch, trained)]
        self._keep()

    def _keep(self) -> None:
        if self.file is None or backend.host(self.model)[0] > 0:
            return
        told = {
            name: getattr(self, name) for name in ("best", "best_epoch", "collapsed", "_trained")
        }
        assert self.best_weights is not None  # the first epoch is the best so far
        told["weights"] = len(self.best_weights)
        arrays: dict[str, Any] = {
            f"weight{index}": value for index, value in enumerate(self.best_weights)
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as partial, open(partial, "wb") as file:
            np.savez(file, told=json.dumps(told), **arrays)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.best_weights is not None:
            self._classifier.set_weights(self.best_weights)
