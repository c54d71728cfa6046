"""evaluate(): from a model and data to a RobustnessRecord."""

import pathlib
from collections.abc import Sequence
from datetime import UTC, datetime
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import ops

from robust_zoo import __version__, backend
from robust_zoo.attacks import PGD, Attack, AttackResult, FixedBudgetAttack
from robust_zoo.classifier import describe_config
from robust_zoo.contract import (
    check_batch_size,
    check_classifier,
    check_images,
    check_labels,
)
from robust_zoo.copies import agree, in_float32
from robust_zoo.datasets import Dataset, arrays_dataset, collect, is_folder, load_dataset
from robust_zoo.evaluation.checks import run_checks
from robust_zoo.evaluation.curve import Evidence, accuracy_curve
from robust_zoo.inference import forget, predict
from robust_zoo.record import (
    LONGEST_NAME,
    Accuracy,
    AttackOutcome,
    BaseModel,
    Configuration,
    DatasetInfo,
    DefenseInfo,
    Distances,
    Input,
    MinimumNorm,
    Reported,
    RobustnessRecord,
    ThreatModel,
    Training,
    Weights,
    WorstCase,
)
from robust_zoo.sentences import one_line
from robust_zoo.weights import describe_weights, variables_sha256

_COMPARED = 64  # images on which compiled and uncompiled logits are compared


def evaluate(
    model: keras.Model,
    data: "Dataset | str | tuple[np.ndarray, np.ndarray] | Any",
    *,
    attacks: Sequence[Attack] = (),
    dataset: str | None = None,
    n: "int | Sequence[int | None] | None" = None,
    seed: int = 0,
    batch_size: int = 128,
    checks: bool = True,
    progress: bool = True,
    state_directory: str | pathlib.Path | None = None,
    name: str | None = None,
    architecture: str | None = None,
    defense: "DefenseInfo | Any | None" = None,
    reported: Sequence[Reported] = (),
    training: Training | None = None,
    base_model: BaseModel | None = None,
) -> RobustnessRecord:
    """Measures a classifier, in float32, and returns the numbers with their evidence.

    Args:
        model: classifier, images in [0, 1] to logits. If it carries the record of the very weights it
            now has, name, architecture, defense, reported numbers, training and base model are taken from
            there.
        data: a `Dataset`, a name for `load_dataset` (its test split; a folder's images are resized to the model's
            input), arrays (images, labels), or a stream of batches of them: a tf.data.Dataset or a `PyDataset`, of
            which the first `n` examples are taken (all by default).
        dataset: name of arrays or a stream, for the record; by default "arrays" or "stream".
        attacks: fixed-budget attacks of one norm and epsilon, the threat model, and minimum-norm attacks.
        n: number of examples, drawn with `seed`: one number for everything, or one for each attack (clean
            accuracy then uses the largest). None is all. A smaller sample is a part of a larger.
        seed: of the sample and of every attack.
        batch_size: images in a batch; no number depends on it.
        checks: whether to run the gradient-masking checks, and measure accuracy against epsilon under PGD on up
            to 1,000 examples.
        progress: whether to show progress bars (on a terminal only).
        state_directory: folder, made if need be, that keeps how far each attack is (see `Attack.run`), so
            that an interrupted evaluation goes on when it is called again with the same arguments.
        name: of the model; by default `model.name`.
        architecture: its architecture; by default `model.name`.
        defense: how it was trained: the trainer itself, or a `DefenseInfo`. By default what the defense noted on
            the model when its `fit` ended, if the weights are still those.
        reported: numbers that others published, for comparison.
        training: how, where and how long it was trained.
        base_model: what it was fine-tuned from; by default what `load_model` made it of, if its weights are
            no longer those.

    Raises:
        TypeError, ValueError: a model, images or labels that `robust_zoo.contract` refuses, attacks of
            different threat models, or an `n` that does not fit.

    Example:
        >>> attack = PGD(epsilon=0.3, steps=40, step_size=0.01)
        >>> evaluate(model, "mnist", attacks=[attack], n=1000, seed=0).attacks[0].accuracy
    """
    options = {"seed": seed, "batch_size": batch_size, "checks": checks, "progress": progress}
    about = {"name": name, "architecture": architecture, "defense": defense, "reported": reported}
    about |= {"training": training, "base_model": base_model}
    measured = _Measured(model, data, dataset, [attacks], n, **options)
    return measured.record(0, state_directory, **about)


