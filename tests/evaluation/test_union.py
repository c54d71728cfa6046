"""Accuracy under the worst of several threat models."""

import numpy as np
import pytest

from robust_zoo.attacks import APGD, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import EvaluationPlan, evaluate, measure, merge, plan_evaluation, verify
from robust_zoo.record import RecordError, RobustnessRecord, ThreatModel
from robust_zoo.report.card import model_card, zoo_table
from robust_zoo.zoo import load_model

pytestmark = pytest.mark.home
L2, L1 = ThreatModel(norm="l2", epsilon=0.6), ThreatModel(norm="l1", epsilon=1.5)
OPTIONS = {
    "attacks": (APGD(epsilon=0.1, steps=10), DeepFool()),
    "n": [60, 20],
    "checks": False,
    "threat_models": (L2, L1),
}


@pytest.fixture(scope="module")
def robust():
    return load_model("mlp.pgd_digits")


@pytest.fixture(scope="module")
def record(robust):
    return evaluate(robust, "digits", **OPTIONS)


def test_an_image_counts_that_withstands_all(robust, record):
    sample = load_dataset("digits").sample(60, 0)
    held, correct = np.ones(60, bool), []
    for norm, epsilon in (("linf", 0.1), ("l2", 0.6), ("l1", 1.5)):
        attack = APGD(norm=norm, epsilon=epsilon, steps=10)
        stands = ~attack.run(robust, sample.images, sample.labels).success
        correct.append(stands.sum())
        held &= stands
    assert record.union.threat_models == (record.threat_model, L2, L1)
    assert [part.correct for part in (*record.attacks, *record.union.attacks)] == correct
    assert (record.union.correct, record.union.n_examples) == (held.sum(), 60)
    assert held.sum() < min(correct)
    assert record.worst_case.correct == correct[0]
    assert [part.n_examples for part in record.minimum_norm] == [20]
    assert RobustnessRecord.from_json(record.to_json()) == record


def test_parts_make_the_same_union(robust, record):
    plan = EvaluationPlan.from_json(plan_evaluation(robust, "digits", **OPTIONS).to_json())
    bound = plan.bind(robust, load_dataset("digits"))
    merged = merge(plan, [measure(bound, task) for task in plan.tasks])
    assert merged.union.correct == record.union.correct


def test_step_sizes_are_in_proportion(robust):
    attack = PGD(epsilon=0.1, steps=4, step_size=0.03)
    plan = plan_evaluation(robust, "digits", attacks=[attack], n=10, threat_models=[L2])
    config = plan.attacks[1].config
    assert (config["norm"], config["epsilon"]) == ("l2", 0.6)
    assert config["step_size"] == pytest.approx(0.18)


@pytest.mark.slow
def test_only_the_own_ball_is_certified_and_checked(robust):
    attacks = [AutoAttack(epsilon=0.02)]
    tight = ThreatModel(norm="l2", epsilon=2.0)
    record = evaluate(
        robust,
        "digits",
        attacks=attacks,
        n=20,
        threat_models=[tight],
        certify=("ibp", "crown-ibp"),
        skip_certified=True,
    )
    assert record.attacks[0].skipped == record.certificate.correct > 0
    assert record.union.attacks[0].skipped == 0
    assert record.union.correct < record.certificate.correct
    assert all(check.passed is not False for check in record.checks), record.failed_checks


def test_it_is_shown(record):
    card = model_card(record)
    rate = f"{100 * record.union.accuracy:.2f}%"
    assert f"| **worst of linf 0.1, l2 0.6, l1 1.5, per example** | {rate} |" in card
    assert "| APGD-10 (l2 0.6) |" in card
    assert "threat_models: linf 0.1, l2 0.6, l1 1.5" in card
    assert f"| {rate} (linf 0.1, l2 0.6, l1 1.5) |" in zoo_table([record])


def test_it_is_verified(robust, record):
    before, robust.robustness = robust.robustness, record
    try:
        found = verify(robust, n=30)
    finally:
        robust.robustness = before
    assert [part.name for part in found][-3:] == ["APGD-10 (l2 0.6)", "APGD-10 (l1 1.5)", "union"]
    assert all(part.agrees for part in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threat_models": [("l2", 0.5)]}, "threat_models must be robust_zoo.record.ThreatModels"),
        ({"threat_models": [L2, L2]}, "threat_models must be different, got l2 0.6, l2 0.6"),
        (
            {"threat_models": [ThreatModel(norm="l2", epsilon=9)]},
            "must not be larger than l2 8, which holds every image, got l2 9",
        ),
        ({"attacks": (DeepFool(),), "n": 9}, "threat_models needs attacks with a budget"),
        ({"attacks": (PGD(epsilon=0.1),), "n": 9}, "PGD has linf, l2, got 'l1'"),
    ],
)
def test_refused(robust, changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        evaluate(robust, "digits", **{**OPTIONS, **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told["threat_models"].pop(), "at least 2|record's own attacks"),
        (lambda told: told["threat_models"].reverse(), "the record's own first"),
        (lambda told: told["attacks"].pop(), "union must have the record's own attacks"),
        (lambda told: told.update(correct=60, accuracy=1.0, ci95=[0.93983, 1.0]), "union"),
    ],
)
def test_records_that_contradict_themselves(record, change, message):
    import json

    told = json.loads(record.to_json())
    change(told["union"])
    with pytest.raises(RecordError, match=message):
        RobustnessRecord.from_json(json.dumps(told))
