"""run(): fit, reload from disk, evaluate, write the checkpoint."""

import contextlib
import hashlib
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import filelock
from keras import ops

from robust_zoo import backend
from robust_zoo.datasets import RandomResizedCrop, open_dataset
from robust_zoo.defenses import Defense
from robust_zoo.defenses.training_state import load_trainer, save_trainer
from robust_zoo.evaluation import evaluate
from robust_zoo.layers import layers_of
from robust_zoo.places import recipes_directory
from robust_zoo.recipe.building import build
from robust_zoo.recipe.definition import Recipe, RecipeError
from robust_zoo.recipe.files import place_of
from robust_zoo.recipe.fitting import LOCK, TimeLimit, clear, fit
from robust_zoo.recipe.resolved import finished, resolve
from robust_zoo.record import DefenseInfo, RobustnessRecord, Training
from robust_zoo.sentences import one_line
from robust_zoo.weights import round_to_float16
from robust_zoo.zoo import save_model
from robust_zoo.zoo.checkpoint import load_checkpoint
from robust_zoo.zoo.layout import check_target

_LARGE = 100_000  # parameters above which weights are stored as float16


def run(
    recipe: Recipe,
    output: str | pathlib.Path,
    *,
    source: str | pathlib.Path | None = None,
    devices: int = 1,
    hosts: bool = False,
    resume: bool = False,
    max_minutes: float | None = None,
    verbose: int = 2,
) -> RobustnessRecord | None:
    """Trains, reloads from disk, evaluates on the test split, and writes the checkpoint directory.

    The progress of training and of the attacks is kept in a hidden folder beside `output`, which is removed when the
    checkpoint is written. With several hosts, the first alone writes, to a directory that all of them can read.

    Args:
        recipe: the training run.
        output: checkpoint directory to write.
        source: the recipe's file; the record names it, and the checkpoint keeps its hash.
        devices: GPUs (logical CPUs without any) of this host to train on, default 1: with `MirroredStrategy` on
            TensorFlow if more than one, with `DataParallel` on JAX. All of them together must divide the batch size.
        hosts: whether this process trains together with those on other hosts, all started with the same arguments:
            those that TF_CONFIG names, with `MultiWorkerMirroredStrategy`, or what `keras.distribution.initialize`
            finds on JAX. Default False.
        resume: whether to resume from the last finished epoch of an interrupted run, or in the middle of its
            attacks; else it starts anew.
        max_minutes: time limit in minutes, > 0, counted from the call: training stops after an epoch when another one
            as long would exceed it. None (default) is no limit.
        verbose: of Keras's `fit`: 0 silent, 1 a progress bar, 2 (default) one line per epoch.

    Returns:
        The record; None on hosts but the first, which evaluates alone.

    Raises:
        RecipeError: devices that do not divide the batch, a batch larger than the data, a start that does not
            fit, settings other than those of the run to resume, a loss or weights that became NaN or infinite, or
            another host that failed: the state of the last good epoch is kept.
        TimeLimitError: `max_minutes` are over, and epochs are left; `resume` continues.
        ValueError: devices or hosts that are not there, or `max_minutes` that are not above 0.
        FileNotFoundError: no such `source`.
        DatasetError, CheckpointError: from reading data and writing the result.
    """
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"max_minutes must be > 0, got {max_minutes!r}.")
    limit = TimeLimit(max_minutes)
    output = pathlib.Path(output)
    check_target(output)
    if source is not None and not pathlib.Path(source).is_file():
        raise FileNotFoundError(
            f"source must be the recipe's file, but there is no {str(source)!r}."
        )
    state = output.parent / f".{output.name}.training"
    _check_division(recipe, devices)
    with contextlib.ExitStack() as while_running:
        # Entered first: reading data starts TensorFlow, after which a CPU cannot be divided any more.
        with backend.devices(devices, hosts):
            number, together = backend.host()
            _check_division(recipe, devices * together)
            if number == 0:
                while_running.enter_context(_own_state(state, output))
            try:
                trained = _train(recipe, state, limit, resume, verbose)
            except Exception as error:
                if not backend.lost_host(error):
                    raise
                raise RecipeError(
                    f"training {recipe.name!r} stopped since another host failed, or was ended: {one_line(error)}. The "
                    f"last finished epoch is kept in {str(state)!r}; all hosts started again with resume continue from "
                    "there."
                ) from error
        if number > 0:
            return None
        return _measure(recipe, trained, output, source, state)


def _check_division(recipe: Recipe, devices: int) -> None:
    if devices < 1 or recipe.batch_size % devices:
        raise RecipeError(
            f"batch_size must be divisible by the number of devices, got {recipe.batch_size} and {devices}."
        )


class _Trained(NamedTuple):
    """A training that is done."""

    trainer: Defense
    steps: int
    saved: bytes | None  # by several hosts, each of which has a part in the trainer's variables
    hardware: str
    commit: str  # of the code that ran, which may be another one's when it ends
    resolved: dict
    history: list[dict]
    seconds: float
    remarks: tuple[str, ...]


