"""Recipe: a training run. run(): fit, reload from disk, evaluate, write the checkpoint."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import inspect
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import filelock
import keras
import numpy as np
import pydantic
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import Attack, FixedBudgetAttack
from robust_zoo.copies import copy_state
from robust_zoo.datasets import Dataset, load_dataset
from robust_zoo.defenses import (
    PGN,
    AveragedWeights,
    Defense,
    DivergenceError,
    FixedSetTraining,
    RobustValidation,
    StopOnDivergence,
    TrainingState,
)
from robust_zoo.defenses.tools import synchronised
from robust_zoo.evaluation import evaluate
from robust_zoo.files import scratch_beside
from robust_zoo.hyperparameters import with_hyperparameter
from robust_zoo.layers import layers_of
from robust_zoo.places import recipe_files, recipes_directory
from robust_zoo.record import DefenseInfo, Reported, RobustnessRecord, Training
from robust_zoo.resolved_recipe import finished, resolve
from robust_zoo.weights import round_to_float16
from robust_zoo.zoo import load_model, save_model
from robust_zoo.zoo.checkpoint import load_checkpoint
from robust_zoo.zoo.layout import check_target

_FIELDS = (
    "name", "dataset", "start", "epochs", "batch_size", "label_smoothing", "dtype_policy", "seed", "n"
)  # fmt: skip
_PARTS = ("defense", "optimizer", "augment", "validation_attack")  # that have hyperparameters
_LOCK = "lock"  # in the folder of a run's state
_LARGE = 100_000  # parameters above which weights are stored as float16


class RecipeError(ValueError):
    """A recipe that cannot be found, read or changed as asked."""


class TimeLimitError(RuntimeError):
    """Training stopped at its time limit; what it has reached is kept, and `resume` goes on from there."""


class Recipe(pydantic.BaseModel):
    """One experiment. A recipe file makes them in `get_recipe`.

    Attributes:
        name: of the model, "architecture.defense_dataset".
        dataset: name for `load_dataset`; trained on "train", watched on "validation" (full batches), measured
            on "test".
        classifier: makes the uncompiled classifier.
        start: name or directory of a checkpoint whose weights are the initial ones; None starts afresh.
        defense: makes the defense around it, given the classifier and the total number of training
            steps; None trains naturally.
        paper: arXiv number of the defense.
        optimizer: makes the optimizer, given the total number of training steps. With `use_ema`, averaged
            weights are what is watched and kept, with batch-norm statistics of their own.
        label_smoothing: share of the labels' weight that is spread over all classes.
        augment: changes a batch of training images, given them and a random generator; None leaves them.
        epochs: passes over the training split.
        batch_size: global batch, in examples; a last batch that is not full is left out.
        dtype_policy: Keras policy of training; measuring is always in float32.
        seed: of initial weights, order of the data and random starts. Measuring has its own, 0, so that all
            models are measured on the same examples.
        validation_attack: measured on the validation split after each epoch; the best epoch's weights are kept,
            and training stops when that accuracy collapses (see `RobustValidation`). None keeps the last epoch.
        attacks: that the record is made with.
        n: examples for each attack, as in `evaluate`.
        reported: what others published for it.
        deviations: from the paper.
        hyperparameters: other values, by their paths, than what `defense` and `optimizer` make has, such as
            {"defense.attack.epsilon": "0.2"}.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=True
    )

    name: str
    dataset: str
    classifier: Callable[[], keras.Model]
    start: str | None = None
    defense: Callable[[keras.Model, int], Defense] | None = None
    paper: str = ""
    optimizer: Callable[[int], Any]
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    label_smoothing: float = pydantic.Field(0.0, ge=0, lt=1)
    epochs: int = pydantic.Field(ge=1)
    batch_size: int = pydantic.Field(128, ge=1)
    dtype_policy: Literal["float32", "mixed_bfloat16"] = "float32"
    seed: int = pydantic.Field(0, ge=0)
    validation_attack: FixedBudgetAttack | None = None
    attacks: tuple[Attack, ...]
    n: tuple[int | None, ...] | int | None = None
    reported: tuple[Reported, ...] = ()
    deviations: tuple[str, ...] = ()
    hyperparameters: dict[str, str] = {}

    def changed(self, **changes) -> "Recipe":
        """A copy with some fields replaced, checked like a new one: for recipes that differ little."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**values, **changes})

    def override(self, settings: dict[str, str]) -> "Recipe":
        """A copy with some values replaced, which is added to the deviations.

        Args:
            settings: new values by name: of the fields name, dataset, start, epochs, batch_size, label_smoothing,
                dtype_policy, seed and n, and of hyperparameters by their paths, such as "defense.beta",
                "defense.attack.epsilon" or "optimizer.learning_rate".

        Raises:
            RecipeError: a setting that does not exist, or a value that does not fit. A hyperparameter is found
                wrong when the run begins.
        """
        fields, paths, told = {}, {}, []
        for key, value in settings.items():
            root, dot, _ = key.partition(".")
            if dot and root in _PARTS and getattr(self, root) is not None:
                told.append(f"{key} set to {value}")
                if root in ("defense", "optimizer"):  # which are there when the run begins
                    paths[key] = value
                else:
                    fields[root] = _changed(fields.get(root, getattr(self, root)), key, value)
            elif key in _FIELDS:
                fields[key] = value
                told.append(f"{key} set to {value}, not {getattr(self, key)}")
            else:
                parts = [f"{name}.*" for name in _PARTS if getattr(self, name) is not None]
                raise RecipeError(
                    f"setting must be one of {', '.join((*_FIELDS, *parts))}, or an argument of the recipe "
                    f"file's get_recipe, got {key!r}."
                )
        try:
            return self.changed(
                **fields,
                hyperparameters={**self.hyperparameters, **paths},
                deviations=(*self.deviations, *told),
            )
        except pydantic.ValidationError as error:
            raise _refused(error) from None


def _changed(part, key: str, value: str):
    """`part` with the hyperparameter that `key` tells, from the part's name on, set to `value`."""
    try:
        return with_hyperparameter(part, key.partition(".")[2], value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"setting {key}: {error}.".replace("..", ".")) from None


