"""evaluate(): from a model and data to a RobustnessRecord."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import PGD, Attack, FixedBudgetAttack
from robust_zoo.classifier import describe_config
from robust_zoo.contract import (
    check_batch_size,
    check_classifier,
    check_images,
    check_labels,
)
from robust_zoo.copies import agree, in_float32
from robust_zoo.datasets import Dataset
from robust_zoo.evaluation.checks import run_checks
from robust_zoo.evaluation.curve import Evidence, accuracy_curve
from robust_zoo.evaluation.outcomes import (
    carried_by,
    defense_info,
    evidence_of,
    minimum_norm,
    outcome_of,
    versions,
    worst_case,
)
from robust_zoo.evaluation.plan import (
    as_dataset,
    check_rising,
    sample_sizes,
    state_files,
    threat_model,
)
from robust_zoo.inference import forget, predict
from robust_zoo.record import (
    LONGEST_NAME,
    Accuracy,
    AttackOutcome,
    BaseModelInfo,
    Check,
    Curve,
    DatasetInfo,
    DefenseInfo,
    Input,
    MinimumNorm,
    Reported,
    RobustnessRecord,
    Training,
)
from robust_zoo.sentences import one_line
from robust_zoo.weights import describe_weights

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
    base_model: BaseModelInfo | None = None,
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
        seed: integer seed for the sample and for all randomness of the attacks.
        batch_size: images in a batch; no number depends on it.
        checks: whether to run the gradient-masking checks, and measure accuracy against epsilon under PGD on up
            to 1,000 examples.
        progress: whether to show progress bars (on a terminal only).
        state_directory: folder, made if need be, that keeps how far each attack is (see `Attack.run`), so
            that an interrupted evaluation resumes when it is called again with the same arguments.
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
        >>> attack = PGD(epsilon=0.1, steps=40, step_size=0.01)
        >>> record = evaluate(model, "digits", attacks=[attack], n=100, seed=0)
        >>> record.clean.accuracy, record.worst_case.n_examples
        (1.0, 100)
    """
    options: dict[str, Any] = {
        "seed": seed,
        "batch_size": batch_size,
        "checks": checks,
        "progress": progress,
    }
    about: dict[str, Any] = {"name": name, "architecture": architecture, "defense": defense}
    about |= {"reported": reported, "training": training, "base_model": base_model}
    measured = _Measured(model, data, dataset, [attacks], n, **options)
    return measured.record(0, state_directory, **about)


