"""How attacks, numbers and threat models are put in words, in cards, tables and pictures alike."""

from dataclasses import dataclass
from typing import Protocol

from robust_zoo.attack_names import DEFAULTS
from robust_zoo.record import (
    Accuracy,
    AttackOutcome,
    Certified,
    Curve,
    DatasetInfo,
    MinimumNorm,
    RobustnessRecord,
    ThreatModel,
    WorstCase,
)

FAILED = "failed"
_VERDICTS = {True: "passed", False: FAILED, None: "too few examples to tell"}  # of checks


@dataclass(frozen=True)
class Metric:
    """An accuracy of a record.

    Attributes:
        name: in words.
        attack: the attack's class, "" on clean images, "worst case" of all attacks, "external" on others' images, "certified" where it is proven, and
            "union" in the worst case of several threat models.
        found: the accuracy with its interval and n.
        threat: of the attack, None for the record's own, and for all others than attacks.
    """

    name: str
    attack: str
    found: Accuracy
    threat: ThreatModel | None = None


def accuracy_of(part: Accuracy) -> str:
    """In percent, with that of the five most likely classes, and that expected of a random model, where measured."""
    top5 = "" if part.top5 is None else f" (top 5: {percent(part.top5)})"
    expected = "" if part.expected is None else f" (expected: {percent(part.expected)})"
    return f"{percent(part.accuracy)}{top5}{expected}"


def accuracies(record: RobustnessRecord) -> list[Metric]:
    """Every accuracy of the model in a record: clean, under each attack, in the worst case, and certified."""
    found = [Metric("clean", "", record.clean)]
    found += [Metric(describe_attack(part), part.name, part) for part in record.attacks]
    found += [Metric(f"images of {part.source}", "external", part) for part in record.external]
    if record.worst_case is not None:
        found.append(Metric("worst case of all attacks", "worst case", record.worst_case))
    if record.certificate is not None:
        proven = describe_certified(record.certificate)
        found.append(Metric(f"{proven}, whatever the attack", "certified", record.certificate))
    if record.union is not None:
        for part in record.union.attacks:
            name = f"{describe_attack(part)} ({describe_ball(part.threat_model)})"
            found.append(Metric(name, part.name, part, part.threat_model))
        balls = ", ".join(map(describe_ball, record.union.threat_models))
        found.append(Metric(f"worst of {balls}", "union", record.union))
    return found


def describe_certified(proof: Certified) -> str:
    """By what it is certified."""
    settings = ""
    if proof.smoothing is not None:
        told = (f"{name} {value:,}" for name, value in proof.smoothing)
        settings = f" ({', '.join(told)})"
    return f"certified by {' and '.join(proof.methods)}{settings}"


def bracket(part: WorstCase | None, proof: Certified | None) -> str:
    """Worst-case accuracy in percent; with a certificate from what is proven to what the attacks leave."""
    if part is None:
        return ""
    return (
        f"{percent(proof.accuracy)} to {percent(part.accuracy)}"
        if proof
        else percent(part.accuracy)
    )


def corruption_rows(record: RobustnessRecord) -> list[tuple[str, ...]]:
    """Accuracy of each kind of corruption at each severity, and the mean; then of all kinds."""
    found = record.corruptions
    if found is None:
        return []
    rows = [
        (
            name.replace("_", " "),
            *(percent(count / found.n_examples) for count in counts),
            percent(found.accuracy_of(name)),
        )
        for name, counts in found.correct.items()
    ]
    together = (sum(counts) for counts in zip(*found.correct.values(), strict=True))
    whole = found.n_examples * len(found.correct)
    return [
        *rows,
        ("all", *(percent(count / whole) for count in together), percent(found.accuracy)),
    ]


def corruption_heading(record: RobustnessRecord) -> str:
    """What `corruption_rows` are of; "" where there are none."""
    found = record.corruptions
    if found is None:
        return ""
    mce = ""
    if found.mce is not None:
        mce = f"; mean corruption error {percent(found.mce)} of that of {found.baseline}"
    return f"{found.source}, {found.n_examples:,} images of each{mce}"


def smoothing_rows(record: RobustnessRecord) -> list[tuple[str, ...]]:
    """Radius, accuracy, interval and n of the smoothed classifier, for each radius."""
    return [
        (f"{proof.epsilon:.4g}", percent(proof.accuracy), interval(proof), str(proof.n_examples))
        for proof in record.smoothed
    ]


def smoothing_heading(record: RobustnessRecord) -> str:
    """What `smoothing_rows` are of, with the images on which it abstains; "" where there are none."""
    if not record.smoothed:
        return ""
    proof = record.smoothed[0]
    return f"smoothed classifier, {describe_certified(proof)}, abstains on {proof.undecided}"


