import datetime
import json

import pytest

from robust_zoo.record import (
    Accuracy,
    AttackOutcome,
    BaseModel,
    Curve,
    CurvePoint,
    RecordError,
    RobustnessRecord,
    Weights,
    wilson_interval,
)


@pytest.fixture
def record():
    outcome = AttackOutcome.count(
        30, 50, name="PGD", config={"epsilon": 0.1}, seed=0, max_distance=0.1, seconds=1.5
    )
    return RobustnessRecord(
        name="mlp.pgd_digits",
        architecture="mlp",
        parameters=10,
        input={"shape": (8, 8, 1)},
        num_classes=10,
        dataset={"name": "digits", "version": "1", "split": "test"},
        threat_model={"norm": "linf", "epsilon": 0.1},
        clean=Accuracy.count(45, 50),
        attacks=(outcome,),
        config={"sha256": "1" * 64},
        weights=Weights(sha256="0" * 64, bytes=7, dtype="float32"),
        versions={"keras": "3"},
        created=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    )


@pytest.mark.parametrize(("correct", "n"), [(1, 7), (50, 100), (988, 1000), (9_999, 10_000)])
def test_wilson_bounds_solve_the_score_equation(correct, n):
    # The interval holds the p that a score test does not reject: (p_hat - p)^2 <= z^2 p (1 - p) / n.
    low, high = wilson_interval(correct, n)
    assert low < correct / n < high
    for p in (low, high):
        assert (correct / n - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / n, rel=1e-5)


def test_wilson_interval_at_the_ends():
    z2 = 1.959964**2
    assert wilson_interval(0, 100) == pytest.approx((0, z2 / (100 + z2)))
    assert wilson_interval(10, 10) == pytest.approx((10 / (10 + z2), 1))


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_interval_of_impossible_counts(correct, n):
    with pytest.raises(ValueError, match="0 <= correct <= n"):
        wilson_interval(correct, n)


def test_json_round_trip(record):
    text = record.to_json()
    assert RobustnessRecord.from_json(text) == record
    assert json.loads(text)["schema_version"] == 1
    assert json.loads(text)["created"] == "2026-01-01T00:00:00Z"


def test_records_are_frozen(record):
    with pytest.raises(ValueError, match="frozen"):
        record.name = "other"


def changed(record, **changes):
    return json.dumps({**json.loads(record.to_json()), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"schema_version": 2}, "schema_version"),
        ({"parameters": "many"}, "parameters"),
        ({"num_classes": 1}, "num_classes"),
        ({"threat_model": {"norm": "linf", "epsilon": 0}}, "threat_model.epsilon"),
        ({"weights": {"sha256": "abc", "bytes": 1, "dtype": "float32"}}, "weights.sha256"),
        (
            {"clean": {"accuracy": 0.99, "ci95": [0.5, 1], "correct": 45, "n_examples": 50}},
            "clean: .*0.99 is not 45 correct of 50",
        ),
        (
            {"clean": {"accuracy": 0.9, "ci95": [1, 0.5], "correct": 45, "n_examples": 50}},
            r"clean.ci95: .*\(low, high\)",
        ),
        (
            {"clean": {"accuracy": 0.9, "ci95": [0, 1], "correct": 45, "n_examples": 50}},
            "clean: .*is not the Wilson interval",
        ),
        ({"parameters": "10"}, "parameters: Input should be a valid integer"),
    ],
)
def test_invalid_records_name_what_is_wrong(record, changes, message):
    with pytest.raises(RecordError, match=f"file.json is not a valid record: {message}"):
        RobustnessRecord.from_json(changed(record, **changes), "file.json")


def test_truncated_json(record):
    with pytest.raises(RecordError, match="is not a valid record: the text: Invalid JSON"):
        RobustnessRecord.from_json(record.to_json()[:200])


def test_a_curve_ascends():
    points = [CurvePoint.count(5 - i, 5, epsilon=0.1 * (i + 1)) for i in range(3)]
    Curve(name="PGD", config={}, seed=0, points=tuple(points))
    for wrong in ((points[1], points[0]), (points[0], points[0]), ()):
        with pytest.raises(ValueError, match=r"must ascend|at least 1 item"):
            Curve(name="PGD", config={}, seed=0, points=wrong)


def test_curve_and_base_model_survive_json(record):
    curve = Curve(
        name="PGD",
        config={"epsilon": 0.1},
        seed=0,
        points=(CurvePoint.count(3, 5, epsilon=0.1),),
    )
    base = BaseModel(name="mlp.natural_digits", weights_sha256="2" * 64)
    more = record.model_copy(update={"curve": curve, "base_model": base})
    assert RobustnessRecord.from_json(more.to_json()) == more
    with pytest.raises(RecordError, match=r"base_model\.weights_sha256"):
        RobustnessRecord.from_json(more.to_json().replace("2" * 64, "2" * 63))
