"""What the leaderboard shows of a record, as it is shown and as it is sorted."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from robust_zoo.describe import (
    describe_ball,
    describe_certified,
    describe_dataset,
    describe_defense,
    duration,
    interval,
    percent,
)
from robust_zoo.record import Accuracy, RobustnessRecord

NO_BUDGET = "no threat model"

# What is shown of each model: a key, the heading, what it means, and whether it is shown at first.
COLUMNS: tuple[tuple[str, str, str, bool], ...] = (
    ("rank", "#", "Rank by worst-case accuracy in this table", True),
    ("name", "model", "Name, which leads to the model's page", True),
    ("clean", "clean", "Accuracy on clean images, with its 95% interval", True),
    (
        "worst",
        "worst case",
        "Accuracy counting an image as wrong if any attack broke it; the bracket reaches down to what is certified",
        True,
    ),
    ("autoattack", "AutoAttack", "Accuracy under AutoAttack, with its 95% interval", True),
    (
        "certified",
        "certified",
        "Accuracy that is proven within the ball, whatever the attack",
        True,
    ),
    ("union", "union", "Accuracy under the worst of several threat models", False),
    ("corruptions", "corruptions", "Mean accuracy under common corruptions", True),
    ("reported", "reported", "What others published for these weights, for the same attack", False),
    ("n", "n", "Images that all attacks saw", False),
    ("parameters", "parameters", "Number of parameters", True),
    (
        "cost",
        "training",
        "Wall-clock time of training, on the machine that the model's page names",
        False,
    ),
    ("architecture", "architecture", "Architecture", False),
    ("defense", "defense", "How it was trained", True),
    ("paper", "paper", "Where the defense is from", False),
    ("role", "role", "Robust, baseline or study", False),
    ("license", "license", "Of the weights", False),
    ("checks", "checks", "Checks that failed: signs that the numbers cannot be trusted", True),
)


@dataclass(frozen=True)
class Cell:
    """A value in a row.

    Attributes:
        text: as it is shown.
        order: what it is sorted by; numbers before texts, None last.
        low, high, value: of a proportion, 0 to 1: its interval, or the bracket, and itself; None for all else.
        link: where it leads, "" for nowhere.
        marks: failed checks, each a name and its explanation.
    """

    text: str = ""
    order: float | str | None = None
    low: float | None = None
    high: float | None = None
    value: float | None = None
    link: str = ""
    marks: tuple[tuple[str, str], ...] = field(default=())


def cells_of(record: RobustnessRecord, role: str, page: str) -> dict[str, Cell]:
    """All cells of a model, but for its rank."""
    auto = next((part for part in record.attacks if part.name == "AutoAttack"), None)
    failed = record.failed_checks
    training, defense = record.training, record.defense
    paper = defense.paper if defense else ""
    cost = training.seconds if training else None
    worst = _proportion(record.worst_case)
    if record.worst_case is not None and record.certificate is not None:
        proven = record.certificate.accuracy
        worst = Cell(
            f"{percent(proven)} to {worst.text}", worst.order, proven, worst.value, worst.value
        )
    cells = {
        "name": Cell(record.name, record.name, link=page),
        "clean": _proportion(record.clean),
        "worst": worst,
        "autoattack": _proportion(auto),
        "certified": _proportion(record.certificate),
        "union": _proportion(record.union),
        "corruptions": _number(record.corruptions.accuracy) if record.corruptions else Cell(),
        "reported": _reported(record),
        "n": Cell(f"{record.worst_case.n_examples:,}", record.worst_case.n_examples)
        if record.worst_case
        else Cell(f"{record.clean.n_examples:,}", record.clean.n_examples),
        "parameters": Cell(f"{record.parameters:,}", record.parameters),
        "cost": Cell() if cost is None else Cell(duration(cost), cost),
        "architecture": Cell(record.architecture, record.architecture),
        "defense": Cell(describe_defense(record), describe_defense(record)),
        "paper": Cell(paper, paper, link=_arxiv(paper)),
        "role": Cell(role, role),
        "license": Cell(record.license, record.license),
        "checks": Cell(
            f"{len(failed)} failed" if failed else "passed" if record.checks else "none",
            len(failed) if record.checks else 1e6,
            marks=tuple((check.name, check.explanation) for check in failed),
        ),
    }
    return cells


def _proportion(part: Accuracy | None) -> Cell:
    if part is None:
        return Cell()
    return Cell(percent(part.accuracy), part.accuracy, *part.ci95, part.accuracy)


def _number(value: float) -> Cell:
    return Cell(percent(value), value, value=value)


def _reported(record: RobustnessRecord) -> Cell:
    """What others report under AutoAttack, or the least of what they do under any attack."""
    robust = [part for part in record.reported if "clean" not in part.setting.lower()]
    chosen = [part for part in robust if "autoattack" in part.setting.lower()] or robust
    if not chosen:
        return Cell()
    part = min(chosen, key=lambda item: item.accuracy)
    return Cell(f"{percent(part.accuracy)} ({part.setting})", part.accuracy)


def _arxiv(paper: str) -> str:
    found = re.fullmatch(r"arXiv:(\d{4}\.\d{4,5})", paper)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


def ball_of(record: RobustnessRecord) -> str:
    """The threat model in words, an epsilon of linf in levels of 255 where it is a whole number of them."""
    threat = record.threat_model
    if threat is None:
        return NO_BUDGET
    levels = 255 * threat.epsilon
    if threat.norm == "linf" and abs(levels - round(levels)) < 1e-4 and round(levels):
        return f"linf {round(levels)}/255"
    return describe_ball(threat)


def rank_of(record: RobustnessRecord) -> tuple[float, float]:
    """What models of one table are sorted by: the worst case, then clean accuracy, the highest first."""
    worst = record.worst_case.accuracy if record.worst_case else -1.0
    return -worst, -record.clean.accuracy


def data_of(record: RobustnessRecord, role: str, page: str, handle: str) -> dict[str, Any]:
    """What comparing, filtering and the JSON file know of a model: plain values."""
    threat, proof, worst = record.threat_model, record.certificate, record.worst_case
    curve = [] if record.curve is None else record.curve.points
    points = [(0.0, record.clean), *((point.epsilon, point) for point in curve)]
    return {
        "name": record.name,
        "page": page,
        "load": f"rz.load_model({json.dumps(handle or record.name, ensure_ascii=False)})",
        "dataset": describe_dataset(record.dataset),
        "dataset_name": record.dataset.name,
        "norm": threat.norm if threat else "",
        "epsilon": threat.epsilon if threat else None,
        "threat": ball_of(record),
        "role": role,
        "architecture": record.architecture,
        "parameters": record.parameters,
        "defense": describe_defense(record),
        "paper": record.defense.paper if record.defense else "",
        "license": record.license,
        "clean": record.clean.accuracy,
        "clean_interval": interval(record.clean),
        "worst_case": worst.accuracy if worst else None,
        "worst_case_interval": interval(worst) if worst else "",
        "n": worst.n_examples if worst else record.clean.n_examples,
        "certified": proof.accuracy if proof else None,
        "certified_by": describe_certified(proof) if proof else "",
        "attacks": {
            f"{part.name} {number}": part.accuracy for number, part in enumerate(record.attacks, 1)
        },
        "union": record.union.accuracy if record.union else None,
        "corruptions": record.corruptions.accuracy if record.corruptions else None,
        "training_seconds": record.training.seconds if record.training else None,
        "failed_checks": [check.name for check in record.failed_checks],
        "weights_sha256": record.weights.sha256,
        "curve": [
            {
                "epsilon": epsilon,
                "accuracy": part.accuracy,
                "low": part.ci95[0],
                "high": part.ci95[1],
            }
            for epsilon, part in points
        ],
    }
