"""What is to be measured, and on what: refused here, before anything runs, if it does not fit."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self, cast

import keras
import numpy as np
import pydantic

from robust_zoo import __version__
from robust_zoo.attacks import APGD, Attack, FixedBudgetAttack
from robust_zoo.attacks.registry import class_of
from robust_zoo.certification import Certificates, Smoothing, check_rules
from robust_zoo.classifier import describe_config
from robust_zoo.contract import (
    check_batch_size,
    check_classifier,
    check_images,
    check_labels,
    check_precision,
)
from robust_zoo.copies import in_float32
from robust_zoo.datasets import (
    Dataset,
    Examples,
    StoredDataset,
    arrays_dataset,
    collect,
    open_dataset,
)
from robust_zoo.describe import describe_ball
from robust_zoo.evaluation.checks import N_EXAMPLES as _CHECKED
from robust_zoo.evaluation.curve import N_EXAMPLES as _ON_CURVE
from robust_zoo.evaluation.outcomes import carried_by, defense_info
from robust_zoo.record import (
    LICENSE,
    LONGEST_FILE,
    LONGEST_NAME,
    LONGEST_NOTICE,
    BaseModelInfo,
    Configuration,
    DatasetInfo,
    DefenseInfo,
    Input,
    License,
    Norm,
    Reported,
    Settings,
    ThreatModel,
    Training,
    Weights,
    farthest,
)
from robust_zoo.sentences import one_line
from robust_zoo.typing import BOUNDS, LICENSE_FORM, Precision
from robust_zoo.weights import describe_weights

TASK_SIZE = 256  # images in a task
_MOST_TASKS = 1_000_000


class Task(NamedTuple):
    """A unit of work of an evaluation: one kind of measurement on consecutive rows of the sample.

    Attributes:
        number: its place among the plan's tasks.
        kind: "clean" (predictions), "certified" (by bounds), "smoothed" (by noise), "attack", "flags" (of an attack),
            "curve" (accuracy against epsilon) or "checks".
        attack: index of the attack in the plan; -1 for tasks of other kinds.
        first: first row of the sample.
        last: row after the last.
    """

    number: int
    kind: Literal["clean", "certified", "smoothed", "attack", "flags", "curve", "checks"]
    attack: int
    first: int
    last: int


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class PlannedAttack(_Part):
    """An attack of a plan, as records describe it, on how many examples, and how many of these its flags look at."""

    name: str
    config: Settings
    n: int = pydantic.Field(ge=1)
    flagged: int = pydantic.Field(0, ge=0)
    own: bool = True
    """Whether it is one of those that were given, not the same in a further threat model."""


class PlannedSmoothing(_Part):
    """A `Smoothing` of a plan, on how many images."""

    config: Settings
    radii: tuple[float, ...]
    n: int = pydantic.Field(ge=1)

    def smoothing(self) -> Smoothing:
        """As it was given; ValueError for settings out of range."""
        return Smoothing(**self.config, images=self.n, radii=self.radii)


class Bound(NamedTuple):
    """What a plan is about, in this process."""

    model: keras.Model  # in float32
    sample: Examples
    attacks: tuple[Attack, ...]
    certificates: dict[tuple[int, int], Certificates]  # found so far, by first and last row

    def examples(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of some rows of the sample, checked."""
        part = self.sample.take(slice(first, last))
        x = check_images(part.images, self.model)
        return x, check_labels(part.labels, self.model.output_shape[1], len(x))


