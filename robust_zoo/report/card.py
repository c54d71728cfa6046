"""Model cards: text and pictures generated from records, never made by hand."""

import json
import pathlib
import re
import shlex
from collections.abc import Iterable
from typing import Any

import pydantic

from robust_zoo.describe import (
    FAILED,
    accuracies,
    accuracy_of,
    bracket,
    check_rows,
    corruption_heading,
    corruption_rows,
    describe_attack,
    describe_ball,
    describe_certified,
    describe_threat,
    distance_rows,
    duration,
    facts,
    interval,
    percent,
    smoothing_rows,
)
from robust_zoo.files import write_text
from robust_zoo.places import CARD, PICTURE, RECIPE, TAG
from robust_zoo.record import AttackOutcome, Certified, RobustnessRecord, Union
from robust_zoo.report.citations import bibtex, own_bibtex
from robust_zoo.report.plots import accuracy_against_epsilon, is_picture_of
from robust_zoo.sentences import in_markdown, one_line

# What the hub calls a dataset of TFDS.
_ON_THE_HUB = {
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "svhn_cropped": "ufldl-stanford/svhn",
    "imagenet2012": "ILSVRC/imagenet-1k",
}


def write_card(directory: pathlib.Path, record: RobustnessRecord, handle: str = "") -> None:
    """Writes the card of a checkpoint directory, and its picture if the record has a curve.

    Args:
        directory: that the record lies in.
        record: of the model.
        handle: where it is published, for the lines that load it; empty for a directory.
    """
    recipe = (directory / RECIPE).is_file()
    write_text(directory / CARD, model_card(record, handle=handle, recipe=recipe))
    if record.curve is None:
        (directory / PICTURE).unlink(missing_ok=True)
    elif not is_picture_of([record], directory / PICTURE):
        accuracy_against_epsilon([record], directory / PICTURE)


def _shown(part: Any) -> Any:
    """A record, or a part of one, whose texts are made fit for Markdown."""
    if isinstance(part, str):
        return in_markdown(part)
    if isinstance(part, pydantic.BaseModel):
        fields = {name: _shown(getattr(part, name)) for name in type(part).model_fields}
        return part.model_copy(update=fields)
    if isinstance(part, dict):
        return {_shown(key): _shown(value) for key, value in part.items()}
    return tuple(map(_shown, part)) if isinstance(part, tuple) else part


