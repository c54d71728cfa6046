"""RobustnessRecord: a model's robustness with the evidence for it."""

import dataclasses
import hashlib
import itertools
import json
import math
import pathlib
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import pydantic
from pydantic import AfterValidator, Field

from robust_zoo.sentences import html_table, one_line
from robust_zoo.typing import BOUNDS, LICENSE_FORM, SMOOTHING, Precision

SCHEMA_VERSION: Final = 1
TOP5_CLASSES: Final = 100
"""From which on records tell of the five most likely classes."""
LICENSE: Final = "Apache-2.0"
"""Of weights whose license nobody names."""

# What a record may hold at most. Ours have 30 kB, and no text of more than a thousand characters.
LONGEST_NAME = 200
LONGEST_FILE, _LONGEST_TEXT, _MOST_ITEMS = 2**22, 5_000, 10_000
LONGEST_NOTICE = _LONGEST_TEXT
License = Annotated[str, Field(pattern=LICENSE_FORM)]
_LARGEST = 10**15
_MOST_STEPS = 10**6  # of an attack, and restarts
_MOST_VOTES = 10**7  # for an image, of a smoothed classifier


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95% Wilson score interval of the proportion correct / n (Wilson, JASA 1927).

    Args:
        correct: correct predictions, in 0..n.
        n: predictions, >= 1.

    Returns:
        (low, high), both in [0, 1].

    Raises:
        ValueError: counts out of range.

    Example:
        >>> wilson_interval(0, 100)
        (0.0, 0.0369...)
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(
            f"correct and n must satisfy 0 <= correct <= n, n >= 1, got {correct}, {n}."
        )
    z = 1.959963984540054
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the bound is exact; rounding would leave it a hair outside.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return low, high


def data_frame(rows: list[dict[str, Any]]) -> Any:
    """A pandas DataFrame; ImportError, which says what to install, without pandas."""
    try:
        import pandas
    except ImportError:
        raise ImportError(
            "to_frame needs pandas, which is not installed: pip install 'robust-zoo[frames]'."
        ) from None
    return pandas.DataFrame(rows)


def allowed_distance(epsilon: float) -> float:
    """Epsilon with room for the rounding of float32 images: 1e-5 of it, and 1e-7.

    A pixel near 1 is only exact to 6e-8, which matters for the smallest epsilons.
    """
    return epsilon * (1 + 1e-5) + 1e-7


class RecordError(ValueError):
    """A record that is unreadable or does not belong to the weights."""


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, strict=True
    )


class _DuplicateError(ValueError):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise _DuplicateError(f"it has {one_line(twice, 80)!r} twice in one object")
    return found


def _check_plain(values: object) -> None:
    """Raises ValueError for text that is long, or not printable on one line, anywhere in a record."""
    level, items = [values], 0
    while level:
        items += len(level)
        if items > _MOST_ITEMS:
            raise ValueError(f"a record must have at most {_MOST_ITEMS:,} values")
        inside = []
        for node in level:
            if isinstance(node, dict):
                inside += [*node.keys(), *node.values()]
            elif isinstance(node, (list, tuple)):
                inside += node
            elif isinstance(node, str) and (len(node) > _LONGEST_TEXT or not node.isprintable()):
                raise ValueError(
                    f"text must be printable, on one line and of at most {_LONGEST_TEXT:,} characters, got "
                    f"{one_line(node, 80)!r}"
                )
        level = inside


def farthest(norm: str, shape: tuple[int | None, ...]) -> float:
    """The largest distance between two images of a shape; infinite where a side is not fixed."""
    if norm == "linf":
        return 1.0
    sides = [side for side in shape if side is not None]
    if len(sides) < len(shape):
        return math.inf
    values = math.prod(sides)
    return math.sqrt(values) if norm == "l2" else float(values)


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError(f"an interval must be (low, high), got {interval}")
    return interval