class EvaluationPlan(_Part):
    """All that a record depends on: model, sample, attacks and seed, and the tasks that it is measured in.

    Made by `plan_evaluation`. As JSON it goes to other machines, where `bind` gives it the model and the data.
    The tasks are the same wherever they are measured, and so is every number.
    """

    schema_version: Literal[1] = 1
    version: str = __version__
    handle: str = ""
    """How the command line finds the model, and how `as_classifier` is to take it."""
    form: dict[str, Any] = {}
    source: str = ""
    """How it finds the data, by their name if it is empty."""
    name: str
    architecture: str
    parameters: int
    input: Input
    num_classes: int
    dataset: DatasetInfo
    n: int = pydantic.Field(ge=1)
    attacks: tuple[PlannedAttack, ...] = ()
    threat_model: ThreatModel | None = None
    further_threats: tuple[ThreatModel, ...] = ()
    """Those of attacks that are outside `threat_model`, for the record's union."""
    seed: int = 0
    batch_size: int = 128
    precision: Precision = "float32"
    task_size: int = pydantic.Field(TASK_SIZE, ge=1)
    checks: bool = True
    certify: tuple[str, ...] = ()
    skip_certified: bool = False
    smoothing: PlannedSmoothing | None = None
    config: Configuration
    weights: Weights
    defense: DefenseInfo | None = None
    reported: tuple[Reported, ...] = ()
    training: Training | None = None
    base_model: BaseModelInfo | None = None
    license: License = LICENSE
    notice: str = ""

    @pydantic.model_validator(mode="after")
    def _bounded(self) -> Self:
        kinds = 2 * len(self.attacks) + 5
        if max([self.n, *(attack.n for attack in self.attacks)]) > self.n:
            raise ValueError("an attack must not have more examples than n")
        if self.smoothing is not None and self.smoothing.n > self.n:
            raise ValueError("smoothing must not have more images than n")
        if kinds * (self.n / self.task_size + 1) > _MOST_TASKS:
            raise ValueError(f"there must be at most {_MOST_TASKS:,} tasks")
        return self

    @property
    def samples(self) -> int:
        """Over how many draws of a random model's randomness its attacks average at most."""
        return max((int(attack.config.get("samples", 1)) for attack in self.attacks), default=1)

    _bound: Bound | None = pydantic.PrivateAttr(None)
    _trusted: bool = pydantic.PrivateAttr(False)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, in their order."""
        parts: list[tuple[Any, int, int]] = [("clean", -1, self.n)]
        if self.certify:
            parts.append(("certified", -1, self.n))
        if self.smoothing is not None:
            parts.append(("smoothed", -1, self.smoothing.n))
        parts += [("attack", place, attack.n) for place, attack in enumerate(self.attacks)]
        if self.checks and self.has_curve:
            parts.append(("curve", -1, min(_ON_CURVE, self.n)))
        spans = [
            (kind, attack, first, min(first + self.task_size, n))
            for kind, attack, n in parts
            for first in range(0, n, self.task_size)
        ]
        for place, attack in enumerate(self.attacks):
            if attack.flagged:
                spans.append(("flags", place, 0, min(attack.flagged, attack.n)))
        if self.checks:
            spans.append(("checks", -1, 0, min(_CHECKED, self.n)))
        return tuple(Task(number, *span) for number, span in enumerate(spans))

    @property
    def has_curve(self) -> bool:
        """Whether there is a threat model whose norm PGD or APGD has."""
        return self.threat_model is not None and self.threat_model.norm in APGD.norms

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of all that a record depends on; the batch size, which at most rounds distances, is not."""
        told = self.model_dump(
            mode="json",
            include={
                "version", "dataset", "n", "attacks", "seed", "precision", "task_size", "checks", "certify", "further_threats",
                "skip_certified", "smoothing", "config", "weights",
            },
        )  # fmt: skip
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """JSON text, indented, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "plan") -> Self:
        """From JSON text; ValueError names `source` and the first thing that is wrong."""
        if len(text) > LONGEST_FILE:
            raise ValueError(
                f"{source} is not a valid plan: it is longer than {LONGEST_FILE:,} bytes."
            )
        try:
            return cls.model_validate_json(text)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "it"
            raise ValueError(
                f"{source} is not a valid plan: {one_line(place)}: {one_line(first['msg'])}."
            ) from None

    def bind(self, model: keras.Model, data: Examples) -> Self:
        """Attaches the model and the data in this process, so that `measure` can run tasks.

        Args:
            model: the classifier that the plan was made for, or another copy of it.
            data: the split that the plan was made for.

        Returns:
            A bound copy of the plan.

        Raises:
            TypeError, ValueError: another model, other data, another version of robust_zoo, or an attack that is not
                available.
        """
        if self.version != __version__:
            raise ValueError(
                f"plan was made by robust_zoo {self.version}, and this is {__version__}: use one version."
            )
        measured = in_float32(check_classifier(model))
        self.check_model(measured)
        sample = data.sample(min(self.n, len(data)), self.seed)
        if sample.sha256 != self.dataset.sha256:
            raise ValueError(
                f"data must be the plan's, {one_line(self.dataset.name)!r} whose sample has the sha256 "
                f"{self.dataset.sha256[:12]}, got {one_line(data.name)!r} with {sample.sha256[:12]}."
            )
        attacks = tuple(attack_of_record(part.name, part.config) for part in self.attacks)
        return self.with_bound(_bound_to(measured, sample, attacks))

    def check_model(self, model: keras.Model) -> None:
        """Raises ValueError unless a float32 model has the plan's layers and weights."""
        weights = describe_weights(model)
        if (weights.sha256, describe_config(model)) != (self.weights.sha256, self.config):
            raise ValueError(
                f"model must be the plan's, {self.name!r} with weights {self.weights.sha256[:12]}, got {model.name!r} "
                f"with {weights.sha256[:12]}."
            )

    def with_bound(self, bound: Bound) -> Self:
        """The plan with what it is about, which is known to be right."""
        plan = self.model_copy()
        plan._bound, plan._trusted = bound, False
        return plan

    def trust_once(self, check: Callable[[], None]) -> None:
        """Calls `check`, which raises an error for a model that cannot be measured, unless it has passed before."""
        if not self._trusted:
            check()
            self._trusted = True

    @property
    def bound(self) -> Bound:
        """Model, sample and attacks of this process; ValueError if the plan is not bound."""
        if self._bound is None:
            raise ValueError(
                "plan must have its model and data: give it them by plan.bind(model, data)."
            )
        return self._bound