def evaluate_at(
    model: keras.Model,
    data,
    *,
    plans: Sequence[Sequence[Attack]],
    dataset: str | None = None,
    n: "int | Sequence[int | None] | None" = None,
    seed: int = 0,
    batch_size: int = 128,
    checks: bool = True,
    progress: bool = True,
    state_directory: str | pathlib.Path | None = None,
    **about,
) -> list[RobustnessRecord]:
    """Measures a classifier at several epsilons: a record each.

    An image that was broken within one ball counts as broken within every larger one, so that accuracy never rises
    with epsilon.

    Args:
        model: see `evaluate`.
        data: see `evaluate`.
        plans: attacks for each epsilon, all of one norm; the epsilons rise.
        dataset: see `evaluate`.
        n: see `evaluate`.
        seed: see `evaluate`.
        batch_size: see `evaluate`.
        checks: see `evaluate`.
        progress: see `evaluate`.
        state_directory: see `evaluate`; each epsilon has a folder in it.
        **about: name, architecture and so on, see `evaluate`.

    Raises:
        TypeError, ValueError: as `evaluate`, or plans whose epsilons do not rise.
    """
    options = {"seed": seed, "batch_size": batch_size, "checks": checks, "progress": progress}
    measured = _Measured(model, data, dataset, plans, n, **options)
    records = []
    for number, threat in enumerate(measured.threats):
        folder = state_directory
        if folder is not None and len(plans) > 1:
            folder = pathlib.Path(folder) / f"epsilon_{threat.epsilon:.6g}"
        records.append(measured.record(number, folder, **about))
    return records


