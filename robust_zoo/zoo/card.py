"""Model cards: text and pictures generated from records, never made by hand."""

import json
import pathlib
import re
import shlex
from collections.abc import Iterable

import pydantic

from robust_zoo.citations import bibtex, own_bibtex
from robust_zoo.describe import (
    VERDICTS,
    describe_attack,
    describe_defense,
    describe_threat,
    distance_rows,
    interval,
    percent,
)
from robust_zoo.files import write_text
from robust_zoo.plots import accuracy_against_epsilon, is_picture_of
from robust_zoo.record import RobustnessRecord
from robust_zoo.sentences import in_markdown
from robust_zoo.zoo.layout import CARD, PICTURE, RECIPE, TAG


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


def _shown(part):
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
    parts = [("clean", record.clean, "")]
    parts += [
        (describe_attack(outcome), outcome, f"{outcome.max_distance:.6g}")
        for outcome in record.attacks
    ]
    if record.worst_case is not None:
        parts.append(("**worst case of all attacks, per example**", record.worst_case, ""))
    rows = []
    for name, part, distance in parts:
        row = [name, percent(part.accuracy), interval(part), str(part.n_examples), distance]
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
    if record.worst_case is not None:
        results.append(
            EvalResult(
                **dataset,
                metric_type="robust_accuracy",
                metric_name="robust accuracy, worst case of all attacks",
                metric_value=record.worst_case.accuracy,
                metric_args={
                    "attack": "worst case",
                    "norm": record.threat_model.norm,
                    "epsilon": record.threat_model.epsilon,
                    "n_examples": record.worst_case.n_examples,
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
    tags = [TAG, "adversarial-robustness"]
    tags += [record.threat_model.norm] if record.threat_model else []
    base = record.base_model
    lineage = {}
    if base is not None:
        # On a hub a base model is named by its repository.
        repository = re.match(r"hf://([^@#]+)", base.handle)
        name = repository[1] if repository else base.name
        # The hub refuses what cannot be the name of a repository; the facts below have it all the same.
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            lineage = {"base_model": name, "base_model_relation": "finetune"}
    data = ModelCardData(
        library_name="keras",
        pipeline_tag="image-classification",
        license=record.license.lower(),
        datasets=[record.dataset.name],
        tags=tags,
        model_name=record.name,
        eval_results=results,
        **lineage,
    )
    return data.to_yaml()


def _facts(record: RobustnessRecord) -> list[str]:
    defense = describe_defense(record)
    paper = f" ({record.defense.paper})" if record.defense and record.defense.paper else ""
    rows = [
        ("architecture", f"{record.architecture}, {record.parameters:,} parameters"),
        ("defense", defense + paper),
        ("threat model", describe_threat(record)),
        (
            "measured on",
            f"{record.dataset.name} {record.dataset.version}, split {record.dataset.split}",
        ),
        ("weights", f"{record.weights.dtype}, sha256 {record.weights.sha256}"),
        ("license", record.license),
    ]
    base = record.base_model
    if base is not None:
        handle = f" ({base.handle})" if base.handle else ""
        rows.append(
            ("fine-tuned from", f"{base.name}{handle}, weights sha256 {base.weights_sha256}")
        )
    return _table("|", rows)


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
    return [
        "",
        "## Purpose",
        "",
        f"For research and teaching on robustness: a baseline to attack, to compare defenses with, and to fine-tune. "
        f"{within}",
        "",
        "Not for decisions that matter: accuracy under the attacks tried here is an upper bound of what a better "
        "attack would leave.",
    ]


def _checks(record: RobustnessRecord) -> list[str]:
    if not record.checks:
        return []
    rows = [
        (
            check.name,
            f"**{VERDICTS[False]}**" if check.passed is False else VERDICTS[check.passed],
            f"{check.value:.6g}",
            check.explanation,
        )
        for check in record.checks
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
        *_facts(record),
        *_purpose(record),
        "",
        "## Robustness",
        "",
        *_results(record),
        "",
        "Accuracy counts an example if it is classified correctly on the clean image and on every candidate "
        "of the attack.",
        *picture,
        *_distances(record),
        *_checks(record),
        *_training(record, recipe),
        *_use(record, handle),
        *_citation(record),
    ]
    return "\n".join(lines)


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
        times = (_duration(record.training.seconds), _duration(attacks))
        rows.append((f"`{record.name}`", *times, record.training.hardware))
    return "\n".join(_table("recipe|training|attacks|hardware", rows)) + "\n"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def zoo_table(records: Iterable[RobustnessRecord]) -> str:
    """MODEL_CARDS.md: one row a model."""
    lines = [
        "# Model cards",
        "",
        "Generated by `robust-zoo cards` from `checkpoints/*/robustness.json`; do not edit. Each name links to",
        "the model's own card; n is the number of examples that all attacks saw; the mean distance is that of",
        "the closest adversarial examples found for clean-correct images, with how many of the images these are:",
        "where they are few, they are the easiest.",
        "",
        "| model | dataset | threat model | clean | worst case of attacks | 95% interval | n | attacks | "
        "mean distance | checks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in map(_shown, records):
        worst = record.worst_case
        robust = (
            (percent(worst.accuracy), interval(worst), str(worst.n_examples))
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
            f"{attacks} | {distances} | {flags} |"
        )
    return "\n".join(lines) + "\n"