def plan_evaluation(
    model: keras.Model,
    data: "Examples | str | tuple[np.ndarray, np.ndarray] | Any",
    *,
    attacks: Sequence[Attack] = (),
    dataset: str | None = None,
    n: "int | Sequence[int | None] | None" = None,
    seed: int = 0,
    batch_size: int = 128,
    precision: Precision = "float32",
    task_size: int = TASK_SIZE,
    checks: bool = True,
    certify: Sequence[str] = (),
    skip_certified: bool = False,
    smoothing: Smoothing | None = None,
    threat_models: Sequence[ThreatModel] = (),
    name: str | None = None,
    architecture: str | None = None,
    defense: "DefenseInfo | Any | None" = None,
    reported: Sequence[Reported] = (),
    training: Training | None = None,
    base_model: BaseModelInfo | None = None,
    license: str | None = None,
    notice: str = "",
) -> EvaluationPlan:
    """What `evaluate` measures, without measuring it: for many processes or machines.

    Args:
        model: see `evaluate`, as for all others.
        data: see `evaluate`.
        attacks: see `evaluate`.
        dataset: see `evaluate`.
        n: see `evaluate`.
        seed: see `evaluate`.
        batch_size: images in a batch.
        precision: see `evaluate`.
        task_size: images in a task, 256 by default.
        checks: see `evaluate`.
        certify: see `evaluate`.
        skip_certified: see `evaluate`.
        smoothing: see `evaluate`.
        threat_models: see `evaluate`.
        name: see `evaluate`.
        architecture: see `evaluate`.
        defense: see `evaluate`.
        reported: see `evaluate`.
        training: see `evaluate`.
        base_model: see `evaluate`.
        license: see `evaluate`.
        notice: see `evaluate`.

    Returns:
        The plan, bound to the model and the data. `measure(plan, task)` measures each of `plan.tasks`, anywhere, and
        `merge(plan, parts)` makes the record.

    Raises:
        TypeError, ValueError: as `evaluate`.

    Example:
        >>> plan = plan_evaluation(model, "digits", attacks=[PGD(epsilon=0.1, steps=5)], n=300)
        >>> record = merge(plan, [measure(plan, task) for task in plan.tasks])
        >>> record.clean.n_examples, len(plan.tasks)
        (300, 7)
    """
    check_classifier(model)
    attacks = (attacks,) if isinstance(attacks, Attack) else tuple(attacks)
    threat = threat_model(attacks)
    if len(draws := {attack.samples for attack in attacks}) > 1:
        raise ValueError(
            f"attacks must all average over as many draws, by whose majority images are classified, got samples "
            f"{', '.join(map(str, sorted(draws)))}: EOT(attack, samples) sets it."
        )
    whole = isinstance(task_size, Integral) and not isinstance(task_size, bool)
    if not whole or task_size < 1:
        raise ValueError(f"task_size must be an integer >= 1, got {task_size!r}.")
    check_batch_size(batch_size)
    check_precision(precision)
    data = as_dataset(data, model, dataset, n)
    sizes = sample_sizes(n, len(attacks), len(data))
    own = len(attacks)
    further = _further_threats(threat_models, threat, model.input_shape[1:])
    places = [place for place, part in enumerate(attacks) if isinstance(part, FixedBudgetAttack)]
    for other in further:
        attacks += tuple(_within(attacks[place], other) for place in places)
        sizes += [sizes[place] for place in places]
    sample = data.sample(max(sizes), seed)
    measured = in_float32(model)
    bound = _bound_to(measured, sample, attacks)
    for attack in attacks:
        attack.check_model(measured)
    certify = _checked_certify(certify, skip_certified, threat, measured)
    config, weights = describe_config(measured), describe_weights(measured)
    carried = carried_by(model, config, weights)
    name = name or carried.get("name", model.name)
    architecture = architecture or carried.get("architecture", model.name)
    for argument, text in {
        "name": name,
        "architecture": architecture,
        "dataset": sample.name,
    }.items():
        if not text.isprintable() or len(text) > LONGEST_NAME:
            raise ValueError(
                f"{argument} must be one line of text of at most {LONGEST_NAME} characters, got {one_line(text)!r}."
            )
    base = base_model or carried["base_model"]
    if license is None:
        license = carried.get("license") or (base.license if base else "") or LICENSE
    notice = notice or carried.get("notice", "") or (base.notice if base else "")
    if not re.fullmatch(LICENSE_FORM, license):
        raise ValueError(
            f"license must be an SPDX identifier such as 'MIT', got {one_line(license)!r}."
        )
    if not notice.isprintable() or len(notice) > LONGEST_NOTICE:
        raise ValueError(
            f"notice must be one line of text of at most {LONGEST_NOTICE} characters, got {one_line(notice)!r}."
        )
    plan = EvaluationPlan(
        name=name,
        architecture=architecture,
        parameters=model.count_params(),
        input=Input(shape=model.input_shape[1:]),
        num_classes=model.output_shape[1],
        dataset=DatasetInfo(
            name=sample.name,
            version=sample.version,
            split=sample.split,
            preparation=sample.preparation,
            sha256=sample.sha256,
        ),
        n=len(sample),
        attacks=tuple(
            PlannedAttack(
                name=type(attack).__name__,
                config=attack.get_config(),
                n=size,
                flagged=attack.flagged if number < own else 0,
                own=number < own,
            )
            for number, (attack, size) in enumerate(zip(attacks, sizes, strict=False))
        ),
        threat_model=threat,
        further_threats=further,
        seed=int(seed),
        batch_size=int(batch_size),
        precision=precision,
        task_size=int(task_size),
        checks=checks,
        certify=certify,
        skip_certified=skip_certified,
        smoothing=_planned_smoothing(smoothing, len(sample)),
        config=config,
        weights=weights,
        defense=defense_info(defense, model) or carried.get("defense"),
        reported=tuple(reported) or carried.get("reported", ()),
        training=training or carried.get("training"),
        base_model=base,
        license=license,
        notice=notice,
    )
    return plan.with_bound(bound)