class _Measured:
    """A model on a sample, and what the attacks of several plans have found so far."""

    def __init__(self, model, data, name, plans, n, *, seed, batch_size, checks, progress):
        check_classifier(model)
        check_batch_size(batch_size)
        self.plans = [(p,) if isinstance(p, Attack) else tuple(p) for p in plans]
        self.threats = [_threat_model(attacks) for attacks in self.plans]
        if len(plans) > 1:
            _check_rising(self.threats)
        self.model, self.seed, self.batch_size = model, seed, batch_size
        self.checks, self.progress = checks, progress
        data = _as_dataset(data, model, name, n)
        self.sizes = _sizes(n, len(self.plans[0]), len(data))
        self.sample = data.sample(max(self.sizes), seed)
        self.measured = in_float32(model)
        self.config, self.weights = describe_config(self.measured), describe_weights(self.measured)
        self.x = check_images(self.sample.images, self.measured)
        self.y = check_labels(self.sample.labels, self.measured.output_shape[1], len(self.x))
        for attack in (attack for attacks in self.plans for attack in attacks):
            attack.check_model(self.measured)
        self.logits = _trusted_logits(self.measured, self.x, batch_size)
        self.clean = self.logits.argmax(1) == self.y
        self.evidence: list[Evidence] = []

    def record(
        self,
        number: int,
        state_directory,
        *,
        name=None,
        architecture=None,
        defense=None,
        reported=(),
        training=None,
        base_model=None,
    ) -> RobustnessRecord:
        """The record of one plan; that of `evaluate`, whose arguments these are."""
        model, measured, x, y = self.model, self.measured, self.x, self.y
        carried = _carried(model, self.config, self.weights)
        name = name or carried.get("name", model.name)
        architecture = architecture or carried.get("architecture", model.name)
        # Refused before any attack runs.
        names = {"name": name, "architecture": architecture, "dataset": self.sample.name}
        for argument, text in names.items():
            if not text.isprintable() or len(text) > LONGEST_NAME:
                raise ValueError(
                    f"{argument} must be one line of text of at most {LONGEST_NAME} characters, got {one_line(text)!r}."
                )
        _defense_info(defense, model)
        attacks, threat = self.plans[number], self.threats[number]
        states = _state_files(state_directory, attacks)
        outcomes, survivors, distances, flags = [], [], [], []
        smaller = tuple(self.evidence)  # of plans with a smaller epsilon
        options = {"seed": self.seed, "batch_size": self.batch_size, "progress": self.progress}
        for attack, size, state_file in zip(attacks, self.sizes, states, strict=False):
            result = attack.run(measured, x[:size], y[:size], state_file=state_file, **options)
            # A second look at what the attack returned.
            seen = predict(measured, result.x_adv, self.batch_size).argmax(1)
            clean = self.clean[:size]
            if isinstance(attack, FixedBudgetAttack):
                held = clean & ~result.success & (seen == y[:size])
                self.evidence.append(_evidence(~held, result.distance, clean, attack.epsilon))
                for part in smaller:
                    held = held & ~part.broken(attack.epsilon, size)
                outcomes.append(_outcome(attack, result, held, self.seed))
                survivors.append(held)
                flags += getattr(result, "flags", ())
            else:
                left = ops.convert_to_numpy(attack.reference(self.logits[:size], y[:size]))
                fooled = result.success & (seen != left)
                distances.append(_minimum_norm(attack, result, x[:size], fooled, clean, self.seed))
                if threat is not None and attack.norm == threat.norm:
                    broken = fooled & (seen != y[:size])
                    self.evidence.append(_evidence(broken, result.distance, clean, np.inf))
        curve = None
        if self.checks:
            alone = ()
            if threat is not None and threat.norm in PGD.norms:
                curve, alone = accuracy_curve(measured, x, y, threat, self.evidence, **options)
            fixed = [attack for attack in attacks if isinstance(attack, FixedBudgetAttack)]
            own = run_checks(measured, x, y, self.logits, threat, fixed, curve, alone, **options)
            # Ours look at more images than the flags of the same name.
            names = {check.name for check in own}
            flags = [*own, *(flag for flag in flags if flag.name not in names)]
        sample = self.sample
        return RobustnessRecord(
            name=name,
            architecture=architecture,
            parameters=model.count_params(),
            input=Input(shape=model.input_shape[1:]),
            num_classes=model.output_shape[1],
            dataset=DatasetInfo(
                name=sample.name, version=sample.version, split=sample.split, sha256=sample.sha256
            ),
            defense=_defense_info(defense, model) or carried.get("defense"),
            threat_model=threat,
            clean=Accuracy.count(int(self.clean.sum()), len(x)),
            attacks=tuple(outcomes),
            worst_case=_worst_case(outcomes, survivors) if outcomes else None,
            minimum_norm=tuple(distances),
            curve=curve,
            checks=tuple(flags),
            reported=tuple(reported) or carried.get("reported", ()),
            training=training or carried.get("training"),
            base_model=base_model or carried["base_model"],
            config=self.config,
            weights=self.weights,
            versions=_versions(),
            created=datetime.now(UTC).replace(microsecond=0),
        )


def _check_rising(threats) -> None:
    if None in threats or len({threat.norm for threat in threats}) > 1:
        raise ValueError(
            f"plans must each have attacks with a budget, all of one norm, got {threats}."
        )
    radii = [threat.epsilon for threat in threats]
    if radii != sorted(set(radii)):
        raise ValueError(f"plans must have rising epsilons, got {radii}.")


def _evidence(broken, distance, clean, epsilon: float) -> Evidence:
    """Adversarial distances of what an attack broke: at most its epsilon, 0 where the clean image is misclassified."""
    found = np.where(broken, np.minimum(distance, epsilon), np.inf)
    return Evidence(np.where(clean, found, 0.0))