def _refused(error: pydantic.ValidationError) -> RecipeError:
    first = error.errors()[0]
    return RecipeError(f"setting {first['loc'][0]}: {first['msg']}, got {first['input']!r}.")


def load_recipe(
    handle: str | pathlib.Path, settings: dict[str, str] | None = None
) -> tuple[Recipe, pathlib.Path]:
    """The recipe of a model's name, or of a file, and its file.

    A recipe file is a Python program that defines `get_recipe`, whose arguments have defaults and annotations; it
    returns a `Recipe`. Where it makes several models of the zoo, `MODELS` lists the arguments of each.

    Args:
        handle: name of a model of the zoo, or a Python file, which is run.
        settings: other values: arguments of `get_recipe`, and what `Recipe.override` takes.

    Raises:
        RecipeError: no such file or name, a file that cannot be run or defines no `get_recipe`, or a setting that
            does not fit.
    """
    settings = dict(settings or {})
    if pathlib.Path(handle).suffix == ".py":
        if not pathlib.Path(handle).is_file():
            raise RecipeError(f"no recipe file {str(handle)!r}.")
        path, get_recipe, arguments = pathlib.Path(handle), _module(handle).get_recipe, {}
    else:
        path, get_recipe, arguments = _of_the_zoo(str(handle))
    told = []
    for name, parameter in inspect.signature(get_recipe).parameters.items():
        if name in settings:
            before = arguments.get(name, parameter.default)
            arguments = {**arguments, name: settings.pop(name)}
            told.append(f"{name} set to {arguments[name]}, not {before}")
    recipe = _made(path, get_recipe, arguments)
    recipe = recipe.changed(deviations=(*recipe.deviations, *told))
    return recipe.override(settings), path


def recipe_names() -> list[str]:
    """The models of the zoo that have a recipe."""
    made = []
    for path in recipe_files():
        module = _module(path)
        made += [_made(path, module.get_recipe, arguments).name for arguments in module.MODELS]
    return sorted(made)


def _of_the_zoo(name: str) -> tuple[pathlib.Path, Callable, dict]:
    """The file, its `get_recipe` and the arguments that make the recipe of a model."""
    for path in recipe_files(name):
        module = _module(path)
        for arguments in module.MODELS:
            if _made(path, module.get_recipe, arguments).name == name:
                return path, module.get_recipe, arguments
    raise RecipeError(
        f"no recipe {name!r}: give a Python file or one of {', '.join(recipe_names())}."
    )