def _plain_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of an attack: single values, but for a loss, which has a name and numbers."""
    for key, value in config.items():
        parts = {key: value}
        if key == "loss":
            if not isinstance(value, dict) or not isinstance(value.get("name"), str):
                raise ValueError("loss of an attack must be an object with a name")
            parts = {part: number for part, number in value.items() if part != "name"}
            if not all(isinstance(number, (int, float)) for number in parts.values()):
                raise ValueError("loss of an attack must have numbers besides its name")
        for part, single in parts.items():
            counts = part in ("steps", "restarts", "targets", "samples")
            if counts and (isinstance(single, bool) or not isinstance(single, int)):
                raise ValueError(f"{part} of an attack must be an integer")
            if counts and not 0 <= single <= _MOST_STEPS:
                raise ValueError(
                    f"{part} of an attack must lie in 0..{_MOST_STEPS:,}, got {single}"
                )
            if part == "scale" and isinstance(single, (str, bool)):
                raise ValueError("scale of an attack must be a number")
            if isinstance(single, (dict, list, tuple)):
                raise ValueError(f"{one_line(part, 40)} of an attack must be a single value")
            if isinstance(single, (int, float)) and not abs(single) <= _LARGEST:
                raise ValueError(f"{one_line(part, 40)} of an attack must be at most {_LARGEST:g}")
    return config


Settings = Annotated[dict[str, Any], AfterValidator(_plain_settings)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Norm = Literal["linf", "l2", "l1", "l0"]
Seconds = Annotated[float, Field(ge=0, le=_LARGEST)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
Side = Annotated[int, Field(ge=1, le=_LARGEST)]
Interval = Annotated[tuple[Fraction, Fraction], AfterValidator(_ordered)]


class Accuracy(_Part):
    """A proportion of correct predictions, with its count and its 95% Wilson interval.

    `top5` is the share whose class is among the five most likely, of clean images and of those that an attack ends with;
    only of models of 100 classes and more, and left out of the JSON of others. `expected` is the mean, over the examples, of
    the share of fresh draws in which a random model is right, whose majority decides `correct`: only where attacks average
    over draws of its randomness, and left out elsewhere.
    """

    accuracy: Fraction
    ci95: Interval
    correct: int = Field(ge=0)
    n_examples: int = Field(ge=1, le=_LARGEST)
    top5: Fraction | None = None
    expected: Fraction | None = None

    @pydantic.model_serializer(mode="wrap")
    def _without_what_is_not_measured(
        self, handler: pydantic.SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        usual = (("top5", None), ("expected", None))
        return {key: value for key, value in handler(self).items() if (key, value) not in usual}

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.correct > self.n_examples or self.accuracy != self.correct / self.n_examples:
            raise ValueError(
                f"accuracy {self.accuracy} is not {self.correct} correct of {self.n_examples}"
            )
        if self.top5 is not None and self.top5 < self.accuracy:
            raise ValueError(f"top5 {self.top5} is below the accuracy {self.accuracy}")
        expected = wilson_interval(self.correct, self.n_examples)
        if not all(
            math.isclose(a, b, abs_tol=1e-9) for a, b in zip(self.ci95, expected, strict=True)
        ):
            raise ValueError(f"ci95 {self.ci95} is not the Wilson interval {expected}")
        return self

    @classmethod
    def count(cls, correct: int, n: int, **more: Any) -> Self:
        """From counts alone."""
        return cls(
            accuracy=correct / n,
            ci95=wilson_interval(correct, n),
            correct=correct,
            n_examples=n,
            **more,
        )


class ThreatModel(_Part):
    """The ball that the attacks stay in, in [0, 1] pixel units (l0: changed values)."""

    norm: Norm
    epsilon: float = Field(gt=0)


class AttackOutcome(Accuracy):
    """Accuracy under one attack: correct on the clean image and on every candidate.

    Attributes:
        name: class of the attack.
        config: all of its hyperparameters.
        seed: integer seed for the sample and for all randomness of the attack.
        max_distance: largest distance of its images from the clean ones, in the attack's norm.
        seconds: computing time, summed over tasks.
        components: of an ensemble, the accuracy left after each of its attacks, in their order.
        skipped: how many images it did not attack, since they are certified; left out of the JSON if it is 0.
    """

    name: str
    config: Settings
    seed: Seed
    max_distance: float = Field(ge=0)
    seconds: Seconds
    components: dict[str, Fraction] = {}
    skipped: int = Field(0, ge=0)

    @property
    def threat_model(self) -> ThreatModel:
        """The ball that its configuration names; ValueError if it names none."""
        told = {key: self.config.get(key) for key in ("norm", "epsilon")}
        return ThreatModel.model_validate(told)

    @pydantic.model_serializer(mode="wrap")
    def _without_what_is_not_measured(
        self, handler: pydantic.SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        usual = (("top5", None), ("expected", None), ("skipped", 0))
        return {key: value for key, value in handler(self).items() if (key, value) not in usual}


class SmoothingConfig(_Part):
    """How a classifier was smoothed: see `robust_zoo.Smoothing`."""

    sigma: float = Field(gt=0, le=_LARGEST)
    n0: int = Field(ge=1, le=_MOST_VOTES)
    n: int = Field(ge=1, le=_MOST_VOTES)
    alpha: float = Field(gt=0, lt=1)


class Certified(Accuracy):
    """Accuracy that is proven within a ball, whatever the attack: a lower bound of robust accuracy.

    Attributes:
        methods: what proved it, the better bound of each image: "ibp", "crown-ibp", or "smoothing" alone.
        norm: of the ball.
        epsilon: its radius, 0 for the accuracy of a smoothed classifier.
        smoothing: with which it is about the *smoothed* classifier: sigma, n0, n and alpha, the probability that the proof
            of an image is wrong. None, and left out of the JSON, for bounds, which are certain up to float32's rounding.
        seed: integer seed of the sample and the noise.
        undecided: images whose margin float32 cannot tell from 0, or on which smoothing abstains; not counted as correct.
        seconds: computing time, summed over tasks.
    """

    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    norm: Norm
    epsilon: NonNegative
    smoothing: SmoothingConfig | None = None
    seed: Seed
    undecided: int = Field(ge=0)
    seconds: Seconds

    @pydantic.model_serializer(mode="wrap")
    def _without_what_is_not_measured(
        self, handler: pydantic.SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        told = handler(self)
        return {key: told[key] for key in told if getattr(self, key) is not None}


class WorstCase(Accuracy):
    """Accuracy on the examples that all attacks saw, counting one as wrong if any attack broke it."""

    attacks: tuple[str, ...]


class Union(Accuracy):
    """Accuracy under the worst, for each image, of several threat models, on the examples that all of their attacks saw.

    Attributes:
        threat_models: the record's own first.
        attacks: the outcomes in all others, in their order.
    """

    threat_models: Annotated[tuple[ThreatModel, ...], Field(min_length=2)]
    attacks: Annotated[tuple[AttackOutcome, ...], Field(min_length=1)]


class External(Accuracy):
    """Accuracy on adversarial images that somebody else made, each of which was checked here, on the worst case's examples.

    Attributes:
        source: who made them, and where that is described.
        sha256: of the file with them.
        images: how many of the examples there are images of; the others are the clean ones.
        outside: how many of these lie outside the ball or [0, 1], and count as the clean ones.
        max_distance: largest distance of the others from the clean images, in the threat model's norm.
    """

    source: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    images: int = Field(ge=1)
    outside: int = Field(ge=0)
    max_distance: float = Field(ge=0)


class CurvePoint(Accuracy):
    """Accuracy within a radius: correct on the clean image and on every candidate up to it."""

    epsilon: float = Field(gt=0)


def _ascending(points: tuple[CurvePoint, ...]) -> tuple[CurvePoint, ...]:
    radii = [point.epsilon for point in points]
    if radii != sorted(set(radii)):
        raise ValueError(f"the radii of a curve must ascend, got {radii}")
    return points


class Curve(_Part):
    """Accuracy against epsilon under one attack, in the threat model's norm.

    `config` is the attack at the threat model's epsilon; at the points, epsilon and what follows from it differ.
    """

    name: str
    config: Settings
    seed: Seed
    points: Annotated[tuple[CurvePoint, ...], Field(min_length=1), AfterValidator(_ascending)]


class Distances(_Part):
    """Distances to adversarial examples in some norm; None where there are none to average.

    `rho` is the mean of distance / norm of the image (l0: number of values); black images are left out.
    """

    n_examples: int = Field(ge=0)
    mean: NonNegative | None
    median: NonNegative | None
    rho: NonNegative | None


class MinimumNorm(_Part):
    """The closest adversarial examples that an attack found, each checked by a forward pass.

    `found` averages over all examples on which the attack succeeded, initially misclassified ones included, as in the
    papers: at distance 0 if the attack starts from the true label, at their distance to another class if it starts
    from the predicted one. `clean_correct_only` averages over correctly classified images alone. `seconds` is
    computing time, summed over tasks.
    """

    name: str
    config: Settings
    seed: Seed
    norm: Norm
    n_examples: int = Field(ge=1)
    found: Distances
    clean_correct_only: Distances
    seconds: Seconds


class Corruptions(_Part):
    """Accuracy under common corruptions (Hendrycks and Dietterich, arXiv:1903.12261), of each kind and severity.

    Attributes:
        source: whether images were generated, and by what, or are published files.
        seed: integer seed for the sample and the noise.
        n_examples: images, each of them corrupted in every way.
        severities: of 1 to 5, rising.
        correct: by kind, how many were correct at each severity.
        accuracy: mean over kinds and severities.
        baseline: whose errors `mce` is relative to; empty where there is none.
        mce: mean corruption error, 1 for the baseline itself; None without a baseline.
    """

    source: str
    seed: Seed
    n_examples: int = Field(ge=1, le=_LARGEST)
    severities: Annotated[
        tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1, max_length=5)
    ]
    correct: Annotated[dict[str, tuple[int, ...]], Field(min_length=1)]
    accuracy: Fraction
    baseline: str = ""
    mce: NonNegative | None = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.severities) != sorted(set(self.severities)):
            raise ValueError(f"severities must rise, got {self.severities}")
        for name, counts in self.correct.items():
            fits = all(0 <= count <= self.n_examples for count in counts)
            if len(counts) != len(self.severities) or not fits:
                raise ValueError(
                    f"{one_line(name, 40)} must have {len(self.severities)} counts in 0..{self.n_examples}, got {counts}"
                )
        mean = sum(map(self.accuracy_of, self.correct)) / len(self.correct)
        if not math.isclose(self.accuracy, mean, abs_tol=1e-9):
            raise ValueError(f"accuracy {self.accuracy} is not the mean {mean}")
        if (self.mce is None) != (not self.baseline):
            raise ValueError("mce must be there exactly if there is a baseline")
        return self

    def accuracy_of(self, name: str) -> float:
        """Mean over the severities of one kind."""
        return sum(self.correct[name]) / (len(self.severities) * self.n_examples)


class Check(_Part):
    """Outcome of a check: when it fires, why, and what to do is in `explanation`.

    `passed` is None where the sample was too small to tell.
    """

    name: str
    passed: bool | None
    value: float
    explanation: str


class Reported(_Part):
    """A number that somebody else published."""

    source: str
    setting: str
    accuracy: Fraction


class Input(_Part):
    """Shape (height, width, channels) of the images, sides that are not fixed as None, and their range, always [0, 1]."""

    shape: tuple[Side | None, Side | None, Side | None]
    range: tuple[Annotated[float, Field(ge=0, le=0)], Annotated[float, Field(ge=1, le=1)]] = (
        0.0,
        1.0,
    )


class DatasetInfo(_Part):
    """What the model was measured on.

    `preparation` says how images were resized, "" if they were not; `sha256` is that of the sampled images and labels,
    "" where none was taken.
    """

    name: str
    version: str
    split: str
    preparation: str = ""
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")

    @pydantic.model_serializer(mode="wrap")
    def _without_what_is_empty(
        self, handler: pydantic.SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        optional = ("preparation", "sha256")
        return {key: value for key, value in handler(self).items() if value or key not in optional}


class DefenseInfo(_Part):
    """How the model was trained, with every hyperparameter."""

    name: str
    config: dict[str, Any] = {}
    paper: str = ""


class BaseModelInfo(_Part):
    """The model whose weights fine-tuning started from.

    `handle` is what `load_model` takes, with a hub's commit; empty for one that was not on a hub. `license` and `notice`
    are those of weights of others, which the record of the fine-tuned ones has, too; left out of the JSON if empty.
    """

    name: str
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    handle: str = ""
    license: License | Literal[""] = ""
    notice: str = Field("", max_length=LONGEST_NOTICE)

    @pydantic.model_serializer(mode="wrap")
    def _without_what_is_empty(
        self, handler: pydantic.SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        found = handler(self)
        return {
            key: value for key, value in found.items() if value or key not in ("license", "notice")
        }


class Terms(NamedTuple):
    """On which weights of others may be passed on, for the record of a model with these weights.

    Attributes:
        license: see `RobustnessRecord`.
        notice: see `RobustnessRecord`.
    """

    license: str
    notice: str


class Training(_Part):
    """Where the weights come from.

    `recipe` is the file that trained them, at `commit`; `recipe_sha256` the hash of the checkpoint's recipe.json, which
    has every value and the history, empty where there is none.
    """

    recipe: str
    recipe_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    commit: str
    epochs: int = Field(ge=0, le=_LARGEST)
    seconds: Seconds
    hardware: str
    backend: str
    deviations: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a model in memory was trained with; `classifier.origin` after a defense's `fit`.

    Attributes:
        defense: with every hyperparameter.
        training: epochs, seconds and hardware.
        weights: hash of the weights that it holds for, of `robust_zoo.weights.variables_sha256`.
    """

    defense: DefenseInfo
    training: Training
    weights: str


