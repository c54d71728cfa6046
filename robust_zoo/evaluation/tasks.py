"""measure(): one task of a plan."""

import pathlib
import time
from typing import Any, TypeGuard

import keras
import numpy as np
from keras import ops

from robust_zoo import backend
from robust_zoo.attacks import Attack, FixedBudgetAttack
from robust_zoo.attacks.autoattack import AutoAttackResult
from robust_zoo.attacks.expectation import share_right
from robust_zoo.certification import ABSTAIN, Certificates, SmoothedClassifier, certify
from robust_zoo.copies import agree
from robust_zoo.evaluation.checks import checks_of_model, range_hint, right_after_fgsm
from robust_zoo.evaluation.curve import broken_at, curve_attack, curve_radii
from robust_zoo.evaluation.outcomes import lengths, versions
from robust_zoo.evaluation.parts import Part
from robust_zoo.evaluation.plan import EvaluationPlan, Task
from robust_zoo.evaluation.top_k import ranks
from robust_zoo.inference import forget, predict
from robust_zoo.record import TOP5_CLASSES, ThreatModel

_CERTIFIED_AT_ONCE = 64  # images, of each of which CROWN-IBP holds coefficients of every class
_COMPARED = 64  # images on which compiled and uncompiled logits are compared


def measure(
    plan: EvaluationPlan, task: Task, *, state_file: str | pathlib.Path | None = None
) -> Part:
    """Measures one task of a plan.

    Args:
        plan: bound to its model and data, as `plan_evaluation` gives it, or by its `bind`.
        task: one of `plan.tasks`.
        state_file: of the attack, see `Attack.run`.

    Returns:
        What was found; `Part.save` writes it to a file.

    Raises:
        ValueError: a plan that is not bound, or a task that is not of it.
    """
    if task not in plan.tasks:
        raise ValueError(f"task must be one of plan.tasks, got {task!r}.")
    started = time.perf_counter()
    x, y = plan.bound.examples(task.first, task.last)
    plan.trust_once(lambda: _check_compiled(plan.bound.model, x, plan.batch_size))
    kinds = {
        "clean": _clean,
        "certified": _certified,
        "smoothed": _smoothed,
        "attack": _attack,
        "flags": _flags,
        "curve": _curve,
        "checks": _checks,
    }
    find = kinds[task.kind]
    found = find(plan, task, x, y, state_file)
    seconds = found.pop("seconds", time.perf_counter() - started)
    return Part(plan.sha256, task.number, versions(), seconds, **found)


def _clean(
    plan: EvaluationPlan, task: Task, x: np.ndarray, y: np.ndarray, state_file: Any
) -> dict[str, Any]:
    model = plan.bound.model
    logits = predict(model, x, plan.batch_size)
    arrays = {"predicted": logits.argmax(1), "labels": y, **_among_five(logits, y)}
    if plan.samples > 1:
        options = {"seed": plan.seed, "batch_size": plan.batch_size}
        arrays["right"] = share_right(model, x, y, samples=plan.samples, **options)
    return {
        "arrays": arrays,
        "notes": {"range_hint": range_hint(model)},
    }


def _certified(
    plan: EvaluationPlan, task: Task, x: np.ndarray, y: np.ndarray, state_file: Any
) -> dict[str, Any]:
    found = _certificates(plan, task, x, y)
    undecided = (found.margins > 0) & ~found.certified
    return {"arrays": {"certified": found.certified, "undecided": undecided}}


def _certificates(plan: EvaluationPlan, task: Task, x: np.ndarray, y: np.ndarray) -> Certificates:
    """Of the rows of a task, found once in each process."""
    threat, known = plan.threat_model, plan.bound.certificates
    assert threat is not None  # or nothing is to be certified
    rows = (task.first, task.last)
    if rows not in known:
        size = min(plan.batch_size, _CERTIFIED_AT_ONCE)
        known[rows] = certify(
            plan.bound.model, x, y, epsilon=threat.epsilon, methods=plan.certify, batch_size=size
        )
    return known[rows]


def _smoothed(
    plan: EvaluationPlan, task: Task, x: np.ndarray, y: np.ndarray, state_file: Any
) -> dict[str, Any]:
    assert plan.smoothing is not None  # or there is no such task
    smoothed = SmoothedClassifier(plan.bound.model, plan.smoothing.smoothing())
    numbers = np.arange(task.first, task.last)
    found = smoothed.certify(x, y, seed=plan.seed, numbers=numbers, batch_size=plan.batch_size)
    right = found.predicted == y
    return {
        "arrays": {"radius": found.radius, "right": right, "abstained": found.predicted == ABSTAIN}
    }


def _attack(
    plan: EvaluationPlan, task: Task, x: np.ndarray, y: np.ndarray, state_file: Any
) -> dict[str, Any]:
    attack = plan.bound.attacks[task.attack]
    if not (plan.skip_certified and _is_in(attack, plan.threat_model)):
        return _attacked(plan, task, x, y, np.arange(len(x)), state_file)
    # At least one image, since what an attack has as components is known when it has run.
    rest = np.flatnonzero(~_certificates(plan, task, x, y).certified)
    rest = rest if len(rest) else np.arange(1)
    found = _attacked(plan, task, x[rest], y[rest], rest, state_file)
    proven: dict[str, Any] = {
        "distance": 0.0,
        "stands": True,
        "among_five": True,
        "broken_by": "",
        "fooled_share": 0.0,
    }
    arrays = {}
    for name, values in found["arrays"].items():
        arrays[name] = np.full(len(x), proven[name], values.dtype)
        arrays[name][rest] = values
    arrays["skipped"] = np.isin(np.arange(len(x)), rest, invert=True)
    return {**found, "arrays": arrays}