def evaluate_at(
    model: keras.Model,
    data: "Dataset | str | tuple[np.ndarray, np.ndarray] | Any",
    *,
    plans: Sequence[Sequence[Attack]],
    dataset: str | None = None,
    n: "int | Sequence[int | None] | None" = None,
    seed: int = 0,
    batch_size: int = 128,
    checks: bool = True,
    progress: bool = True,
    state_directory: str | pathlib.Path | None = None,
    **about: Any,
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
    options: dict[str, Any] = {
        "seed": seed,
        "batch_size": batch_size,
        "checks": checks,
        "progress": progress,
    }
    measured = _Measured(model, data, dataset, plans, n, **options)
    records = []
    for number, threat in enumerate(measured.threats):
        folder = state_directory
        if folder is not None and len(plans) > 1:
            assert threat is not None  # or `check_rising` has refused the plans
            folder = pathlib.Path(folder) / f"epsilon_{threat.epsilon:.6g}"
        records.append(measured.record(number, folder, **about))
    return records


@dataclass
class _Found:
    """What the attacks of a plan found: those with a budget, and whom they left, and those without."""

    outcomes: list[AttackOutcome] = field(default_factory=list)
    survivors: list[np.ndarray] = field(default_factory=list)
    distances: list[MinimumNorm] = field(default_factory=list)
    flags: list[Check] = field(default_factory=list)


class _Measured:
    """A model on a sample, and what the attacks of several plans have found so far."""

    def __init__(
        self,
        model: keras.Model,
        data: "Dataset | str | tuple[np.ndarray, np.ndarray] | Any",
        name: str | None,
        plans: Sequence[Attack | Sequence[Attack]],
        n: int | Sequence[int | None] | None,
        *,
        seed: int,
        batch_size: int,
        checks: bool,
        progress: bool,
    ) -> None:
        check_classifier(model)
        check_batch_size(batch_size)
        self.plans = [(p,) if isinstance(p, Attack) else tuple(p) for p in plans]
        self.threats = [threat_model(attacks) for attacks in self.plans]
        if len(plans) > 1:
            check_rising(self.threats)
        self.model, self.seed, self.batch_size = model, seed, batch_size
        self.checks, self.progress = checks, progress
        data = as_dataset(data, model, name, n)
        self.sizes = sample_sizes(n, len(self.plans[0]), len(data))
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
        state_directory: str | pathlib.Path | None,
        *,
        name: str | None = None,
        architecture: str | None = None,
        defense: "DefenseInfo | Any | None" = None,
        reported: Sequence[Reported] = (),
        training: Training | None = None,
        base_model: BaseModelInfo | None = None,
    ) -> RobustnessRecord:
        """The record of one plan; that of `evaluate`, whose arguments these are."""
        model, x = self.model, self.x
        carried = carried_by(model, self.config, self.weights)
        name = name or carried.get("name", model.name)
        architecture = architecture or carried.get("architecture", model.name)
        # Refused before any attack runs.
        names = {"name": name, "architecture": architecture, "dataset": self.sample.name}
        for argument, text in names.items():
            if not text.isprintable() or len(text) > LONGEST_NAME:
                raise ValueError(
                    f"{argument} must be one line of text of at most {LONGEST_NAME} characters, got {one_line(text)!r}."
                )
        defense_info(defense, model)
        threat, sample = self.threats[number], self.sample
        found = self._attacked(number, state_directory)
        curve, checks = self._checked(number, found) if self.checks else (None, found.flags)
        return RobustnessRecord(
            name=name,
            architecture=architecture,
            parameters=model.count_params(),
            input=Input(shape=model.input_shape[1:]),
            num_classes=model.output_shape[1],
            dataset=DatasetInfo(
                name=sample.name, version=sample.version, split=sample.split, sha256=sample.sha256
            ),
            defense=defense_info(defense, model) or carried.get("defense"),
            threat_model=threat,
            clean=Accuracy.count(int(self.clean.sum()), len(x)),
            attacks=tuple(found.outcomes),
            worst_case=worst_case(found.outcomes, found.survivors) if found.outcomes else None,
            minimum_norm=tuple(found.distances),
            curve=curve,
            checks=tuple(checks),
            reported=tuple(reported) or carried.get("reported", ()),
            training=training or carried.get("training"),
            base_model=base_model or carried["base_model"],
            config=self.config,
            weights=self.weights,
            versions=versions(),
            created=datetime.now(UTC).replace(microsecond=0),
        )

    def _attacked(self, number: int, state_directory: str | pathlib.Path | None) -> _Found:
        """What the attacks of a plan find."""
        attacks, threat, found = self.plans[number], self.threats[number], _Found()
        states = state_files(state_directory, attacks)
        smaller = tuple(self.evidence)  # of plans with a smaller epsilon
        for attack, size, state_file in zip(attacks, self.sizes, states, strict=False):
            x, y, clean = self.x[:size], self.y[:size], self.clean[:size]
            result = attack.run(self.measured, x, y, state_file=state_file, **self._options)
            # A second look at what the attack returned.
            seen = predict(self.measured, result.x_adv, self.batch_size).argmax(1)
            if isinstance(attack, FixedBudgetAttack):
                held = clean & ~result.success & (seen == y)
                self.evidence.append(evidence_of(~held, result.distance, clean, attack.epsilon))
                for part in smaller:
                    held = held & ~part.broken(attack.epsilon, size)
                found.outcomes.append(outcome_of(attack, result, held, self.seed))
                found.survivors.append(held)
                found.flags += result.flags
            else:
                left = ops.convert_to_numpy(attack.reference(self.logits[:size], y))
                fooled = result.success & (seen != left)
                found.distances.append(minimum_norm(attack, result, x, fooled, clean, self.seed))
                if threat is not None and attack.norm == threat.norm:
                    broken = fooled & (seen != y)
                    self.evidence.append(evidence_of(broken, result.distance, clean, np.inf))
        return found

    def _checked(self, number: int, found: _Found) -> tuple[Curve | None, list[Check]]:
        """The curve, and the checks of a plan, the attacks' own flags included."""
        measured, x, y, threat = self.measured, self.x, self.y, self.threats[number]
        curve: Curve | None = None
        alone: Sequence[Accuracy] = ()
        if threat is not None and threat.norm in PGD.norms:
            curve, alone = accuracy_curve(measured, x, y, threat, self.evidence, **self._options)
        fixed = [part for part in self.plans[number] if isinstance(part, FixedBudgetAttack)]
        own = run_checks(measured, x, y, self.logits, threat, fixed, curve, alone, **self._options)
        # Ours look at more images than the flags of the same name.
        names = {check.name for check in own}
        return curve, [*own, *(flag for flag in found.flags if flag.name not in names)]

    @property
    def _options(self) -> dict[str, Any]:
        return {"seed": self.seed, "batch_size": self.batch_size, "progress": self.progress}


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
