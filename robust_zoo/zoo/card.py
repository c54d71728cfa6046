"""Model cards: text generated from records, never written by hand."""

import dataclasses
from collections.abc import Iterable

from robust_zoo import attacks
from robust_zoo.record import Accuracy, AttackOutcome, MinimumNorm, RobustnessRecord


def percent(accuracy: float) -> str:
    return f"{100 * accuracy:.2f}%"


def interval(part: Accuracy) -> str:
    low, high = part.ci95
    return f"{100 * low:.2f} to {100 * high:.2f}"


def describe_attack(outcome: AttackOutcome | MinimumNorm) -> str:
    """A short unambiguous name, such as "PGD-100 x 20, cw_margin"."""
    config = outcome.config
    text = outcome.name
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
    defaults = _defaults(outcome.name)
    usual = defaults.get("labels")
    if config.get("labels", usual) != usual:
        text += f", {config['labels']} labels"
    for name, default in defaults.items():
        if name not in _TOLD and default is not None and config.get(name, default) != default:
            value = config[name]
            text += (
                f", {name.replace('_', ' ')} {value:g}"
                if _is_number(value)
                else f", {name} {value}"
            )
    return text


# Said in another way, or by the threat model; step sizes follow from the other numbers where not given.
_TOLD = (
    "epsilon",
    "norm",
    "steps",
    "restarts",
    "loss",
    "targets",
    "random_start",
    "scale",
    "labels",
)
_TOLD += ("targeted", "step_size")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _defaults(name: str) -> dict:
    """The default hyperparameters of an attack of this library; empty for any other."""
    kind = getattr(attacks, name, None)
    if not dataclasses.is_dataclass(kind):
        return {}
    fields = dataclasses.fields(kind)
    return {
        field.name: field.default for field in fields if field.default is not dataclasses.MISSING
    }


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


def describe_threat(record: RobustnessRecord) -> str:
    threat = record.threat_model
    return f"{threat.norm}, epsilon {threat.epsilon:.6g}" if threat else "none"


def _results(record: RobustnessRecord) -> list[str]:
    rows = [("clean", record.clean, "")]
    for outcome in record.attacks:
        rows.append((describe_attack(outcome), outcome, f"{outcome.max_distance:.6g}"))
    if record.worst_case is not None:
        rows.append(("**worst case of all attacks, per example**", record.worst_case, ""))
    lines = ["| attack | accuracy | 95% interval | n | largest distance |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {percent(part.accuracy)} | {interval(part)} | {part.n_examples} | {distance} |"
        for name, part, distance in rows
    ]
    for outcome in record.attacks:
        if outcome.components:
            left = ", ".join(
                f"{percent(accuracy)} after {component}"
                for component, accuracy in outcome.components.items()
            )
            lines += ["", f"{describe_attack(outcome)} left {left}."]
    return lines


