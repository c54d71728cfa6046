"""evaluate(): from a model and data to a RobustnessRecord."""

import pathlib
from collections.abc import Sequence
from datetime import UTC, datetime
from numbers import Integral

import keras
import numpy as np
from keras import ops

from robust_zoo import __version__, backend
from robust_zoo.attacks import PGD, Attack, AttackResult, FixedBudgetAttack
from robust_zoo.attacks.working_set import predict
from robust_zoo.classifier import describe_config
from robust_zoo.contract import (
    check_batch_size,
    check_classifier,
    check_images,
    check_labels,
)
from robust_zoo.copies import in_float32
from robust_zoo.datasets import Dataset, load_dataset
from robust_zoo.evaluation.checks import run_checks
from robust_zoo.evaluation.curve import accuracy_curve
from robust_zoo.record import (
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
from robust_zoo.weights import describe_weights


def evaluate(
    model: keras.Model,
    data: "Dataset | str | tuple[np.ndarray, np.ndarray]",
    *,
    attacks: Sequence[Attack] = (),
    n: "int | Sequence[int | None] | None" = None,
    seed: int = 0,
    batch_size: int = 128,
    checks: bool = True,
    progress: bool = True,
    state_directory: str | pathlib.Path | None = None,
    name: str | None = None,
    architecture: str | None = None,
    defense: DefenseInfo | None = None,
    reported: Sequence[Reported] = (),
    training: Training | None = None,
    base_model: BaseModel | None = None,
) -> RobustnessRecord:
    """Measures a classifier, in float32, and returns the numbers with their evidence.

    Args:
        model: classifier, images in [0, 1] to logits. If it carries the record of the very weights it
            now has, name, architecture, defense, reported numbers, training and base model are taken from
            there.
        data: a `Dataset`, the name of one (its test split), or arrays (images, labels).
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
        defense: how it was trained.
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
    check_classifier(model)
    check_batch_size(batch_size)
    attacks = (attacks,) if isinstance(attacks, Attack) else tuple(attacks)
    threat = _threat_model(attacks)
    dataset = _as_dataset(data, model)
    sizes = _sizes(n, len(attacks), len(dataset))
    sample = dataset.sample(max(sizes), seed)
    measured = in_float32(model)
    config, weights = describe_config(measured), describe_weights(measured)
    carried = _carried(model, config, weights)
    x = check_images(sample.images, measured)
    y = check_labels(sample.labels, measured.output_shape[1], len(x))
    for attack in attacks:
        attack.check_model(measured)
    states = _state_files(state_directory, attacks)

    logits = predict(measured, x, batch_size)
    clean = logits.argmax(1) == y
    outcomes, survivors, distances, flags = [], [], [], []
    for attack, size, state_file in zip(attacks, sizes, states, strict=False):
        result = attack.run(
            measured,
            x[:size],
            y[:size],
            seed=seed,
            batch_size=batch_size,
            progress=progress,
            state_file=state_file,
        )
        # A second look at what the attack returned.
        seen = predict(measured, result.x_adv, batch_size).argmax(1)
        if isinstance(attack, FixedBudgetAttack):
            held = clean[:size] & ~result.success & (seen == y[:size])
            outcomes.append(_outcome(attack, result, held, seed))
            survivors.append(held)
            flags += getattr(result, "flags", ())
        else:
            left = ops.convert_to_numpy(attack.reference(logits[:size], y[:size]))
            fooled = result.success & (seen != left)
            distances.append(_minimum_norm(attack, result, x[:size], fooled, clean[:size], seed))
    curve = None
    if checks:
        options = {"seed": seed, "batch_size": batch_size, "progress": progress}
        if threat is not None and threat.norm in PGD.norms:
            curve = accuracy_curve(measured, x, y, threat, **options)
        own = run_checks(measured, x, y, logits, threat, curve, **options)
        # Ours look at more images than the flags of the same name.
        names = {check.name for check in own}
        flags = [*own, *(flag for flag in flags if flag.name not in names)]
    return RobustnessRecord(
        name=name or carried.get("name", model.name),
        architecture=architecture or carried.get("architecture", model.name),
        parameters=model.count_params(),
        input=Input(shape=model.input_shape[1:]),
        num_classes=model.output_shape[1],
        dataset=DatasetInfo(name=dataset.name, version=dataset.version, split=dataset.split),
        defense=defense or carried.get("defense"),
        threat_model=threat,
        clean=Accuracy.count(int(clean.sum()), len(x)),
        attacks=tuple(outcomes),
        worst_case=_worst_case(outcomes, survivors) if outcomes else None,
        minimum_norm=tuple(distances),
        curve=curve,
        checks=tuple(flags),
        reported=tuple(reported) or carried.get("reported", ()),
        training=training or carried.get("training"),
        base_model=base_model or carried["base_model"],
        config=config,
        weights=weights,
        versions=_versions(),
        created=datetime.now(UTC).replace(microsecond=0),
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


def _as_dataset(data, model: keras.Model) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str):
        return load_dataset(data)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        images = check_images(data[0], model)
        classes = model.output_shape[1]
        labels = check_labels(data[1], classes, len(images))
        names = tuple(str(label) for label in range(classes))
        return Dataset("arrays", "", "test", images, labels, names)
    raise TypeError(
        f"data must be a Dataset, a name or (images, labels), got {type(data).__name__}."
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
    """What is known of its origin: by its own record, if that is of this very model, else what it started from."""
    record = getattr(model, "robustness", None)
    if record is None or (record.config, record.weights) != (config, weights):
        return {"base_model": getattr(model, "base_model", None)}
    keys = ("name", "architecture", "defense", "reported", "training", "base_model")
    return {key: getattr(record, key) for key in keys}


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