def _train(
    recipe: Recipe, state: pathlib.Path, limit: TimeLimit, resume: bool, verbose: int
) -> _Trained:
    shape, commit = recipe.classifier().input_shape[1:], _commit()
    as_stored = isinstance(recipe.augment, RandomResizedCrop)
    train = open_dataset(recipe.dataset, "train", image_shape=shape, in_memory=not as_stored)
    validation = open_dataset(
        recipe.dataset, "validation", image_shape=shape, central_crop=recipe.central_crop
    )
    in_a_pass = len(train) // recipe.batch_size
    if in_a_pass < 1:
        raise RecipeError(
            f"batch_size must be at most {len(train)}, the training examples, got {recipe.batch_size}."
        )
    steps = (recipe.steps_per_epoch or in_a_pass) * recipe.epochs
    trainer = build(recipe, steps)
    resolved = resolve(recipe, trainer, train, validation)
    data = (train, validation)
    progress, remarks = fit(
        trainer, recipe, resolved, *data, state, limit, resume=resume, verbose=verbose
    )
    seconds, hardware = progress.seconds, backend.hardware(trainer)
    saved = save_trainer(trainer) if backend.host(trainer)[1] > 1 else None
    history = progress.history
    return _Trained(trainer, steps, saved, hardware, commit, resolved, history, seconds, remarks)


def _measure(
    recipe: Recipe,
    trained: _Trained,
    output: pathlib.Path,
    source: str | pathlib.Path | None,
    state: pathlib.Path,
) -> RobustnessRecord:
    """Evaluates what was trained, and writes the checkpoint."""
    trainer = trained.trainer
    if trained.saved is not None:
        trainer = build(recipe, trained.steps)
        load_trainer(trainer, trained.saved)
    classifier = trainer.classifier
    told = finished(trained.resolved, source, trained.history)
    deviations = recipe.deviations + trained.remarks
    size = sum(int(ops.size(variable)) for variable in classifier.variables)
    if size > _LARGE and round_to_float16(classifier):
        deviations += ("weights rounded to float16 before measuring",)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        reloaded = load_checkpoint(save_model(classifier, pathlib.Path(scratch) / "model"))
    shape = reloaded.input_shape[1:]
    record = evaluate(
        reloaded,
        open_dataset(recipe.dataset, image_shape=shape, central_crop=recipe.central_crop),
        attacks=recipe.attacks,
        n=recipe.n,
        certify=recipe.certify,
        skip_certified=recipe.skip_certified,
        smoothing=recipe.smoothing,
        threat_models=recipe.threat_models,
        state_directory=state / "attacks",
        name=recipe.name,
        architecture=classifier.name,
        defense=_defense_info(trainer, recipe),
        reported=recipe.reported,
        training=Training(
            recipe=place_of(source),
            recipe_sha256=hashlib.sha256(told).hexdigest(),
            commit=trained.commit,
            epochs=recipe.epochs,
            seconds=round(trained.seconds, 1),
            hardware=trained.hardware,
            backend=backend.name,
            deviations=deviations,
        ),
        base_model=getattr(classifier, "base_model", None),
    )
    save_model(reloaded, output, record, recipe=told, attack=trainer.as_attack())
    clear(state)
    return record


@contextlib.contextmanager
def _own_state(state: pathlib.Path, output: pathlib.Path) -> Iterator[None]:
    """The folder of a run's state, for this process alone.

    Raises:
        RecipeError: another process trains into the same output.
    """
    state.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(state / LOCK)
    try:
        held = lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RecipeError(
            f"output {str(output)!r} is being trained by another process: wait for it, or give another output."
        ) from None
    with held:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if {path.name for path in state.iterdir()} <= {LOCK}:
                    (state / LOCK).unlink(missing_ok=True)
                    state.rmdir()


def _defense_info(trainer: Defense, recipe: Recipe) -> DefenseInfo | None:
    decay = {
        layer.name: layer.kernel_regularizer.get_config()
        for layer in layers_of(trainer)
        if getattr(layer, "kernel_regularizer", None) is not None
    }
    if recipe.defense is not None:
        name, config = type(trainer).__name__, trainer.hyperparameters()
        config |= {"kernel_regularizers": decay} if decay else {}
    elif decay:
        name, config = "WeightDecay", {"kernel_regularizers": decay}
    else:
        return None
    return DefenseInfo(name=name, config=config, paper=recipe.paper)


def _commit() -> str:
    """The checkout's commit, "+" behind it if the package or the recipes were changed; empty outside a checkout."""
    package = pathlib.Path(__file__).resolve().parents[1]
    directory, recipes = package.parent, recipes_directory()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Fails where another project's checkout is around an installed package.
        git("ls-files", "--error-unmatch", str(package / "__init__.py"))
        changes = git("status", "--porcelain", "--", str(package), str(recipes))
        return git("rev-parse", "HEAD") + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