def _is_in(attack: Attack, threat: ThreatModel | None) -> TypeGuard[FixedBudgetAttack]:
    """Whether an attack stays in the ball of a threat model."""
    if threat is None or not isinstance(attack, FixedBudgetAttack):
        return False
    return (attack.norm, attack.epsilon) == (threat.norm, threat.epsilon)


def _attacked(
    plan: EvaluationPlan,
    task: Task,
    x: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    state_file: Any,
) -> dict[str, Any]:
    """What an attack finds of some rows of a task."""
    model, attack = plan.bound.model, plan.bound.attacks[task.attack]
    result = attack.run(
        model,
        x,
        y,
        numbers=task.first + rows,
        precision=plan.precision,
        state_file=state_file,
        **({"with_flags": False} if attack.flagged else {}),  # they are a task of their own
        **_options(plan),
    )
    # A second look at what the attack returned.
    seen_logits = predict(model, result.x_adv, plan.batch_size)
    seen = seen_logits.argmax(1)
    arrays = {"distance": result.distance}
    if isinstance(attack, FixedBudgetAttack):
        arrays |= _among_five(seen_logits, y)
        if result.fooled is None:
            arrays["stands"] = ~result.success & (seen == y)
        else:
            arrays |= {"stands": ~result.success, "fooled_share": result.fooled}
        if isinstance(result, AutoAttackResult):
            arrays["broken_by"] = result.broken_by
    else:
        logits = predict(model, x, plan.batch_size)
        left = ops.convert_to_numpy(attack.reference(logits, y))
        wrong = seen != y
        if attack.samples > 1:
            options = {"seed": plan.seed, "batch_size": plan.batch_size}
            share = share_right(model, result.x_adv, y, samples=attack.samples, **options)
            wrong = share < 0.5
        arrays["fooled"] = result.success & ((seen != left) | (attack.samples > 1))
        arrays["broken"] = arrays["fooled"] & wrong
        arrays["length"] = lengths(attack, x)
    return {
        "arrays": arrays,
        "notes": {"components": list(result.components), "norm": attack.norm},
        "checks": result.flags,
        "seconds": result.seconds,
    }


def _among_five(logits: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Whether the label is among the five most likely classes, of models of many."""
    if logits.shape[1] < TOP5_CLASSES:
        return {}
    return {"among_five": ranks(logits, y) < 5}


def _flags(
    plan: EvaluationPlan, task: Task, x: np.ndarray, y: np.ndarray, state_file: Any
) -> dict[str, Any]:
    attack, size = plan.bound.attacks[task.attack], plan.batch_size
    found = attack.find_flags(plan.bound.model, x, y, batch_size=size)
    return {"arrays": {}, "checks": found}


def _curve(
    plan: EvaluationPlan, task: Task, x: np.ndarray, y: np.ndarray, state_file: Any
) -> dict[str, Any]:
    assert plan.threat_model is not None  # or there is no such task
    numbers = np.arange(task.first, task.last)
    radii = curve_radii(plan.threat_model, x.shape[1:])
    found = broken_at(
        curve_attack(plan.threat_model, plan.samples), radii, plan.bound.model, x, y, numbers,
        seed=plan.seed, batch_size=plan.batch_size, precision=plan.precision,
    )  # fmt: skip
    return {"arrays": {"broken_at": found}, "notes": {"radii": radii}}


def _checks(
    plan: EvaluationPlan, task: Task, x: np.ndarray, y: np.ndarray, state_file: Any
) -> dict[str, Any]:
    model, threat = plan.bound.model, plan.threat_model
    logits = predict(model, x, plan.batch_size)
    fixed = [part for part in plan.bound.attacks if _is_in(part, threat)]
    moved = None
    if plan.has_curve:
        assert threat is not None  # or there is no curve
        options = {"seed": plan.seed, "batch_size": plan.batch_size, "samples": plan.samples}
        moved = right_after_fgsm(model, x, y, threat, **options)
    found = checks_of_model(
        model, x, y, logits, moved, threat, fixed, samples=plan.samples, **_options(plan)
    )
    return {"arrays": {} if moved is None else {"right_after_fgsm": moved}, "checks": found}


def _options(plan: EvaluationPlan) -> dict[str, Any]:
    return {"seed": plan.seed, "batch_size": plan.batch_size, "progress": False}


def _check_compiled(model: keras.Model, x: np.ndarray, batch_size: int) -> None:
    """Compares the logits of a compiled model with those that it computes uncompiled.

    Raises:
        ValueError: they differ: the model computes something else once it is compiled.
    """
    few = x[:_COMPARED]
    with backend.full_precision():
        eager, again = (ops.convert_to_numpy(model(few, training=False)) for _ in range(2))
    logits = predict(model, few, batch_size)
    if not agree(eager, again, within=1e-6) or agree(logits, eager, within=1e-3):
        return
    forget(model)  # compiled before something changed that nobody can see
    logits = predict(model, few, batch_size)
    if agree(logits, eager, within=1e-3):
        return
    difference = np.abs(logits - eager).max()
    raise ValueError(
        f"model {model.name!r} computes other logits compiled than uncompiled (by up to {difference:g}): its call "
        "must depend on nothing but its inputs, its variables and its layers' attributes."
    )