class Configuration(_Part):
    """The model's configuration: what its weights were measured in."""

    file: Literal["config.json"] = "config.json"
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Weights(_Part):
    """The weights file that everything else in the record was measured on."""

    file: Literal["model.weights.h5"] = "model.weights.h5"
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    dtype: Literal["float32", "float16"]


class RobustnessRecord(_Part):
    """A model's robustness with the evidence for it; frozen, validated, unknown keys refused.

    Only `robust_zoo.evaluate` and `merge` make one. It belongs to the configuration and the weights whose sha256 it
    carries.

    Attributes:
        name: of the model, 1 to 200 characters.
        architecture: its name.
        parameters: number of parameters.
        input: shape and range of the images.
        num_classes: number of classes, >= 2.
        dataset: dataset, version, split and the hash of the sample.
        defense: how it was trained; None for natural training, or if not recorded.
        threat_model: norm and epsilon that all of `attacks` share; None exactly if `attacks` is empty.
        clean: accuracy on the clean images of the whole sample.
        attacks: accuracy under each fixed-budget attack.
        worst_case: accuracy over all of `attacks` together, and not above any of `external`; None exactly if there are
            no attacks.
        external: accuracies on adversarial images that others made, see `challenge`; left out of the JSON if there are
            none.
        minimum_norm: distances that each minimum-norm attack found.
        union: accuracy under the worst of several threat models, of which `threat_model` is the first; left out of the
            JSON if there is one alone.
        certified: accuracies that are proven, on the same sample; left out of the JSON if there are none.
        curve: accuracy against epsilon; None without checks, or without a threat model in a norm of PGD.
        corruptions: accuracy under common corruptions, see `evaluate_corruptions`; left out of the JSON if there is none.
        checks: gradient-masking and other checks; see `failed_checks`.
        reported: numbers that others published.
        training: how, where and how long it was trained; None if not recorded.
        base_model: the model it was fine-tuned from, or None.
        config: hash of the configuration.
        weights: hash, size and dtype of the weights file.
        versions: of robust_zoo, Keras, NumPy and the backend, by package.
        license: of the weights, "Apache-2.0" by default.
        notice: what must go with weights of others wherever they go, whose they are and from where, on one line. The
            file NOTICE of the checkpoint.
        created: time of the measurement, UTC, to the second.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    architecture: str
    parameters: int = Field(ge=0, le=_LARGEST)
    input: Input
    num_classes: int = Field(ge=2, le=_LARGEST)
    dataset: DatasetInfo
    defense: DefenseInfo | None = None
    threat_model: ThreatModel | None = None
    precision: Precision = "float32"
    """Of the attacks' steps; every success is verified in float32. Left out of the JSON if it is float32."""
    clean: Accuracy
    attacks: tuple[AttackOutcome, ...] = ()
    worst_case: WorstCase | None = None
    external: tuple[External, ...] = ()
    minimum_norm: tuple[MinimumNorm, ...] = ()
    union: Union | None = None
    certified: tuple[Certified, ...] = ()
    curve: Curve | None = None
    corruptions: Corruptions | None = None
    checks: tuple[Check, ...] = ()
    reported: tuple[Reported, ...] = ()
    training: Training | None = None
    base_model: BaseModelInfo | None = None
    config: Configuration
    weights: Weights
    versions: dict[str, str]
    license: License = LICENSE
    notice: str = Field("", max_length=LONGEST_NOTICE)
    """Left out of the JSON if it is empty."""
    created: datetime

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> Self:
        """What is said twice, or follows from something else, must fit."""
        _check_plain(self.model_dump())
        for name in (self.name, self.architecture, self.dataset.name):
            if not name.strip() or len(name) > LONGEST_NAME:
                raise ValueError(
                    f"a name must have 1 to {LONGEST_NAME} characters, got {len(name.strip())}"
                )
        if (self.threat_model is None) != (not self.attacks):
            raise ValueError(
                "threat_model must be there exactly if there are attacks with a budget"
            )
        if self.external and not self.attacks:
            raise ValueError("external needs attacks with a budget, whose worst case it lowers")
        if (self.worst_case is None) != (not self.attacks):
            raise ValueError("worst_case must be there exactly if there are attacks with a budget")
        if self.threat_model is not None and self.worst_case is not None:
            self._check_attacks(self.threat_model, self.worst_case)
        for item in self.minimum_norm:
            self._check_distances(item)
        if self.curve is not None:
            self._check_curve(self.curve)
        for proof in self.certified:
            self._check_certified(proof)
        self._check_smoothed(self.smoothed)
        if self.union is not None:
            self._check_union(self.union)
        if len({check.name for check in self.checks}) < len(self.checks):
            raise ValueError("checks must hold each check once")
        if len(self._seeds) > 1:
            raise ValueError("all that is measured must have one seed")
        return self

    @property
    def _seeds(self) -> set[int]:
        measured: tuple[AttackOutcome | MinimumNorm | Certified | Curve, ...] = (
            *self.attacks,
            *self.minimum_norm,
            *self.certified,
            *filter(None, [self.curve]),
            *(self.union.attacks if self.union else ()),
        )
        return {part.seed for part in measured}

    def rows(self) -> list[dict[str, Any]]:
        """Everything that is an accuracy, a row each: plain values by the names of `to_frame`'s columns."""
        threat = self.threat_model
        whole: list[tuple[str, str, Accuracy, ThreatModel | None]] = [
            ("clean", "", self.clean, None)
        ]
        whole += [("attack", part.name, part, threat) for part in self.attacks]
        whole += [("external", part.source, part, threat) for part in self.external]
        if self.worst_case is not None:
            whole.append(("worst case", "", self.worst_case, threat))
        for proof in self.certified:
            ball = ThreatModel(norm=proof.norm, epsilon=proof.epsilon) if proof.epsilon else None
            whole.append(("certified", " and ".join(proof.methods), proof, ball))
        if self.union is not None:
            whole += [("attack", part.name, part, part.threat_model) for part in self.union.attacks]
            whole.append(("union", "", self.union, None))
        if self.curve is not None:
            for point in self.curve.points:
                ball = ThreatModel(norm=threat.norm, epsilon=point.epsilon) if threat else None
                whole.append(("curve", self.curve.name, point, ball))
        return [
            {
                "model": self.name,
                "kind": kind,
                "name": name,
                "norm": ball.norm if ball else None,
                "epsilon": ball.epsilon if ball else None,
                "accuracy": part.accuracy,
                "low": part.ci95[0],
                "high": part.ci95[1],
                "correct": part.correct,
                "n_examples": part.n_examples,
                "settings": json.dumps(getattr(part, "config", {})),
            }
            for kind, name, part, ball in whole
        ]

    def to_frame(self) -> Any:
        """All accuracies as a pandas DataFrame, a row each.

        Columns: model, kind ("clean", "attack", "external", "worst case", "certified", "union" or "curve"), name (of the
        attack, or what proved it), norm, epsilon, accuracy, low and high (the 95% interval), correct, n_examples, and
        settings (JSON, of an attack).

        Raises:
            ImportError: pandas is not installed (extra `frames`).
        """
        return data_frame(self.rows())

    def _repr_html_(self) -> str:
        """The accuracies as a table, for notebooks."""
        rows = [
            (
                f"{row['kind']} {row['name']}".strip(),
                "" if row["norm"] is None else f"{row['norm']} {row['epsilon']:.6g}",
                f"{row['accuracy']:.2%}",
                f"{row['low']:.2%} to {row['high']:.2%}",
                f"{row['n_examples']:,}",
            )
            for row in self.rows()
            if row["kind"] != "curve"
        ]
        failed = [check.name for check in self.failed_checks]
        below = f"failed checks: {', '.join(failed)}" if failed else ""
        headings = ("", "ball", "accuracy", "95% interval", "n")
        return html_table(headings, rows, caption=self.name, below=below)

    @property
    def seed(self) -> int:
        """Integer seed of the sample and of all randomness; 0 where nothing but clean accuracy was measured."""
        return min(self._seeds, default=0)

    def _check_part(self, part: Accuracy, what: str) -> None:
        """The samples are nested, and no attack makes a misclassified image right."""
        clean = self.clean
        if part.n_examples > clean.n_examples or part.correct > clean.correct:
            raise ValueError(
                f"{what} has {part.correct} correct of {part.n_examples}, clean images {clean.correct} of "
                f"{clean.n_examples}"
            )

    def _check_attacks(self, threat: ThreatModel, worst: WorstCase) -> None:
        for outcome in self.attacks:
            self._check_attack(outcome, threat)
            proven = self.certificate.correct if self.certificate else 0
            if outcome.skipped > proven:
                raise ValueError(
                    f"{outcome.name} skipped {outcome.skipped} certified images, but {proven} are certified"
                )
        if worst.attacks != tuple(outcome.name for outcome in self.attacks):
            raise ValueError(f"worst_case is over {worst.attacks}, not over the attacks")
        self._check_worst(worst, (*self.attacks, *self.external), "worst_case")
        hashes = [part.sha256 for part in self.external]
        if len(set(hashes)) < len(hashes):
            raise ValueError("external must hold each file once")
        for part in self.external:
            if part.outside > part.images or part.images > part.n_examples:
                raise ValueError(
                    f"external has {part.outside} images outside of {part.images}, of {part.n_examples} examples"
                )
            if part.max_distance > allowed_distance(threat.epsilon):
                raise ValueError(
                    f"external has max_distance {part.max_distance:g} in a ball of {threat.epsilon:g}"
                )
            self._check_part(part, "external")

    def _check_union(self, union: Union) -> None:
        first, *others = union.threat_models
        if first != self.threat_model or len(set(union.threat_models)) < len(union.threat_models):
            raise ValueError("union must be over different threat models, the record's own first")
        measured = [part.threat_model for part in union.attacks]
        expected = [
            (threat, type_of.name, type_of.n_examples)
            for threat in others
            for type_of in self.attacks
        ]
        found = [
            (threat, part.name, part.n_examples)
            for threat, part in zip(measured, union.attacks, strict=True)
        ]
        if found != expected:
            raise ValueError(
                "union must have the record's own attacks, in each other threat model in turn"
            )
        for outcome, threat in zip(union.attacks, measured, strict=True):
            self._check_attack(outcome, threat)
            if outcome.skipped:
                raise ValueError(f"{outcome.name} skipped images in a ball that nothing certifies")
        self._check_worst(union, (*self.attacks, *self.external, *union.attacks), "union")
        worst = self.worst_case
        if worst and union.correct > worst.correct + max(0, union.n_examples - worst.n_examples):
            raise ValueError(f"union has {union.correct} correct, worst_case {worst.correct}")

    def _check_attack(self, outcome: AttackOutcome, threat: ThreatModel) -> None:
        limit = farthest(threat.norm, self.input.shape)
        if threat.epsilon > limit:
            raise ValueError(
                f"threat_model has epsilon {threat.epsilon:g}, but no image is farther than {limit:g}"
            )
        self._check_part(outcome, outcome.name)
        for key in ("norm", "epsilon"):
            if outcome.config.get(key) != getattr(threat, key):
                raise ValueError(
                    f"{outcome.name} has {key} {outcome.config.get(key)!r}, threat_model "
                    f"{getattr(threat, key)!r}"
                )
        left = [1.0, *outcome.components.values()]
        if left != sorted(left, reverse=True) or left[-1] < outcome.accuracy:
            raise ValueError(
                f"{outcome.name} leaves {outcome.accuracy:.4f}, but its components {outcome.components}"
            )
        if outcome.skipped > outcome.correct:
            raise ValueError(
                f"{outcome.name} skipped {outcome.skipped} certified images, but left {outcome.correct}"
            )
        if outcome.max_distance > allowed_distance(threat.epsilon):
            raise ValueError(
                f"{outcome.name} has max_distance {outcome.max_distance:g} in a ball of {threat.epsilon:g}"
            )

    @staticmethod
    def _check_worst(worst: Accuracy, attacks: tuple[Accuracy, ...], what: str) -> None:
        """An accuracy over all of some attacks."""
        if worst.n_examples != min(outcome.n_examples for outcome in attacks):
            raise ValueError(f"{what} must be over the examples that all attacks saw")
        most = min(outcome.correct for outcome in attacks)
        broken = sum(outcome.n_examples - outcome.correct for outcome in attacks)
        if not worst.n_examples - broken <= worst.correct <= most:
            raise ValueError(
                f"{what} has {worst.correct} correct of {worst.n_examples}, but the attacks leave at most "
                f"{most} and break at most {broken}"
            )

    def _check_distances(self, item: MinimumNorm) -> None:
        limit = farthest(item.norm, self.input.shape) * (1 + 1e-5)
        if not item.clean_correct_only.n_examples <= item.found.n_examples <= item.n_examples:
            raise ValueError(
                f"{item.name} found {item.found.n_examples} of {item.n_examples} examples, "
                f"{item.clean_correct_only.n_examples} of them for images classified correctly"
            )
        if item.n_examples > self.clean.n_examples:
            raise ValueError(f"{item.name} has more examples than clean accuracy")
        if item.config.get("norm", item.norm) != item.norm:
            raise ValueError(
                f"{item.name} has norm {item.norm!r}, but {item.config['norm']!r} in its config"
            )
        if item.clean_correct_only.n_examples > self.clean.correct:
            raise ValueError(f"{item.name} has more images classified correctly than there are")
        for part in (item.found, item.clean_correct_only):
            if any((value is None) != (not part.n_examples) for value in (part.mean, part.median)):
                raise ValueError(
                    f"{item.name} must have a mean and a median exactly if it found any"
                )
            if any(value is not None and value > limit for value in (part.mean, part.median)):
                raise ValueError(
                    f"{item.name} has distances beyond {limit:g}, farther than any image"
                )

    def _check_curve(self, curve: Curve) -> None:
        points, threat = curve.points, self.threat_model
        if threat is None:
            raise ValueError("curve needs a threat_model")
        if not self.checks:
            raise ValueError("curve is there, but not the checks that are made with it")
        for key in ("norm", "epsilon"):
            if curve.config.get(key) != getattr(threat, key):
                raise ValueError(
                    f"curve has {key} {curve.config.get(key)!r}, threat_model {getattr(threat, key)!r}"
                )
        if points[-1].epsilon > max(farthest(threat.norm, self.input.shape), threat.epsilon):
            raise ValueError(f"curve goes on to {points[-1].epsilon:g}, farther than any image")
        for point in points:
            self._check_part(point, f"the curve at epsilon {point.epsilon:g}")
        if len({point.n_examples for point in points}) > 1 or any(
            later.correct > earlier.correct for earlier, later in itertools.pairwise(points)
        ):
            raise ValueError("curve must fall, on one sample")
        if self.worst_case is not None:
            self._check_broken(curve, threat, self.worst_case)

    def _check_broken(self, curve: Curve, threat: ThreatModel, worst: WorstCase) -> None:
        """What the attacks broke is broken in every larger ball; the smaller sample is part of the larger."""
        for point in curve.points:
            most = worst.correct + max(0, point.n_examples - worst.n_examples)
            if point.epsilon >= threat.epsilon and point.correct > most:
                raise ValueError(
                    f"curve has {point.correct} correct of {point.n_examples} at epsilon {point.epsilon:g}, but "
                    f"worst_case {worst.correct} of {worst.n_examples} at {threat.epsilon:g}"
                )

    def _check_certified(self, proof: Certified) -> None:
        """What is proven is not broken: of smoothed classifiers only the sample is compared, since no attack was on them."""
        what = f"certified ({', '.join(proof.methods)}) at {proof.norm} {proof.epsilon:g}"
        if proof.n_examples > self.clean.n_examples:
            raise ValueError(f"{what} has more examples than clean accuracy")
        if proof.correct + proof.undecided > proof.n_examples:
            raise ValueError(
                f"{what} has {proof.correct} correct and {proof.undecided} undecided of {proof.n_examples}"
            )
        if proof.smoothing is not None:
            if proof.methods != (SMOOTHING,) or proof.norm != "l2":
                raise ValueError(f"{what} must be by {SMOOTHING} alone, in the norm l2")
            return
        if self.threat_model is None or (proof.norm, proof.epsilon) != (
            self.threat_model.norm,
            self.threat_model.epsilon,
        ):
            raise ValueError(f"{what} must be within the threat model")
        if not set(proof.methods) <= set(BOUNDS) or len(set(proof.methods)) < len(proof.methods):
            raise ValueError(
                f"{what} must be by {SMOOTHING}, or by some of {', '.join(BOUNDS)}, each once"
            )
        self._check_part(proof, what)
        upper: list[tuple[str, float, Accuracy]] = []
        if self.threat_model is not None and self.threat_model.norm == proof.norm:
            epsilon = self.threat_model.epsilon
            parts = (*self.attacks, *self.external, *filter(None, [self.worst_case]))
            upper += [(type(part).__name__, epsilon, part) for part in parts]
            points = self.curve.points if self.curve else ()
            upper += [(f"the curve at {point.epsilon:g}", point.epsilon, point) for point in points]
        for name, epsilon, part in upper:
            outside = max(0, proof.n_examples - part.n_examples)
            if epsilon <= proof.epsilon and proof.correct - outside > part.correct:
                raise ValueError(
                    f"{what} has {proof.correct} correct of {proof.n_examples}, but {name} leaves {part.correct} of "
                    f"{part.n_examples}"
                )

    def _check_smoothed(self, proofs: tuple[Certified, ...]) -> None:
        """One smoothing, whose certified accuracy falls with the radius; what is about the model itself comes first."""
        bounds = filter(None, [self.certificate])
        if self.certified != (*bounds, *proofs):
            raise ValueError(
                "certified must have at most one proof by bounds, before those by smoothing"
            )
        if len({(proof.smoothing, proof.n_examples, proof.undecided) for proof in proofs}) > 1:
            raise ValueError("certified must have one smoothing, on the same images")
        for inner, outer in itertools.pairwise(proofs):
            if not inner.epsilon < outer.epsilon or inner.correct < outer.correct:
                raise ValueError("certified by smoothing must fall with radii that rise")

    @property
    def certificate(self) -> Certified | None:
        """What bounds `worst_case` from below, by bounds within the threat model; None if there is none."""
        return next((proof for proof in self.certified if proof.smoothing is None), None)

    @property
    def smoothed(self) -> tuple[Certified, ...]:
        """What is certified of the smoothed classifier, by rising radius."""
        return tuple(proof for proof in self.certified if proof.smoothing is not None)

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        """The checks that did not pass: the model's numbers are to be doubted."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of `to_json()`: what a pinned handle names the record by."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @pydantic.model_serializer(mode="wrap")
    def _usual_left_out(self, told: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = {
            "precision": "float32",
            "notice": "",
            "external": (),
            "union": None,
            "certified": (),
            "corruptions": None,
        }
        return {
            key: value
            for key, value in told(self).items()
            if key not in usual or getattr(self, key) != usual[key]
        }

    def to_json(self) -> str:
        """JSON text, indented, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "record") -> "RobustnessRecord":
        """From JSON text; RecordError names `source` and the first thing that is wrong."""
        if len(text) > LONGEST_FILE:
            raise RecordError(
                f"{source} is not a valid record: it is longer than {LONGEST_FILE:,} bytes."
            )
        try:
            # Of a key that is there twice, parsers take either.
            json.loads(text, object_pairs_hook=_without_duplicates)
            return cls.model_validate_json(text)
        except (_DuplicateError, RecursionError) as error:
            raise RecordError(f"{source} is not a valid record: {error}.") from None
        except UnicodeDecodeError:
            raise RecordError(f"{source} is not a valid record: it is not UTF-8 text.") from None
        except json.JSONDecodeError as error:
            raise RecordError(f"{source} is not a valid record: {one_line(error)}.") from None
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the text"
            reason = one_line(f"{where}: {first['msg']}")
            raise RecordError(f"{source} is not a valid record: {reason}.") from None

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "RobustnessRecord":
        """Reads a record from a robustness.json file.

        Raises:
            RecordError: not a valid record; the message names the file and the first thing that is wrong.
            OSError: a file that cannot be read.
        """
        with open(path, "rb") as file:
            return cls.from_json(file.read(LONGEST_FILE + 1), str(path))