def _defense_info(defense, model: keras.Model) -> DefenseInfo | None:
    """Of the trainer of `model`, what it tells of itself."""
    if defense is None or isinstance(defense, DefenseInfo):
        return defense
    if not isinstance(getattr(defense, "classifier", None), keras.Model):
        raise TypeError(
            f"defense must be the defense that trained the model, or a DefenseInfo, got {type(defense).__name__}."
        )
    if defense.classifier is not model:
        raise ValueError(
            f"defense must be the one that trained {model.name!r}, got {type(defense).__name__} around another model: "
            "give evaluate its .classifier."
        )
    if not int(defense.training_steps):
        raise ValueError(
            f"defense must have trained the model, got {type(defense).__name__} before its fit: leave it out."
        )
    return DefenseInfo(name=type(defense).__name__, config=defense.hyperparameters())


def _trusted_logits(model: keras.Model, x: np.ndarray, batch_size: int) -> np.ndarray:
    """The logits of a compiled model, which must be those that it computes uncompiled.

    Raises:
        ValueError: they are not: the model computes something else once it is compiled.
    """
    few = x[:_COMPARED]
    with backend.full_precision():
        eager, again = (ops.convert_to_numpy(model(few, training=False)) for _ in range(2))
    logits = predict(model, x, batch_size)
    if not agree(eager, again, within=1e-6) or agree(logits[:_COMPARED], eager, within=1e-3):
        return logits
    forget(model)  # compiled before something changed that nobody can see
    logits = predict(model, x, batch_size)
    if agree(logits[:_COMPARED], eager, within=1e-3):
        return logits
    difference = np.abs(logits[:_COMPARED] - eager).max()
    raise ValueError(
        f"model {model.name!r} computes other logits compiled than uncompiled (by up to {difference:g}): its call "
        "must depend on nothing but its inputs, its variables and its layers' attributes."
    )


def _outcome(attack: Attack, result: AttackResult, held: np.ndarray, seed: int) -> AttackOutcome:
    return AttackOutcome.count(
        int(held.sum()),
        len(held),
        name=type(attack).__name__,
        config=attack.get_config(),
        seed=seed,
        max_distance=float(result.distance.max()),
        seconds=round(result.seconds, 3),
        components=getattr(result, "components", {}),
    )


def _minimum_norm(
    attack: Attack,
    result: AttackResult,
    x: np.ndarray,
    fooled: np.ndarray,
    clean: np.ndarray,
    seed: int,
) -> MinimumNorm:
    """`fooled` and `clean`, bool (n,): the attack's successes and the correctly classified images."""
    if attack.norm == "l0":
        norms = np.full(len(x), float(x[0].size))
    else:
        norms = attack.geometry.distance(x, np.broadcast_to(np.float32(0), x.shape))

    def summary(rows: np.ndarray) -> Distances:
        distance, norm = result.distance[rows], norms[rows]
        relative = distance[norm > 0] / norm[norm > 0]
        return Distances(
            n_examples=int(rows.sum()),
            mean=float(distance.mean()) if len(distance) else None,
            median=float(np.median(distance)) if len(distance) else None,
            rho=float(relative.mean()) if len(relative) else None,
        )

    return MinimumNorm(
        name=type(attack).__name__,
        config=attack.get_config(),
        seed=seed,
        norm=attack.norm,
        n_examples=len(x),
        found=summary(fooled),
        clean_correct_only=summary(fooled & clean),
        seconds=round(result.seconds, 3),
    )


def _worst_case(outcomes: list[AttackOutcome], survivors: list[np.ndarray]) -> WorstCase:
    """Over the examples that all fixed-budget attacks saw; samples are nested, so these are the first ones."""
    common = min(map(len, survivors))
    held = np.logical_and.reduce([survivor[:common] for survivor in survivors])
    names = tuple(outcome.name for outcome in outcomes)
    return WorstCase.count(int(held.sum()), common, attacks=names)


