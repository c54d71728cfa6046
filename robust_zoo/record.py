"""RobustnessRecord: a model's robustness with the evidence for it."""

import dataclasses
import math
import pathlib
from datetime import datetime
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, Field

from robust_zoo.sentences import one_line

SCHEMA_VERSION = 1


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95% Wilson score interval of the proportion correct / n (Wilson, JASA 1927).

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


class RecordError(ValueError):
    """A record that is unreadable or does not belong to the weights."""


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, strict=True
    )


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError(f"an interval must be (low, high), got {interval}")
    return interval


Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Norm = Literal["linf", "l2", "l0"]
Interval = Annotated[tuple[Fraction, Fraction], AfterValidator(_ordered)]


class Accuracy(_Part):
    """A proportion of correct predictions, with its count and its 95% Wilson interval."""

    accuracy: Fraction
    ci95: Interval
    correct: int = Field(ge=0)
    n_examples: int = Field(ge=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self):
        if self.correct > self.n_examples or self.accuracy != self.correct / self.n_examples:
            raise ValueError(
                f"accuracy {self.accuracy} is not {self.correct} correct of {self.n_examples}"
            )
        expected = wilson_interval(self.correct, self.n_examples)
        if not all(
            math.isclose(a, b, abs_tol=1e-9) for a, b in zip(self.ci95, expected, strict=True)
        ):
            raise ValueError(f"ci95 {self.ci95} is not the Wilson interval {expected}")
        return self

    @classmethod
    def count(cls, correct: int, n: int, **more):
        """From counts alone."""
        return cls(
            accuracy=correct / n,
            ci95=wilson_interval(correct, n),
            correct=correct,
            n_examples=n,
            **more,
        )


class AttackOutcome(Accuracy):
    """Accuracy under one attack: correct on the clean image and on every candidate."""

    name: str
    config: dict[str, Any]
    seed: int
    max_distance: float = Field(ge=0)
    seconds: float = Field(ge=0)
    components: dict[str, Fraction] = {}
    """Of an ensemble: the accuracy left after each of its attacks, in their order."""


class WorstCase(Accuracy):
    """Accuracy on the examples that all attacks saw, counting one as wrong if any attack broke it."""

    attacks: tuple[str, ...]


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
    config: dict[str, Any]
    seed: int
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

    `found` is over all examples and, as in the papers, counts misclassified ones by what the attack
    leaves: its own prediction (they have a distance like any other) or the true label (distance 0).
    """

    name: str
    config: dict[str, Any]
    seed: int
    norm: Norm
    n_examples: int = Field(ge=1)
    found: Distances
    clean_correct_only: Distances
    seconds: float = Field(ge=0)


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
    """Shape (height, width, channels) and pixel range of the images."""

    shape: tuple[int | None, ...]
    range: tuple[float, float] = (0.0, 1.0)


class DatasetInfo(_Part):
    """What the model was measured on; `sha256` is that of the sampled images and labels, "" where none was taken."""

    name: str
    version: str
    split: str
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")

    @pydantic.model_serializer(mode="wrap")
    def _without_empty_hash(self, handler):
        return {key: value for key, value in handler(self).items() if key != "sha256" or value}


class DefenseInfo(_Part):
    """How the model was trained, with every hyperparameter."""

    name: str
    config: dict[str, Any] = {}
    paper: str = ""


class ThreatModel(_Part):
    """The ball that the attacks stay in, in [0, 1] pixel units (l0: changed values)."""

    norm: Norm
    epsilon: float = Field(gt=0)


class BaseModel(_Part):
    """The model whose weights fine-tuning started from.

    `handle` is what `load_model` takes, with a hub's commit; empty for one that was not on a hub.
    """

    name: str
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    handle: str = ""


class Training(_Part):
    """Where the weights come from."""

    recipe: str
    commit: str
    epochs: int = Field(ge=0)
    seconds: float = Field(ge=0)
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

    Made by `robust_zoo.evaluate` alone. It belongs to the configuration and the weights whose sha256 it
    carries.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    architecture: str
    parameters: int = Field(ge=0)
    input: Input
    num_classes: int = Field(ge=2)
    dataset: DatasetInfo
    defense: DefenseInfo | None = None
    threat_model: ThreatModel | None = None
    clean: Accuracy
    attacks: tuple[AttackOutcome, ...] = ()
    worst_case: WorstCase | None = None
    minimum_norm: tuple[MinimumNorm, ...] = ()
    curve: Curve | None = None
    checks: tuple[Check, ...] = ()
    reported: tuple[Reported, ...] = ()
    training: Training | None = None
    base_model: BaseModel | None = None
    config: Configuration
    weights: Weights
    versions: dict[str, str]
    license: str = "Apache-2.0"
    created: datetime

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        """The checks that did not pass: the model's numbers are to be doubted."""
        return tuple(check for check in self.checks if check.passed is False)

    def to_json(self) -> str:
        """JSON text, indented, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "record") -> "RobustnessRecord":
        """From JSON text; RecordError names `source` and the first thing that is wrong."""
        try:
            return cls.model_validate_json(text)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the text"
            reason = one_line(f"{where}: {first['msg']}")
            raise RecordError(f"{source} is not a valid record: {reason}.") from None

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "RobustnessRecord":
        """From a robustness.json file."""
        return cls.from_json(pathlib.Path(path).read_bytes(), str(path))
