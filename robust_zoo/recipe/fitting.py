"""Training as a recipe says: batches, callbacks, and going on after an interruption."""

import dataclasses
import pathlib
import time
from typing import Any

import keras
import numpy as np

from robust_zoo import backend
from robust_zoo.architectures import ZCAWhitening
from robust_zoo.datasets import Batches, Dataset, Examples
from robust_zoo.defenses import (
    AveragedWeights,
    Defense,
    DivergenceError,
    RobustValidation,
    TrainingState,
)
from robust_zoo.files import scratch_beside
from robust_zoo.layers import layers_of
from robust_zoo.recipe.definition import Recipe, RecipeError

LOCK = "lock"  # in the folder of a run's state


class TimeLimitError(RuntimeError):
    """Training stopped at its time limit; the last finished epoch is kept, and `resume` continues from it."""


class TimeLimit(keras.callbacks.Callback):
    """Stops training after an epoch when another one would not fit into the minutes from when it was made."""

    def __init__(self, minutes: float | None) -> None:
        super().__init__()
        self.minutes, self.started = minutes, time.perf_counter()
        self.longest, self.epochs_done, self.over = 0.0, 0, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch_started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        self.longest, self.epochs_done = max(self.longest, now - self.epoch_started), epoch + 1
        if self.minutes is None:
            return
        over = np.float64(now - self.started + self.longest > 60 * self.minutes)
        if backend.from_first_host(self.model, over) and self.epochs_done < self.params["epochs"]:
            self.over = self.model.stop_training = True


def fit(
    trainer: Defense,
    recipe: Recipe,
    resolved: dict,
    train: Examples,
    validation: Examples,
    state: pathlib.Path,
    limit: TimeLimit,
    *,
    resume: bool,
    verbose: int,
) -> tuple[TrainingState, tuple[str, ...]]:
    """Trains, and returns what is known of it, the runs that it resumes included, and remarks."""
    # What lies there without a training is left from one that was finished.
    if backend.host(trainer)[0] == 0 and not (resume and TrainingState.is_in(state)):
        clear(state)
    backend.wait_for_hosts(trainer)
    try:
        progress = TrainingState(state, resolved)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    if recipe.start is None and not progress.epochs_done:
        _adapt(trainer.classifier, train, recipe)
    if isinstance(train, Dataset):
        images = trainer.training_images(train.images, train.labels)
        train = train if images is train.images else dataclasses.replace(train, images=images)
    elif type(trainer).training_images is not Defense.training_images:
        raise RecipeError(
            f"{type(trainer).__name__} trains on a set made of all training images at once, but those of "
            f"{recipe.dataset!r} are too large for memory: choose another defense, or a smaller dataset."
        )
    settings = (recipe.batch_size, recipe.seed, recipe.augment)
    steps = recipe.steps_per_epoch
    batches = Batches(train, *settings, rows=backend.local_rows(recipe.batch_size), steps=steps)
    whole = Batches(train, *settings, steps=steps)
    average = [AveragedWeights(whole)] if trainer.optimizer.use_ema else []
    # Whole batches only: under a strategy a replica must never be left without examples.
    watched = min(recipe.batch_size, len(validation))
    watched -= watched % backend.device_count(trainer)
    watching = Batches(validation, watched, recipe.seed, rows=backend.local_rows(watched))
    robust = None
    if recipe.validation_attack is not None:
        if not isinstance(validation, Dataset):
            raise RecipeError(
                f"validation_attack needs the validation images in memory, but those of {recipe.dataset!r} are too "
                "large for it: leave it out, or choose a smaller dataset."
            )
        data = (validation.images, validation.labels)
        try:
            robust = RobustValidation(recipe.validation_attack, *data, file=state / "best.npz")
        except ValueError as error:
            raise RecipeError(str(error)) from None
        if progress.epochs_done and not robust.best_epoch:
            raise RecipeError(
                f"{str(robust.file)!r}, the best epoch of the interrupted training, is missing: start over without resume."
            )
    if robust is not None and robust.collapsed:
        trainer.classifier.set_weights(robust.best_weights)
        return progress, _remarks(robust, recipe)

    def begin(epoch: int, logs: dict[str, Any] | None) -> None:
        for part in (batches, whole):
            part.begin(epoch)

    try:
        trainer.fit(
            batches,
            epochs=recipe.epochs,
            validation_data=watching,
            shuffle=False,
            callbacks=[
                *average,
                *([] if robust is None else [robust]),
                progress,
                limit,
                keras.callbacks.LambdaCallback(on_epoch_begin=begin),
            ],
            verbose=verbose,
        )
    except DivergenceError as error:
        kept = f" The last good epoch is kept in {str(state)!r}." if progress.epochs_done else ""
        raise RecipeError(f"training {recipe.name!r} diverged: {error}{kept}") from error
    if limit.over and not (robust and robust.collapsed):
        raise TimeLimitError(
            f"training {recipe.name!r} stopped after epoch {limit.epochs_done} of {recipe.epochs}: another one "
            f"would not fit into {limit.minutes:g} minutes. It is kept in {str(state)!r}; resume continues from there."
        )
    return progress, _remarks(robust, recipe)


def _adapt(classifier: keras.Model, train: Examples, recipe: Recipe) -> None:
    """Shows the training images to the layers that learn from them before all training."""
    for layer in layers_of(classifier):
        if isinstance(layer, ZCAWhitening):
            if not isinstance(train, Dataset):
                raise RecipeError(
                    f"{layer.name!r} learns from all training images at once, but those of {recipe.dataset!r} are too "
                    "large for memory: choose a classifier without it, or a smaller dataset."
                )
            layer.adapt(train.images)


def _remarks(robust: RobustValidation | None, recipe: Recipe) -> tuple[str, ...]:
    """What the record says of the choice of the epoch."""
    if robust is None:
        return ()
    attack = f"{type(robust.attack).__name__}-{robust.attack.steps}"
    chosen = f"weights of epoch {robust.best_epoch} of {recipe.epochs}, the best under {attack} on the validation split"
    if not robust.collapsed:
        return (chosen,)
    return (chosen, f"training stopped after epoch {robust.collapsed}: catastrophic overfitting")


def clear(state: pathlib.Path) -> None:
    """Removes all of a run's state but its lock, in an order that leaves a training or none wherever it stops."""
    rest = [path for path in state.iterdir() if path.name != LOCK]
    with scratch_beside(state) as removed:
        for path in sorted(rest, key=lambda path: not path.name.startswith("training")):
            path.rename(removed / path.name)