def _module(path: str | pathlib.Path):
    path = pathlib.Path(path)
    spec = importlib.util.spec_from_file_location(f"robust_zoo_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file's own code does
        raise RecipeError(f"recipe {str(path)!r} cannot be read: {error}.") from error
    if not callable(getattr(module, "get_recipe", None)):
        raise RecipeError(f"recipe {str(path)!r} must define get_recipe(), which returns a Recipe.")
    return module


def _made(path: pathlib.Path, get_recipe: Callable, arguments: dict) -> Recipe:
    try:
        recipe = pydantic.validate_call(get_recipe)(**arguments)
    except pydantic.ValidationError as error:
        raise _refused(error) from None
    except Exception as error:  # whatever the file's own code does
        raise RecipeError(f"recipe {str(path)!r} cannot be made: {error}.") from error
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"get_recipe() of {str(path)!r} must return a Recipe, got {recipe!r}.")
    return recipe


def _place(source: str | pathlib.Path | None) -> str:
    """How the record names the recipe's file: by its place in robust_zoo if it is shipped, else by its name."""
    if source is None:
        return ""
    path, shipped = pathlib.Path(source).resolve(), recipes_directory().resolve()
    if path.is_relative_to(shipped):
        return f"training/recipes/{path.relative_to(shipped).as_posix()}"
    return path.name


def run(
    recipe: Recipe,
    output: str | pathlib.Path,
    *,
    source: str | pathlib.Path | None = None,
    devices: int = 1,
    resume: bool = False,
    max_minutes: float | None = None,
    verbose: int = 2,
) -> RobustnessRecord:
    """Trains, reloads from disk, evaluates on the test split, and writes the checkpoint directory.

    How far training and the attacks are is kept in a hidden folder beside `output`, which is removed when the
    checkpoint is written.

    Args:
        recipe: what to do.
        output: checkpoint directory to write.
        source: the recipe's file; the record names it, and the checkpoint keeps its hash.
        devices: GPUs (logical CPUs without any) to train on, with `MirroredStrategy` if more than one;
            the batch size must be divisible by it.
        resume: whether to go on from the last finished epoch of an interrupted run, or in the middle of its
            attacks; else it starts anew.
        max_minutes: training stops after an epoch when another one as long would not end within so many minutes
            from now. None never stops it.
        verbose: of Keras's `fit`: 0 silent, 1 a bar, 2 a line an epoch.

    Raises:
        RecipeError: devices that do not divide the batch, a batch larger than the data, a start that does not
            fit, settings other than those of the run to resume, or a loss or weights that became NaN or
            infinite: the state of the last good epoch is kept.
        TimeLimitError: `max_minutes` are over, and epochs are left; `resume` goes on.
        ValueError: devices that are not there, or `max_minutes` that are not above 0.
        FileNotFoundError: no such `source`.
        DatasetError, CheckpointError: from reading data and writing the result.
    """
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"max_minutes must be > 0, got {max_minutes!r}.")
    limit = _TimeLimit(max_minutes)
    output = pathlib.Path(output)
    check_target(output)
    if source is not None and not pathlib.Path(source).is_file():
        raise FileNotFoundError(
            f"source must be the recipe's file, but there is no {str(source)!r}."
        )
    state = output.parent / f".{output.name}.training"
    if devices < 1 or recipe.batch_size % devices:
        raise RecipeError(
            f"batch_size must be divisible by the number of devices, got {recipe.batch_size} and {devices}."
        )
    with _own_state(state, output):
        return _run(recipe, output, source, devices, resume, limit, verbose, state)


def _run(recipe, output, source, devices, resume, limit, verbose, state) -> RobustnessRecord:
    """The rest of `run`, whose arguments these are."""
    # Entered first: reading data starts TensorFlow, after which a CPU cannot be divided any more.
    with backend.devices(devices):
        train, validation = (
            load_dataset(recipe.dataset, split) for split in ("train", "validation")
        )
        steps = len(train) // recipe.batch_size
        if steps < 1:
            raise RecipeError(
                f"batch_size must be at most {len(train)}, the training examples, got {recipe.batch_size}."
            )
        trainer, classifier = _build(recipe, steps * recipe.epochs)
        resolved = resolve(recipe, trainer, train, validation)
        options = {"devices": devices, "resume": resume, "verbose": verbose}
        progress, notes = _fit(
            trainer, recipe, resolved, train, validation, state, limit, **options
        )
    seconds, told = progress.seconds, finished(resolved, source, progress.history)
    deviations = recipe.deviations + notes
    size = sum(int(ops.size(variable)) for variable in classifier.variables)
    if size > _LARGE and round_to_float16(classifier):
        deviations += ("weights rounded to float16 before measuring",)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        reloaded = load_checkpoint(save_model(classifier, pathlib.Path(scratch) / "model"))
    record = evaluate(
        reloaded,
        recipe.dataset,
        attacks=recipe.attacks,
        n=recipe.n,
        state_directory=state / "attacks",
        name=recipe.name,
        architecture=classifier.name,
        defense=_defense_info(trainer, recipe),
        reported=recipe.reported,
        training=Training(
            recipe=_place(source),
            recipe_sha256=hashlib.sha256(told).hexdigest(),
            commit=_commit(),
            epochs=recipe.epochs,
            seconds=round(seconds, 1),
            hardware=backend.hardware(devices),
            backend=backend.name,
            deviations=deviations,
        ),
        base_model=getattr(classifier, "base_model", None),
    )
    attack = trainer.as_attack() if isinstance(trainer, PGN) else None
    save_model(reloaded, output, record, recipe=told, attack=attack)
    _clear(state)
    return record