def _table(header: str, rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table; columns of `header` are separated by "|"."""
    columns = header.split("|")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _results(record: RobustnessRecord) -> list[str]:
    """Every accuracy, with what others reported beside it."""
    reported: dict[str, str] = {}
    for item in record.reported:
        others = f"{reported[item.setting]}, " if item.setting in reported else ""
        reported[item.setting] = others + percent(item.accuracy)
    failed = [check.name for check in record.failed_checks]
    rows = []
    for metric in accuracies(record):
        part, name = metric.found, metric.name
        distance = f"{part.max_distance:.6g}" if isinstance(part, AttackOutcome) else ""
        together = part is record.worst_case or part is record.union
        title = f"**{name}, per example**" if together else name
        row = [title, accuracy_of(part), interval(part), str(part.n_examples), distance]
        rows.append([*row, reported.pop(name, "")])
    rows += [
        [f"{setting} (not measured here)", "", "", "", "", theirs]
        for setting, theirs in reported.items()
    ]
    header = "attack|accuracy|95% interval|n|largest distance|reported"
    if not record.reported:
        header, rows = header.removesuffix("|reported"), [row[:-1] for row in rows]
    lines = _table(header, rows)
    if record.reported:
        sources = sorted({item.source for item in record.reported})
        lines += ["", f"The reported numbers are those of {'; '.join(sources)}."]
    for outcome in record.attacks:
        if outcome.skipped:
            lines += [
                "",
                f"{describe_attack(outcome)} did not attack {outcome.skipped} images, which are certified.",
            ]
        if outcome.components:
            left = ", ".join(
                f"{percent(accuracy)} after {component}"
                for component, accuracy in outcome.components.items()
            )
            lines += ["", f"{describe_attack(outcome)} left {left}."]
    if failed:
        lines += [
            "",
            f"**Flagged**: {', '.join(failed)} failed; see the checks below before trusting these numbers.",
        ]
    return lines


def _smoothed(record: RobustnessRecord) -> list[str]:
    if not record.smoothed:
        return []
    rows, proof = smoothing_rows(record), record.smoothed[0]
    return [
        "",
        "## Under Gaussian noise",
        "",
        *_table("l2 radius|certified accuracy|95% interval|n", rows),
        "",
        f"Of the smoothed classifier, {describe_certified(proof)}; it abstains on {proof.undecided} of {proof.n_examples} "
        "images. Each certificate is wrong with probability at most alpha. The numbers above are of the model without noise.",
    ]


def _corruptions(record: RobustnessRecord) -> list[str]:
    if record.corruptions is None:
        return []
    levels = "|".join(f"severity {level}" for level in record.corruptions.severities)
    return [
        "",
        "## Under common corruptions",
        "",
        *_table(f"corruption|{levels}|mean", corruption_rows(record)),
        "",
        f"Accuracy; corrupted images: {corruption_heading(record)}.",
    ]


def _distances(record: RobustnessRecord) -> list[str]:
    if not record.minimum_norm:
        return []
    lines = [
        "",
        "## Closest adversarial examples",
        "",
        *_table("attack|norm|found|mean distance|median|rho", distance_rows(record)),
    ]
    return [
        *lines,
        "",
        "Distances in [0, 1] pixel units of the examples found; rho is the mean of distance / norm of the image.",
    ]


def _metadata(record: RobustnessRecord) -> str:
    """The front matter, as hubs read it."""
    from huggingface_hub import ModelCardData  # imported here: it takes a while

    tags = [TAG, "adversarial-robustness"]
    tags += [record.threat_model.norm] if record.threat_model else []
    data = ModelCardData(
        library_name="keras",
        pipeline_tag="image-classification",
        license=record.license.lower(),
        datasets=[_ON_THE_HUB.get(_dataset(record), _dataset(record))],
        tags=tags,
        model_name=record.name,
        eval_results=_eval_results(record),
        **_lineage(record),
    )
    return data.to_yaml()


def _eval_results(record: RobustnessRecord) -> list:
    from huggingface_hub import EvalResult  # imported here: it takes a while

    def result(kind: str, name: str, value: float, **arguments: Any) -> EvalResult:
        return EvalResult(
            task_type="image-classification",
            dataset_type=_ON_THE_HUB.get(_dataset(record), _dataset(record)),
            dataset_name=record.dataset.name,
            dataset_split=record.dataset.split,
            metric_type=kind,
            metric_name=name,
            metric_value=value,
            metric_args=arguments,
        )

    threat, results = record.threat_model, []
    budget: dict[str, Any]
    for metric in accuracies(record):
        part = metric.found
        if threat is None or not metric.attack:
            name, kind, budget = "clean accuracy", "accuracy", {}
        elif isinstance(part, Union):
            name, kind = f"robust accuracy, {metric.name}", "robust_accuracy"
            budget = {"threat_models": ", ".join(map(describe_ball, part.threat_models))}
        elif isinstance(part, Certified):
            name, kind = "certified accuracy", "certified_accuracy"
            budget = {"method": ", ".join(part.methods), "norm": part.norm, "epsilon": part.epsilon}
        else:
            name, kind = f"robust accuracy, {metric.name}", "robust_accuracy"
            ball = metric.threat or threat
            budget = {"attack": metric.attack, "norm": ball.norm, "epsilon": ball.epsilon}
        results.append(result(kind, name, part.accuracy, **budget, n_examples=part.n_examples))
    for item in record.minimum_norm:
        right = item.clean_correct_only
        if right.mean is not None:
            name = f"mean {item.norm} distance of clean-correct examples, {describe_attack(item)}"
            about = {"attack": item.name, "norm": item.norm, "n_examples": right.n_examples}
            results.append(result("mean_adversarial_distance", name, right.mean, **about))
    return results


def _lineage(record: RobustnessRecord) -> dict[str, Any]:
    """The base model by its repository on the hub, which takes nothing else; one that is on none, in a field of ours."""
    if record.base_model is None:
        return {}
    repository = re.match(r"hf://([\w.-]+/[\w.-]+)(?=[@#]|$)", record.base_model.handle)
    if repository:
        return {"base_model": repository[1], "base_model_relation": "finetune"}
    return {"finetuned_from": one_line(record.base_model.name)}


def _dataset(record: RobustnessRecord) -> str:
    """Its name without configuration and classes."""
    return record.dataset.name.partition("/")[0].partition(":")[0]


def _purpose(record: RobustnessRecord) -> list[str]:
    dataset, threat = record.dataset.name, record.threat_model
    if threat is None:
        within = "Its robustness was not measured."
    else:
        within = (
            f"The numbers hold for perturbations within {threat.norm} distance {threat.epsilon:.6g} of images like "
            f"those of {dataset}, by an adversary who knows the model and its weights. Nothing is claimed about "
            "other norms, larger perturbations, rotations, corruptions or photographs."
        )
    proof = record.certificate
    below = (
        f", {percent(proof.accuracy)} of {proof.n_examples} images a proven lower one"
        if proof
        else ""
    )
    return [
        "",
        "## Purpose",
        "",
        f"For research and teaching on robustness: a baseline to attack, to compare defenses with, and to fine-tune. "
        f"{within}",
        "",
        "Not for decisions that matter: accuracy under the attacks tried here is an upper bound of what a better "
        f"attack would leave{below}.",
    ]


def _checks(record: RobustnessRecord) -> list[str]:
    if not record.checks:
        return []
    rows = [
        (name, f"**{verdict}**" if verdict == FAILED else verdict, value, explanation)
        for name, verdict, value, explanation in check_rows(record)
    ]
    return ["", "## Gradient-masking checks", "", *_table("check||value|", rows)]


def _training(record: RobustnessRecord, recipe: bool) -> list[str]:
    training = record.training
    if training is None:
        return []
    if not training.recipe:
        return [
            "",
            "## Training",
            "",
            f"{training.epochs} epochs and {training.seconds:.0f} s on {training.hardware} ({training.backend}), without a "
            "recipe.",
        ]
    shipped = training.recipe.startswith("training/recipes/")
    trained_by = shlex.quote(record.name if shipped else training.recipe)
    command = f"robust-zoo train {trained_by}"
    values = f"; {RECIPE} has every value that took part" if recipe else ""
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    lines = [
        "",
        "## Reproduce",
        "",
        f"`{command}` trains and measures it{values}. These weights took {training.epochs} epochs and "
        f"{training.seconds:.0f} s on {training.hardware} ({training.backend}), at commit "
        f"{training.commit or 'unknown'} of robust_zoo; measured with {versions}.",
    ]
    if training.deviations:
        lines += ["", "Deviations from the paper:", ""]
        lines += [f"- {deviation}" for deviation in training.deviations]
    return lines


def _use(record: RobustnessRecord, handle: str) -> list[str]:
    if handle.startswith("hf://"):
        target, where, keras_target = handle, "", f'"{handle}"'
    elif handle:
        target, where, keras_target = handle, "", "directory"
    else:
        target, where, keras_target = record.name, "  # or this directory", "directory"
    return [
        "",
        "## Use",
        "",
        "```python",
        "import robust_zoo as rz",
        "",
        f"model = rz.load_model({json.dumps(target, ensure_ascii=False)}){where}",
        "model.robustness  # this record",
        "```",
        "",
        "It takes float32 images in [0, 1] and returns logits. Without robust_zoo: "
        f"`keras.saving.load_model({keras_target})`.",
        "",
    ]


def _citation(record: RobustnessRecord) -> list[str]:
    entries = [bibtex(record.defense.paper) if record.defense else "", own_bibtex()]
    return ["## Citation", "", "```bibtex", "\n\n".join(filter(None, entries)), "```", ""]


def model_card(record: RobustnessRecord, *, handle: str = "", recipe: bool = False) -> str:
    """The README.md of a checkpoint directory: Markdown with YAML front matter.

    Args:
        record: all that it says.
        handle: where it is published, as `load_model` takes it; empty for a directory.
        recipe: whether the directory has recipe.json.
    """
    metadata, record = _metadata(record), _shown(record)
    shape = " x ".join(str(side) for side in record.input.shape)
    picture = ["", f"![accuracy against epsilon]({PICTURE})"] if record.curve else []
    lines = [
        "---",
        metadata.strip(),
        "---",
        "",
        f"# {record.name}",
        "",
        "Generated from robustness.json; do not edit.",
        "",
        f"Classifier of {shape} images in [0, 1] into {record.num_classes} classes; the outputs are logits.",
        "",
        *_table("|", facts(record)),
        *_purpose(record),
        "",
        "## Robustness",
        "",
        *_results(record),
        "",
        "Accuracy counts an example if it is classified correctly on the clean image and on every candidate "
        "of the attack.",
        *picture,
        *_smoothed(record),
        *_corruptions(record),
        *_distances(record),
        *_checks(record),
        *_training(record, recipe),
        *_use(record, handle),
        *_citation(record),
    ]
    return "\n".join(lines)


def _union(record: RobustnessRecord) -> str:
    """Accuracy in the worst of several threat models, and which they are."""
    if record.union is None:
        return ""
    balls = ", ".join(map(describe_ball, record.union.threat_models))
    return f"{percent(record.union.accuracy)} ({balls})"


def readme_table(records: Iterable[RobustnessRecord]) -> str:
    """The table of the README: clean accuracy, AutoAttack, and the lowest number that others reported.

    Names are starred where a check failed.
    """
    rows = []
    for record in map(_shown, records):
        found = [outcome for outcome in record.attacks if outcome.name == "AutoAttack"]
        cell = f"{percent(found[0].accuracy)} ({interval(found[0])})" if found else ""
        lowest = min(record.reported, key=lambda item: item.accuracy, default=None)
        paper = f"{percent(lowest.accuracy)}, {lowest.setting} ({lowest.source})" if lowest else ""
        star = "\\*" if record.failed_checks else ""
        name = f"[{record.name}](checkpoints/{record.name}/README.md){star}"
        threat = describe_threat(record)
        rows.append((name, threat, percent(record.clean.accuracy), cell, paper))
    header = "model|threat model|clean|AutoAttack, 95% interval|reported for it"
    return "\n".join(_table(header, rows)) + "\n"


def costs_table(records: Iterable[RobustnessRecord]) -> str:
    """The table of training/README.md: how long training and the attacks took, where there is a recipe."""
    rows = []
    for record in map(_shown, records):
        if record.training is None:
            continue
        attacks = sum(part.seconds for part in (*record.attacks, *record.minimum_norm))
        times = (duration(record.training.seconds), duration(attacks))
        rows.append((f"`{record.name}`", *times, record.training.hardware))
    return "\n".join(_table("recipe|training|attacks|hardware", rows)) + "\n"


def zoo_table(records: Iterable[RobustnessRecord]) -> str:
    """MODEL_CARDS.md: one row a model."""
    lines = [
        "# Model cards",
        "",
        "Generated by `robust-zoo cards` from `checkpoints/*/robustness.json`; do not edit. Each name links to",
        "the model's own card; n is the number of examples that all attacks saw; the mean distance is that of",
        "the closest adversarial examples found for clean-correct images, with how many of the images these are:",
        "where they are few, they are the easiest. Where a lower bound is proven, the worst case is given from that",
        "bound to what the attacks leave. The union is the worst, for each image, of several threat models.",
        "",
        "| model | dataset | threat model | clean | worst case of attacks | 95% interval | n | attacks | "
        "union | mean distance | checks |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in map(_shown, records):
        worst = record.worst_case
        robust = (
            (bracket(worst, record.certificate), interval(worst), str(worst.n_examples))
            if worst
            else ("", "", "")
        )
        attacks = ", ".join(describe_attack(outcome) for outcome in record.attacks)
        distances = ", ".join(
            f"{describe_attack(item)} {item.norm} {item.clean_correct_only.mean:.3g} "
            f"({item.clean_correct_only.n_examples} of {item.n_examples})"
            for item in record.minimum_norm
            if item.clean_correct_only.mean is not None
        )
        failed = [check.name for check in record.failed_checks]
        passed = sum(check.passed is True for check in record.checks)
        flags = f"failed: {', '.join(failed)}" if failed else f"{passed} passed"
        lines.append(
            f"| [{record.name}](checkpoints/{record.name}/README.md) | {record.dataset.name} | "
            f"{describe_threat(record)} | {percent(record.clean.accuracy)} | {' | '.join(robust)} | "
            f"{attacks} | {_union(record)} | {distances} | {flags} |"
        )
    return "\n".join(lines) + "\n"