def _bound_to(measured: keras.Model, sample: Examples, attacks: tuple[Attack, ...]) -> Bound:
    bound = Bound(measured, sample, attacks, {})
    bound.examples(0, len(sample) if isinstance(sample, Dataset) else 1)
    return bound


def _further_threats(
    threat_models: Sequence[ThreatModel],
    first: ThreatModel | None,
    shape: tuple[int | None, ...],
) -> tuple[ThreatModel, ...]:
    """Those besides the attacks' own, which may be among them."""
    for threat in threat_models:
        if not isinstance(threat, ThreatModel):
            raise TypeError(
                f"threat_models must be robust_zoo.record.ThreatModels, got {one_line(repr(threat))}."
            )
    if threat_models and first is None:
        raise ValueError(
            "threat_models needs attacks with a budget, which are made in each of them."
        )
    further = tuple(threat for threat in threat_models if threat != first)
    if len(set(further)) < len(further):
        told = ", ".join(map(describe_ball, threat_models))
        raise ValueError(f"threat_models must be different, got {told}.")
    for threat in further:
        if threat.epsilon > farthest(threat.norm, shape):
            raise ValueError(
                f"threat_models must not be larger than {threat.norm} {farthest(threat.norm, shape):g}, which holds every "
                f"image, got {describe_ball(threat)}."
            )
    return further


def _within(attack: Attack, threat: ThreatModel) -> Attack:
    """The attack in another ball, its step size in proportion; ValueError if it does not have the norm."""
    assert isinstance(attack, FixedBudgetAttack)  # others are in no ball
    if threat.norm not in attack.norms:
        raise ValueError(
            f"threat_models must have a norm of each attack with a budget: {type(attack).__name__} has "
            f"{', '.join(attack.norms)}, got {threat.norm!r}."
        )
    return attack.within(threat.epsilon, threat.norm)


