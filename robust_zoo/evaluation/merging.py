"""merge(): from the parts of an evaluation to its record."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from robust_zoo.attacks.flags import square_stronger
from robust_zoo.describe import describe_attack
from robust_zoo.evaluation.checks import (
    certificates_hold,
    clean_above_chance,
    curve_agrees,
    in_order,
    pgd_beats_fgsm,
    reaches_chance,
)
from robust_zoo.evaluation.curve import Evidence, accuracy_curve
from robust_zoo.evaluation.outcomes import (
    certified_by_bounds,
    certified_by_smoothing,
    evidence_of,
    expected_of,
    minimum_norm,
    outcome_of,
    top5_of,
    union_of,
    worst_case,
)
from robust_zoo.evaluation.parts import Part
from robust_zoo.evaluation.plan import EvaluationPlan
from robust_zoo.record import (
    Accuracy,
    AttackOutcome,
    Certified,
    Check,
    Curve,
    RobustnessRecord,
)


def merge(plan: EvaluationPlan, parts: Iterable[Part]) -> RobustnessRecord:
    """The record that all parts of a plan make, the same as `evaluate` makes in one process.

    Args:
        plan: the plan; it need not be bound.
        parts: what `measure` gave for each of its tasks, in any order.

    Raises:
        ValueError: a part that is missing, that is there twice, of another plan, or measured by another backend or
            other versions than the rest.
    """
    return merged(plan, parts)[0]


def merged(
    plan: EvaluationPlan, parts: Iterable[Part], smaller: Sequence[Evidence] = ()
) -> tuple[RobustnessRecord, list[Evidence]]:
    """The record, and what it knows of the images; `smaller` is known from plans of a smaller epsilon."""
    found = _Found(plan, _complete(plan, parts))
    evidence = _evidence(plan, found)
    outcomes, survivors, distances = [], [], []
    others, held_by_others = [], []
    certified: list[Certified] = []
    flags: list[Check] = []
    if plan.certify:
        arrays, _, seconds = found.of("certified")
        broken = _broken(plan, found, [*smaller, *evidence])
        flags.append(certificates_hold(int((arrays["certified"] & broken).sum()), plan.n))
        proven = arrays["certified"] & ~broken
        certified.append(certified_by_bounds(plan, proven, arrays["undecided"], seconds))
    for place, attack in enumerate(plan.attacks):
        arrays, notes, seconds = found.of("attack", place)
        clean = found.clean[: attack.n]
        if "stands" not in arrays:
            distances.append(minimum_norm(attack, notes["norm"], arrays, clean, plan.seed, seconds))
            continue
        held = clean & arrays["stands"]
        right = None if found.right is None else found.right[: attack.n]
        if "skipped" in arrays:
            # What something else broke is not robust, whatever certified it.
            held &= ~(arrays["skipped"] & ~proven[: attack.n])
            arrays["skipped"] = arrays["skipped"] & proven[: attack.n]
        if not attack.own:
            outcome = outcome_of(
                attack, arrays, notes["components"], held, plan.seed, seconds, right
            )
            others.append(outcome)
            held_by_others.append(held)
            continue
        for known in smaller:
            held = held & ~known.broken(float(attack.config["epsilon"]), attack.n)
        outcome = outcome_of(attack, arrays, notes["components"], held, plan.seed, seconds, right)
        outcomes.append(outcome)
        survivors.append(held)
        flags += _flags(found.checks_of("attack", place), outcome)
        if attack.flagged:
            flags += found.checks_of("flags", place)
    if plan.smoothing is not None:
        arrays, _, seconds = found.of("smoothed")
        certified += certified_by_smoothing(plan, arrays, seconds)
    curve, checks = _checks(plan, found, [*smaller, *evidence]) if plan.checks else (None, [])
    checks += _others(flags, checks)
    record = RobustnessRecord(
        name=plan.name,
        architecture=plan.architecture,
        parameters=plan.parameters,
        input=plan.input,
        num_classes=plan.num_classes,
        dataset=plan.dataset,
        defense=plan.defense,
        threat_model=plan.threat_model,
        precision=plan.precision,
        clean=Accuracy.count(
            int(found.clean.sum()),
            plan.n,
            expected=expected_of(found.right),
            **top5_of(found.of("clean")[0]),
        ),
        attacks=tuple(outcomes),
        worst_case=worst_case(outcomes, survivors) if outcomes else None,
        minimum_norm=tuple(distances),
        union=union_of(plan, others, [*survivors, *held_by_others]) if others else None,
        certified=tuple(certified),
        curve=curve,
        checks=tuple(checks),
        reported=plan.reported,
        training=plan.training,
        base_model=plan.base_model,
        license=plan.license,
        notice=plan.notice,
        config=plan.config,
        weights=plan.weights,
        versions=found.versions,
        created=datetime.now(UTC).replace(microsecond=0),
    )
    return record, evidence


def _complete(plan: EvaluationPlan, parts: Iterable[Part]) -> list[Part]:
    """The parts in the order of the tasks, each there once, and all measured alike."""
    by_task: dict[int, Part] = {}
    for part in parts:
        part.of(plan, f"part of task {part.task}")
        if part.task in by_task:
            raise ValueError(
                f"parts must be one for each task, but task {part.task} is there twice."
            )
        by_task[part.task] = part
    missing = [str(task.number) for task in plan.tasks if task.number not in by_task]
    if missing:
        raise ValueError(
            f"parts must be one for each of the plan's {len(plan.tasks)} tasks, but {len(missing)} are missing: "
            f"{', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}."
        )
    complete = [by_task[task.number] for task in plan.tasks]
    for part in complete:
        if part.versions != complete[0].versions:
            raise ValueError(
                f"parts must be measured by one backend and the same versions, but task {part.task} by "
                f"{part.versions}, and task {complete[0].task} by {complete[0].versions}."
            )
    return complete


class _Found:
    """What all parts found, put together."""

    def __init__(self, plan: EvaluationPlan, parts: Sequence[Part]) -> None:
        self.parts: dict[tuple[str, int], list[Part]] = {}
        for part, task in zip(parts, plan.tasks, strict=True):
            self.parts.setdefault((task.kind, task.attack), []).append(part)
        self.versions = parts[0].versions
        arrays, notes, _ = self.of("clean")
        self.labels, self.range_hint = arrays["labels"], str(notes["range_hint"])
        self.clean = arrays["predicted"] == self.labels
        # Of a random model, the share of its draws that are right.
        self.right: np.ndarray | None = arrays.get("right")
        if self.right is not None:
            self.clean = self.right >= 0.5

    def of(
        self, kind: str, attack: int = -1
    ) -> tuple[dict[str, np.ndarray], dict[str, Any], float]:
        """The arrays of all tasks of a kind, the first one's notes, and the seconds that they took together."""
        parts = self.parts[kind, attack]
        names = parts[0].arrays
        joined = {name: np.concatenate([part.arrays[name] for part in parts]) for name in names}
        return joined, parts[0].notes, sum(part.seconds for part in parts)

    def checks_of(self, kind: str, attack: int = -1) -> tuple[Check, ...]:
        """The checks of the first task of a kind."""
        return self.parts[kind, attack][0].checks