def _distances(record: RobustnessRecord) -> list[str]:
    if not record.minimum_norm:
        return []
    lines = [
        "",
        "## Closest adversarial examples",
        "",
        "| attack | norm | found | mean distance | median | rho |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in distance_rows(record)]
    return [
        *lines,
        "",
        "Distances in [0, 1] pixel units of the examples found; rho is the mean of distance / norm of the image.",
    ]


def _metadata(record: RobustnessRecord) -> str:
    from huggingface_hub import EvalResult, ModelCardData  # imported here: it takes a while

    dataset = {
        "task_type": "image-classification",
        "dataset_type": record.dataset.name,
        "dataset_name": record.dataset.name,
        "dataset_split": record.dataset.split,
    }
    results = [
        EvalResult(
            **dataset,
            metric_type="accuracy",
            metric_name="clean accuracy",
            metric_value=record.clean.accuracy,
            metric_args={"n_examples": record.clean.n_examples},
        )
    ]
    for outcome in record.attacks:
        results.append(
            EvalResult(
                **dataset,
                metric_type="robust_accuracy",
                metric_name=f"robust accuracy, {describe_attack(outcome)}",
                metric_value=outcome.accuracy,
                metric_args={
                    "attack": outcome.name,
                    "norm": record.threat_model.norm,
                    "epsilon": record.threat_model.epsilon,
                    "n_examples": outcome.n_examples,
                },
            )
        )
    for item in record.minimum_norm:
        if item.clean_correct_only.mean is not None:
            results.append(
                EvalResult(
                    **dataset,
                    metric_type="mean_adversarial_distance",
                    metric_name=f"mean {item.norm} distance of clean-correct examples, {describe_attack(item)}",
                    metric_value=item.clean_correct_only.mean,
                    metric_args={
                        "attack": item.name,
                        "norm": item.norm,
                        "n_examples": item.clean_correct_only.n_examples,
                    },
                )
            )
    tags = ["robust_zoo", "adversarial-robustness"]
    tags += [record.threat_model.norm] if record.threat_model else []
    data = ModelCardData(
        library_name="keras",
        pipeline_tag="image-classification",
        license=record.license.lower(),
        datasets=[record.dataset.name],
        tags=tags,
        model_name=record.name,
        eval_results=results,
    )
    return data.to_yaml()


def model_card(record: RobustnessRecord) -> str:
    """The README.md of a checkpoint directory: Markdown with YAML front matter."""
    shape = " x ".join(str(side) for side in record.input.shape)
    defense = record.defense.name if record.defense else "none (natural training)"
    paper = f" ({record.defense.paper})" if record.defense and record.defense.paper else ""
    lines = [
        "---",
        _metadata(record).strip(),
        "---",
        "",
        f"# {record.name}",
        "",
        "Generated from robustness.json; do not edit.",
        "",
        f"Classifier of {shape} images in [0, 1] into {record.num_classes} classes; the outputs are logits.",
        "",
        "| | |",
        "|---|---|",
        f"| architecture | {record.architecture}, {record.parameters:,} parameters |",
        f"| defense | {defense}{paper} |",
        f"| threat model | {describe_threat(record)} |",
        f"| measured on | {record.dataset.name} {record.dataset.version}, split {record.dataset.split} |",
        f"| weights | {record.weights.dtype}, sha256 {record.weights.sha256} |",
        f"| license | {record.license} |",
        "",
        "## Robustness",
        "",
        *_results(record),
        "",
        "Accuracy counts an example if it is classified correctly on the clean image and on every candidate "
        "of the attack. Nothing is claimed beyond this threat model.",
        *_distances(record),
    ]
    if record.checks:
        lines += [
            "",
            "## Gradient-masking checks",
            "",
            "| check | | value | |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {check.name} | {'passed' if check.passed else '**failed**'} | {check.value:.6g} | "
            f"{check.explanation} |"
            for check in record.checks
        ]
    if record.reported:
        lines += [
            "",
            "## Reported elsewhere",
            "",
            "| source | setting | accuracy |",
            "|---|---|---|",
        ]
        lines += [
            f"| {item.source} | {item.setting} | {percent(item.accuracy)} |"
            for item in record.reported
        ]
    if record.training:
        training = record.training
        lines += [
            "",
            "## Training",
            "",
            f"`robust-zoo train {training.recipe}`, {training.epochs} epochs in {training.seconds:.0f} s on "
            f"{training.hardware} ({training.backend}), at commit {training.commit or 'unknown'}.",
        ]
        if training.deviations:
            lines += ["", "Deviations from the paper:", ""]
            lines += [f"- {deviation}" for deviation in training.deviations]
    lines += [
        "",
        "## Use",
        "",
        "```python",
        "import robust_zoo as rz",
        "",
        f'model = rz.load_model("{record.name}")  # or this directory',
        "model.robustness  # this record",
        "```",
        "",
        "Without robust_zoo: `keras.saving.load_model(directory)`.",
        "",
    ]
    return "\n".join(lines)


def zoo_table(records: Iterable[RobustnessRecord]) -> str:
    """MODEL_CARDS.md: one row a model."""
    lines = [
        "# Model cards",
        "",
        "Generated by `robust-zoo cards` from `checkpoints/*/robustness.json`; do not edit. Each name links to",
        "the model's own card; n is the number of examples that all attacks saw; the mean distance is that of",
        "the closest adversarial examples found for clean-correct images.",
        "",
        "| model | dataset | threat model | clean | worst case of attacks | 95% interval | n | attacks | "
        "mean distance | checks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        worst = record.worst_case
        robust = (
            (percent(worst.accuracy), interval(worst), str(worst.n_examples))
            if worst
            else ("", "", "")
        )
        attacks = ", ".join(describe_attack(outcome) for outcome in record.attacks)
        distances = ", ".join(
            f"{describe_attack(item)} {item.norm} {item.clean_correct_only.mean:.3g}"
            for item in record.minimum_norm
            if item.clean_correct_only.mean is not None
        )
        failed = [check.name for check in record.checks if not check.passed]
        flags = f"failed: {', '.join(failed)}" if failed else f"{len(record.checks)} passed"
        lines.append(
            f"| [{record.name}](checkpoints/{record.name}/README.md) | {record.dataset.name} | "
            f"{describe_threat(record)} | {percent(record.clean.accuracy)} | {' | '.join(robust)} | "
            f"{attacks} | {distances} | {flags} |"
        )
    return "\n".join(lines) + "\n"