def _threat_model(attacks: tuple[Attack, ...]) -> ThreatModel | None:
    for attack in attacks:
        if not isinstance(attack, Attack):
            raise TypeError(f"attacks must be robust_zoo attacks, got {attack!r}.")
        if attack.reaches_given_labels:
            raise ValueError(
                f"attacks must not aim at the labels given, which are the true ones here, got {attack!r}: "
                "a targeted attack needs labels 'least_likely' or 'random'."
            )
    fixed = [attack for attack in attacks if isinstance(attack, FixedBudgetAttack)]
    budgets = sorted({(attack.norm, attack.epsilon) for attack in fixed})
    if len(budgets) > 1:
        raise ValueError(
            f"attacks must share one norm and epsilon, the threat model, got {budgets}: evaluate each "
            "threat model by itself."
        )
    return ThreatModel(norm=budgets[0][0], epsilon=budgets[0][1]) if budgets else None


def _as_dataset(data, model: keras.Model, name: str | None, n) -> Dataset:
    if name is not None and isinstance(data, (Dataset, str)):
        raise ValueError(
            f"dataset names arrays and streams, but the data have a name already, got {name!r}."
        )
    if isinstance(data, Dataset):
        return data
    shape, classes = model.input_shape[1:], model.output_shape[1]
    if isinstance(data, str):
        loaded = load_dataset(data, image_shape=shape)
        names = loaded.class_names
        if is_folder(data) and len(names) != classes:
            raise ValueError(
                f"data must have a subfolder for each of the model's {classes} classes, {data!r} has {len(names)}: "
                f"{one_line(', '.join(names))}. An empty one keeps the place of a class."
            )
        return loaded
    if isinstance(data, (tuple, list)) and len(data) == 2:
        images = check_images(data[0], model)
        labels = check_labels(data[1], classes, len(images))
        return arrays_dataset(images, labels, classes, name or "arrays")
    if isinstance(data, keras.utils.PyDataset) or hasattr(data, "element_spec"):
        most = None if n is None or (isinstance(n, Sequence) and None in n) else int(np.max(n))
        images, labels = collect(data, most)
        labels = check_labels(labels, classes, len(images))
        return arrays_dataset(check_images(images, model), labels, classes, name or "stream")
    raise TypeError(
        "data must be a Dataset, a name, (images, labels), a tf.data.Dataset or a PyDataset, got "
        f"{type(data).__name__}."
    )


def _sizes(n, attacks: int, available: int) -> list[int]:
    if not isinstance(n, Sequence):
        sizes = [n] * max(attacks, 1)
    else:
        sizes = list(n)
        if len(sizes) != max(attacks, 1):
            raise ValueError(
                f"n must be one number or one for each of {attacks} attacks, got {n!r}."
            )
    sizes = [available if size is None else size for size in sizes]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, Integral) or not 1 <= size <= available:
            raise ValueError(f"n must be integers in 1..{available}, the examples, got {n!r}.")
    return [int(size) for size in sizes]


def _carried(model: keras.Model, config: Configuration, weights: Weights) -> dict:
    """What is known of its origin: by its own record, if that is of this very model, by what a defense noted, or
    by what it started from.
    """
    record = getattr(model, "robustness", None)
    if record is not None and (record.config, record.weights) == (config, weights):
        keys = ("name", "architecture", "defense", "reported", "training", "base_model")
        return {key: getattr(record, key) for key in keys}
    carried = {"base_model": getattr(model, "base_model", None)}
    origin = getattr(model, "origin", None)
    if origin is not None and origin.weights == variables_sha256(model):
        carried |= {"defense": origin.defense, "training": origin.training}
    return carried


def _state_files(directory, attacks: tuple[Attack, ...]) -> list[pathlib.Path | None]:
    """One file for each attack, by its place and name."""
    if directory is None:
        return [None] * len(attacks)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return [
        directory / f"{number}_{type(attack).__name__}.npz" for number, attack in enumerate(attacks)
    ]


def _versions() -> dict[str, str]:
    versions = {"robust_zoo": __version__, "keras": keras.__version__, "numpy": np.__version__}
    return {**versions, backend.name: backend.version}