def facts(record: RobustnessRecord) -> list[tuple[str, str]]:
    """What a record says of the model and of how it was measured, each with its heading."""
    defense, dataset, base = record.defense, record.dataset, record.base_model
    paper = f" ({defense.paper})" if defense and defense.paper else ""
    rows = [
        ("architecture", f"{record.architecture}, {record.parameters:,} parameters"),
        ("defense", describe_defense(record) + paper),
        ("threat model", describe_threat(record)),
        ("measured on", describe_dataset(dataset)),
        ("weights", f"{record.weights.dtype}, sha256 {record.weights.sha256}"),
        ("license", record.license),
    ]
    if record.notice:
        rows.append(("notice", record.notice))
    if record.precision != "float32":
        rows.append(("steps of attacks", f"{record.precision}, successes verified in float32"))
    if base is not None:
        handle = f" ({base.handle})" if base.handle else ""
        rows.append(
            ("fine-tuned from", f"{base.name}{handle}, weights sha256 {base.weights_sha256}")
        )
    return rows


def describe_dataset(dataset: DatasetInfo) -> str:
    """Name, version and split, and how images were resized."""
    told = f"{dataset.name} {dataset.version}".strip()
    prepared = f", {dataset.preparation}" if dataset.preparation else ""
    return f"{told}, split {dataset.split}{prepared}"


def check_rows(record: RobustnessRecord) -> list[tuple[str, str, str, str]]:
    """Name, verdict, value and explanation of each check."""
    return [
        (check.name, _VERDICTS[check.passed], f"{check.value:.6g}", check.explanation)
        for check in record.checks
    ]


def describe_defense(record: RobustnessRecord) -> str:
    """The defense's name; a model that a recipe trained without one was trained naturally."""
    if record.defense is not None:
        return record.defense.name
    return "not recorded" if record.training is None else "none (natural training)"


def percent(accuracy: float) -> str:
    return f"{100 * accuracy:.2f}%"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def interval(part: Accuracy) -> str:
    low, high = part.ci95
    return f"{100 * low:.2f} to {100 * high:.2f}"


class _Attack(Protocol):
    def get_config(self) -> dict: ...


def describe_attack(outcome: AttackOutcome | MinimumNorm | Curve | _Attack) -> str:
    """A short unambiguous name, such as "PGD-100 x 20, cw_margin", of an attack or of what it found."""
    if isinstance(outcome, (AttackOutcome, MinimumNorm, Curve)):
        name, config = outcome.name, outcome.config
    else:
        name, config = type(outcome).__name__, outcome.get_config()
    text = name
    if config.get("steps", 1) != 1:
        text += f"-{config['steps']}"
    if config.get("restarts", 1) != 1:
        text += f" x {config['restarts']}"
    loss = dict(config.get("loss", {"name": "cross_entropy"}))
    if loss["name"] != "cross_entropy":
        text += f", {loss.pop('name')}" + "".join(f" {value:g}" for value in loss.values())
    if config.get("targets"):
        text += f", {config['targets']} targets"
    if "random_start" in config and not config["random_start"]:
        text += ", no random start"
    if config.get("scale") is not None:
        text += f", scale {config['scale']:g}"
    defaults = DEFAULTS.get(name, {})
    usual = defaults.get("labels")
    if config.get("labels", usual) != usual:
        text += f", {config['labels']} labels"
    for key, default in defaults.items():
        if key != "labels" and config.get(key, default) != default:
            value = config[key]
            text += (
                f", {key.replace('_', ' ')} {value:g}" if _is_number(value) else f", {key} {value}"
            )
    if config.get("samples", 1) != 1:
        text += f", mean of {config['samples']} draws"
    return text


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def distance_rows(record: RobustnessRecord) -> list[tuple[str, ...]]:
    """Attack, norm, found, mean, median and rho: over all examples, then over the clean-correct."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    rows = []
    for item in record.minimum_norm:
        kinds = ((item.found, ""), (item.clean_correct_only, ", clean-correct only"))
        for part, which in kinds:
            rows.append(
                (
                    describe_attack(item) + which,
                    item.norm,
                    f"{part.n_examples} of {item.n_examples}",
                    *map(cell, (part.mean, part.median, part.rho)),
                )
            )
    return rows


class _Measured(Protocol):
    @property
    def threat_model(self) -> ThreatModel | None: ...


def describe_threat(record: _Measured) -> str:
    threat = record.threat_model
    return f"{threat.norm}, epsilon {threat.epsilon:.6g}" if threat else "none"


def describe_ball(threat: ThreatModel) -> str:
    return f"{threat.norm} {threat.epsilon:.6g}"