@contextlib.contextmanager
def _own_state(state: pathlib.Path, output: pathlib.Path) -> Iterator[None]:
    """The folder of a run's state, for this process alone.

    Raises:
        RecipeError: another process trains into the same output.
    """
    state.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(state / _LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RecipeError(
            f"output {str(output)!r} is being trained by another process: wait for it, or give another output."
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if {path.name for path in state.iterdir()} <= {_LOCK}:
                (state / _LOCK).unlink(missing_ok=True)
                state.rmdir()
        lock.release()


def _clear(state: pathlib.Path) -> None:
    """Removes all of a run's state but its lock, in an order that leaves a training or none wherever it stops."""
    rest = [path for path in state.iterdir() if path.name != _LOCK]
    with scratch_beside(state) as removed:
        for path in sorted(rest, key=lambda path: not path.name.startswith("training")):
            path.rename(removed / path.name)


def _build(recipe: Recipe, total_steps: int) -> tuple[keras.Model, keras.Model]:
    """The compiled trainer and the classifier in it (the same model in natural training)."""
    from keras.src.backend.common import global_state

    keras.utils.set_random_seed(recipe.seed)
    names = global_state.get_global_attribute("object_name_uids")
    # The same names, and so the same configuration, whatever the process made before.
    global_state.set_global_attribute("object_name_uids", None)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.dtype_policy)
    try:
        classifier = recipe.classifier()
        if recipe.start is not None:
            _initial_weights(recipe, classifier)
        trainer = recipe.defense(classifier, total_steps) if recipe.defense else classifier
        optimizer = recipe.optimizer(total_steps)
        for key, value in recipe.hyperparameters.items():
            if key.startswith("defense."):
                trainer = _changed(trainer, key, value)
            else:
                optimizer = _changed(optimizer, key, value)
        trainer.compile(
            optimizer=optimizer,
            loss=SmoothedCrossEntropy(label_smoothing=recipe.label_smoothing),
            metrics=["accuracy"],
        )
    finally:
        keras.config.set_dtype_policy(before)
        global_state.set_global_attribute("object_name_uids", names)
    return trainer, classifier


@keras.saving.register_keras_serializable("robust_zoo")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of logits (batch, classes) against integer labels, which may be smoothed.

    Args:
        label_smoothing: in [0, 1); the true class keeps 1 - s + s / classes, the others s / classes each.
    """

    def __init__(self, label_smoothing: float = 0.0, name="smoothed_cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        labels = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), y_pred.shape[1])
        return keras.losses.categorical_crossentropy(
            labels, y_pred, from_logits=True, label_smoothing=self.label_smoothing
        )

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def _initial_weights(recipe: Recipe, classifier: keras.Model) -> None:
    source = load_model(recipe.start)
    shapes = [[tuple(w.shape) for w in model.weights] for model in (source, classifier)]
    if shapes[0] != shapes[1]:
        raise RecipeError(
            f"start must be a checkpoint of the recipe's architecture, but the weights of {recipe.start!r} have "
            f"shapes {shapes[0]}, not {shapes[1]}."
        )
    copy_state(source, classifier)
    classifier.base_model = source.base_model


class _Epochs(keras.utils.PyDataset):
    """Full batches of the training split, in an order (and augmented in ways) that seed and epoch determine."""

    def __init__(self, data: Dataset, batch_size: int, seed: int, augment=None):
        super().__init__()
        self.data, self.batch_size, self.seed, self.augment = data, batch_size, seed, augment
        self.begin(0)

    def begin(self, epoch: int) -> None:
        self.epoch = epoch
        self.order = np.random.default_rng((self.seed, epoch)).permutation(len(self.data))

    def __len__(self) -> int:
        return len(self.data) // self.batch_size

    def __getitem__(self, index: int):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        images = self.data.images[rows]
        if self.augment is not None:
            images = self.augment(images, np.random.default_rng((self.seed, self.epoch, index)))
        return images, self.data.labels[rows]


class _TimeLimit(keras.callbacks.Callback):
    """Stops training after an epoch when another one would not fit into the minutes from when it was made."""

    def __init__(self, minutes: float | None):
        super().__init__()
        self.minutes, self.started = minutes, time.perf_counter()
        self.longest, self.epochs_done, self.over = 0.0, 0, False

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        self.longest, self.epochs_done = max(self.longest, now - self.epoch_started), epoch + 1
        fits = self.minutes is None or now - self.started + self.longest <= 60 * self.minutes
        if not fits and self.epochs_done < self.params["epochs"]:
            self.over = self.model.stop_training = True


def _fit(
    trainer, recipe, resolved, train, validation, state, limit, *, devices, resume, verbose
) -> tuple[TrainingState, tuple[str, ...]]:
    """Trains, and returns what is known of it, the runs that it resumes included, and remarks."""
    # What lies there without a training is left from one that was finished.
    if not (resume and TrainingState.is_in(state)):
        _clear(state)
    try:
        progress = TrainingState(state, resolved)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    if isinstance(trainer, FixedSetTraining):
        images = trainer.training_images(train.images, train.labels)
        train = dataclasses.replace(train, images=images)
    batches = _Epochs(train, recipe.batch_size, recipe.seed, recipe.augment)
    watched = min(recipe.batch_size, len(validation))
    average = [AveragedWeights(batches)] if trainer.optimizer.use_ema else []
    robust = None
    if recipe.validation_attack is not None:
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
        getattr(trainer, "classifier", trainer).set_weights(robust.best_weights)
        return progress, _remarks(robust, recipe)
    try:
        with synchronised(trainer, devices):
            trainer.fit(
                batches,
                epochs=recipe.epochs,
                # Whole batches only: under a strategy a replica must never be left without examples.
                validation_data=_Epochs(validation, watched - watched % devices, recipe.seed),
                shuffle=False,
                callbacks=[
                    *([] if isinstance(trainer, Defense) else [StopOnDivergence()]),
                    *average,
                    *([] if robust is None else [robust]),
                    progress,
                    limit,
                    keras.callbacks.LambdaCallback(
                        on_epoch_begin=lambda epoch, logs: batches.begin(epoch)
                    ),
                ],
                verbose=verbose,
            )
    except DivergenceError as error:
        kept = f" The last good epoch is kept in {str(state)!r}." if progress.epochs_done else ""
        raise RecipeError(f"training {recipe.name!r} diverged: {error}{kept}") from error
    if limit.over and not (robust and robust.collapsed):
        raise TimeLimitError(
            f"training {recipe.name!r} stopped after epoch {limit.epochs_done} of {recipe.epochs}: another one "
            f"would not fit into {limit.minutes:g} minutes. It is kept in {str(state)!r}; resume goes on from there."
        )
    return progress, _remarks(robust, recipe)


def _remarks(robust: RobustValidation | None, recipe: Recipe) -> tuple[str, ...]:
    """What the record says of the choice of the epoch."""
    if robust is None:
        return ()
    attack = f"{type(robust.attack).__name__}-{robust.attack.steps}"
    chosen = f"weights of epoch {robust.best_epoch} of {recipe.epochs}, the best under {attack} on the validation split"
    if not robust.collapsed:
        return (chosen,)
    return (chosen, f"training stopped after epoch {robust.collapsed}: catastrophic overfitting")


def _defense_info(trainer, recipe: Recipe) -> DefenseInfo | None:
    decay = {
        layer.name: layer.kernel_regularizer.get_config()
        for layer in layers_of(trainer)
        if getattr(layer, "kernel_regularizer", None) is not None
    }
    if isinstance(trainer, Defense):
        name, config = type(trainer).__name__, trainer.hyperparameters()
        config |= {"kernel_regularizers": decay} if decay else {}
    elif decay:
        name, config = "WeightDecay", {"kernel_regularizers": decay}
    else:
        return None
    return DefenseInfo(name=name, config=config, paper=recipe.paper)


def _commit() -> str:
    """The checkout's commit, "+" behind it if there are changes; empty outside a checkout."""
    package = pathlib.Path(__file__).resolve().parent
    directory, recipes = package.parent, recipes_directory()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Fails where another project's checkout is around an installed package.
        git("ls-files", "--error-unmatch", str(package / "recipe.py"))
        changes = git("status", "--porcelain", "--", str(package), str(recipes))
        return git("rev-parse", "HEAD") + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