def _evidence(plan: EvaluationPlan, found: _Found) -> list[Evidence]:
    """What the attacks found in the norm of the threat model."""
    evidence = []
    for place, attack in enumerate(plan.attacks):
        arrays, notes, _ = found.of("attack", place)
        clean = found.clean[: attack.n]
        if "stands" not in arrays:
            if plan.threat_model is not None and notes["norm"] == plan.threat_model.norm:
                evidence.append(evidence_of(arrays["broken"], arrays["distance"], clean, np.inf))
        elif attack.own:
            broken, epsilon = ~(clean & arrays["stands"]), float(attack.config["epsilon"])
            evidence.append(evidence_of(broken, arrays["distance"], clean, epsilon))
    return evidence


def _broken(plan: EvaluationPlan, found: _Found, evidence: Sequence[Evidence]) -> np.ndarray:
    """Which images anything of the evaluation broke within the threat model, bool (n,)."""
    assert plan.threat_model is not None  # or nothing is certified
    epsilon = plan.threat_model.epsilon
    broken = ~found.clean
    for known in evidence:
        broken |= known.broken(epsilon, plan.n)
    if plan.checks and plan.has_curve:
        arrays, notes, _ = found.of("curve")
        places = arrays["broken_at"]
        within = sum(radius <= epsilon for radius in notes["radii"])
        broken[: len(places)] |= places < within
    return broken


def _flags(flags: Sequence[Check], outcome: AttackOutcome) -> list[Check]:
    """The flags of an attack's first task, but what compares its components, of all tasks."""
    left = outcome.components
    return [
        square_stronger(left["fab-t"], left["square"], outcome.n_examples)
        if flag.name == "square_stronger_than_white_box"
        else flag
        for flag in flags
    ]


def _others(flags: Sequence[Check], checks: Sequence[Check]) -> list[Check]:
    """Flags that the record's own checks, which look at more images, do not have; each once, if any failed that one."""
    found: dict[str, Check] = {}
    for flag in flags:
        if flag.name not in found or flag.passed is False:
            found[flag.name] = flag
    own = {check.name for check in checks}
    return [flag for name, flag in found.items() if name not in own]


def _checks(
    plan: EvaluationPlan, found: _Found, evidence: Sequence[Evidence]
) -> tuple[Curve | None, list[Check]]:
    """The curve and the checks, those that need all parts included."""
    correct = int(found.clean.sum())
    checks = [
        *found.checks_of("checks"),
        clean_above_chance(correct, found.labels, found.range_hint),
    ]
    curve: Curve | None = None
    if plan.has_curve:
        assert plan.threat_model is not None  # or there is no curve
        arrays, notes, _ = found.of("curve")
        places, radii = arrays["broken_at"], notes["radii"]
        curve, alone = accuracy_curve(
            places, radii, plan.threat_model, evidence, seed=plan.seed, samples=plan.samples
        )
        checks += [reaches_chance(curve, found.labels), curve_agrees(curve, alone)]
        one_step = found.of("checks")[0]["right_after_fgsm"]
        one_step &= found.clean[: len(one_step)]
        within = sum(radius <= plan.threat_model.epsilon for radius in radii)
        checks.append(
            pgd_beats_fgsm(one_step, places[: len(one_step)] >= within, describe_attack(curve))
        )
    return curve, in_order(checks)