def _checked_certify(
    methods: Sequence[str], skip: bool, threat: ThreatModel | None, model: keras.Model
) -> tuple[str, ...]:
    if isinstance(methods, str):
        raise TypeError(
            f"certify must be a sequence of methods, such as ({methods!r},), got a str."
        )
    methods = tuple(methods)
    if not set(methods) <= set(BOUNDS) or len(set(methods)) < len(methods):
        raise ValueError(f"certify must be some of {BOUNDS}, each once, got {methods}.")
    if skip and not methods:
        raise ValueError(f"skip_certified needs certify: give some of {BOUNDS}.")
    if methods and (threat is None or threat.norm != "linf"):
        found = f"of norm {threat.norm!r}" if threat else "of no attack with a budget"
        raise ValueError(
            f"certify is for the linf ball of the attacks, got attacks {found}: give an attack with norm 'linf'."
        )
    if methods:
        check_rules(model)
    return methods


def _planned_smoothing(smoothing: Smoothing | None, available: int) -> PlannedSmoothing | None:
    if smoothing is None:
        return None
    if not isinstance(smoothing, Smoothing):
        raise TypeError(f"smoothing must be a robust_zoo.Smoothing, got {smoothing!r}.")
    assert smoothing.radii is not None  # it has made some
    return PlannedSmoothing(
        config=smoothing.get_config(),
        radii=tuple(smoothing.radii),
        n=min(smoothing.images, available),
    )


def attack_of_record(name: str, config: dict[str, Any]) -> Attack:
    """The attack that a record or a plan describes; ValueError if it cannot be made."""
    try:
        kind = class_of(name)
        if kind is None:
            raise TypeError("it is none of robust_zoo's or of an installed package's")
        return kind.from_config(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"attack {name!r} of the record cannot be made again: {error}") from None


def threat_model(attacks: tuple[Attack, ...]) -> ThreatModel | None:
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
    if not budgets:
        return None
    norm, epsilon = budgets[0]
    return ThreatModel(norm=cast(Norm, norm), epsilon=epsilon)


def check_rising(threats: Sequence[ThreatModel | None]) -> None:
    known = [threat for threat in threats if threat is not None]
    if len(known) < len(threats) or len({threat.norm for threat in known}) > 1:
        raise ValueError(
            f"plans must each have attacks with a budget, all of one norm, got {threats}."
        )
    radii = [threat.epsilon for threat in known]
    if radii != sorted(set(radii)):
        raise ValueError(f"plans must have rising epsilons, got {radii}.")


def as_dataset(
    data: Any, model: keras.Model, name: str | None, n: int | Sequence[int | None] | None
) -> Examples:
    if name is not None and isinstance(data, (Dataset, StoredDataset, str)):
        raise ValueError(
            f"dataset names arrays and streams, but the data have a name already, got {name!r}."
        )
    shape, classes = model.input_shape[1:], model.output_shape[1]
    if isinstance(data, (Dataset, StoredDataset, str)):
        loaded = open_dataset(data, image_shape=shape) if isinstance(data, str) else data
        names = loaded.class_names
        # An .npz file without names has as many classes as its largest label says.
        if len(names) > classes or (loaded.preparation and len(names) != classes):
            raise ValueError(
                f"data must have as many classes as the model, {classes}, {loaded.name!r} has {len(names)}: "
                f"{one_line(', '.join(names))}. Of a folder, an empty subfolder keeps the place of a class."
            )
        return loaded
    if isinstance(data, (tuple, list)) and len(data) == 2:
        images = check_images(data[0], model)
        labels = check_labels(data[1], classes, len(images))
        return arrays_dataset(images, labels, classes, name or "arrays")
    if isinstance(data, keras.utils.PyDataset) or hasattr(data, "element_spec"):
        most = (
            None
            if n is None or (isinstance(n, Sequence) and None in n)
            else int(np.max(cast("int | Sequence[int]", n)))
        )
        images, labels = collect(data, most)
        labels = check_labels(labels, classes, len(images))
        return arrays_dataset(check_images(images, model), labels, classes, name or "stream")
    raise TypeError(
        "data must be a Dataset, a name, (images, labels), a tf.data.Dataset or a PyDataset, got "
        f"{type(data).__name__}."
    )


def sample_sizes(n: int | Sequence[int | None] | None, attacks: int, available: int) -> list[int]:
    if not isinstance(n, Sequence):
        sizes = [n] * max(attacks, 1)
    else:
        sizes = list(n)
        if len(sizes) != max(attacks, 1):
            raise ValueError(
                f"n must be one number or one for each of {attacks} attacks, got {n!r}."
            )
    numbers = [available if size is None else size for size in sizes]
    for size in numbers:
        whole = isinstance(size, Integral) and not isinstance(size, bool)
        if not (whole and 1 <= size <= available):
            raise ValueError(f"n must be integers in 1..{available}, the examples, got {n!r}.")
    return [int(size) for size in numbers]
