"""Atomic saving and resuming of a training, in one file."""

import io
import json
import os
import pathlib
import tempfile
import time
from typing import Any

import keras
import numpy as np

from robust_zoo import backend
from robust_zoo.files import write_bytes
from robust_zoo.npz import read_npz
from robust_zoo.sentences import one_line

_CURRENT, _PREVIOUS = "training.npz", "training.previous.npz"


class TrainingState(keras.callbacks.Callback):
    """Saves a training after each epoch, atomically, and resumes the one that it finds.

    Weights, the state of optimizers, random generators and counters, the number of epochs, seconds and history are in
    one file, replaced by an atomic write; the file before it is kept and used if the last one is damaged.
    (`keras.callbacks.BackupAndRestore` writes several files, in place.) Put it after the callbacks whose logs belong in
    the history. Of several hosts only the first writes; all read the same directory.

    Args:
        directory: directory of the files; created if it does not exist.
        settings: JSON values by name that a saved training must share with this one to be resumed; default: none.

    Attributes:
        epochs_done: number of epochs completed, those of a resumed training included.
        history: the logs of each completed epoch, a list of dictionaries.

    Raises:
        ValueError: a saved training has other settings, or none of its files can be read.
    """

    def __init__(self, directory: str | pathlib.Path, settings: dict | None = None) -> None:
        super().__init__()
        self.directory, self.settings = pathlib.Path(directory), settings or {}
        self.epochs_done, self.history, self._damaged = 0, [], False
        self._started, self._before, self._weights = time.perf_counter(), 0.0, None
        found = [self.directory / name for name in (_CURRENT, _PREVIOUS)]
        found = [path for path in found if path.exists()]
        if not found:
            return
        readable = list(filter(None, map(_read, found)))
        self._damaged = _read(found[0]) is None
        if not readable:
            raise ValueError(
                f"{str(found[0])!r} cannot be read, nor can the one before it: remove them to start over."
            )
        told, self._weights = readable[0]
        for name, value in self.settings.items():
            kept = told["settings"].get(name)
            if kept != value:
                raise ValueError(
                    f"{name} must be {one_line(repr(kept))}, as in the interrupted run, got "
                    f"{one_line(repr(value))}."
                )
        self.epochs_done, self.history = told["epochs_done"], told["history"]
        self._before = told["seconds"]

    @staticmethod
    def is_in(directory: pathlib.Path) -> bool:
        """Whether a directory has a training to resume."""
        return any((directory / name).exists() for name in (_CURRENT, _PREVIOUS))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since this callback was created, plus those of the interrupted runs before it."""
        return self._before + time.perf_counter() - self._started

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._weights is not None:
            load_trainer(self.model, self._weights)
            self._weights = None
            self.model._initial_epoch = self.epochs_done  # as Keras's own callback does

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model._initial_epoch = None  # of the next training, however this one ends

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model._initial_epoch = None  # where no epoch was left

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {name: np.asarray(value).tolist() for name, value in (logs or {}).items()}
        self.epochs_done, self.history = epoch + 1, [*self.history[:epoch], row]
        weights = save_trainer(self.model)  # on all hosts: reading some variables is a step of all
        if backend.host(self.model)[0] > 0:
            return
        told = {
            "settings": self.settings,
            "epochs_done": self.epochs_done,
            "seconds": round(self.seconds, 1),
            "history": self.history,
        }
        content = io.BytesIO()
        np.savez(content, told=json.dumps(told), weights=np.frombuffer(weights, "uint8"))
        self.directory.mkdir(parents=True, exist_ok=True)
        current, previous = self.directory / _CURRENT, self.directory / _PREVIOUS
        if current.exists() and not self._damaged:
            os.replace(current, previous)
        self._damaged = False
        write_bytes(current, content.getvalue())


def _read(path: pathlib.Path) -> tuple[dict, bytes] | None:
    """What a file tells of a training, and its weights; None if it cannot be read."""
    try:
        arrays = read_npz(path)
        told, weights = json.loads(str(arrays["told"])), arrays["weights"].tobytes()
        whole = (
            isinstance(told["settings"], dict)
            and isinstance(told["seconds"], (int, float))
            and 0 < int(told["epochs_done"]) == told["epochs_done"] == len(told["history"])
            and all(isinstance(row, dict) for row in told["history"])
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return (told, weights) if whole else None


def save_trainer(trainer: keras.Model) -> bytes:
    """What `save_weights` writes of a trainer, its optimizer included, made in memory. All hosts have to call it."""
    from keras.src.saving import saving_lib

    content = io.BytesIO()
    store = saving_lib.H5IOStore(content, mode="w")
    saving_lib._save_state(
        trainer, weights_store=store, assets_store=None, inner_path="", visited_saveables=set()
    )
    store.close()
    return content.getvalue()


def load_trainer(trainer: keras.Model, data: bytes) -> None:
    """Gives a compiled trainer what `save_trainer` made of one like it."""
    if not trainer.optimizer.built:
        trainer.optimizer.build(trainer.trainable_variables)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        path = pathlib.Path(directory) / "model.weights.h5"
        path.write_bytes(data)
        trainer.load_weights(path)
