import datetime
import json

import pytest

from robust_zoo.record import (
    Accuracy,
    AttackOutcome,
    BaseModelInfo,
    Check,
    Curve,
    CurvePoint,
    RecordError,
    RobustnessRecord,
    Weights,
    WorstCase,
    wilson_interval,
)


@pytest.fixture
def record():
    config = {"epsilon": 0.1, "norm": "linf"}
    outcome = AttackOutcome.count(
        30, 50, name="PGD", config=config, seed=0, max_distance=0.1, seconds=1.5
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
        worst_case=WorstCase.count(30, 50, attacks=("PGD",)),
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
    with pytest.raises(RecordError, match="is not a valid record: Expecting ',' delimiter"):
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
        config={"epsilon": 0.1, "norm": "linf"},
        seed=0,
        points=(CurvePoint.count(3, 5, epsilon=0.1),),
    )
    base = BaseModelInfo(name="mlp.natural_digits", weights_sha256="2" * 64)
    check = Check(name="logit_scale", passed=True, value=1.0, explanation="fine")
    more = record.model_copy(update={"curve": curve, "base_model": base, "checks": (check,)})
    assert RobustnessRecord.from_json(more.to_json()) == more
    with pytest.raises(RecordError, match=r"base_model\.weights_sha256"):
        RobustnessRecord.from_json(more.to_json().replace("2" * 64, "2" * 63))


def counted(correct, n, **more):
    return {**json.loads(Accuracy.count(correct, n).model_dump_json()), **more}


def attack(correct=30, n=50, **more):
    config = {"epsilon": 0.1, "norm": "linf"}
    values = {"name": "PGD", "config": config, "seed": 0, "max_distance": 0.1, "seconds": 1.5}
    return counted(correct, n, **{**values, **more})


def distances(n=50, found=50, only=45, mean=0.5):
    def part(n):
        return {"n_examples": n, "mean": mean, "median": mean, "rho": mean}

    return {
        "name": "DeepFool", "config": {}, "seed": 0, "norm": "linf", "n_examples": n,
        "found": part(found), "clean_correct_only": part(only), "seconds": 1.0,
    }  # fmt: skip


def curve(*corrects, n=50):
    points = [counted(k, n, epsilon=0.1 * (i + 1)) for i, k in enumerate(corrects)]
    config = {"norm": "linf", "epsilon": 0.1}
    return {"name": "PGD", "config": config, "seed": 0, "points": points}


CHECKS = [{"name": "logit_scale", "passed": True, "value": 1.0, "explanation": "fine"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threat_model": None}, "threat_model must be there exactly if"),
        ({"worst_case": None}, "worst_case must be there exactly if"),
        ({"attacks": []}, "threat_model must be there exactly if"),
        ({"worst_case": counted(31, 50, attacks=["PGD"])}, "31 correct of 50, .* leave at most 30"),
        ({"worst_case": counted(29, 50, attacks=["PGD"])}, "29 correct of 50, .* break at most 20"),
        ({"worst_case": counted(30, 50, attacks=["FGSM"])}, "not over the attacks"),
        ({"worst_case": counted(30, 40, attacks=["PGD"])}, "over the examples that all attacks"),
        ({"attacks": [attack(46)]}, "PGD has 46 correct of 50, clean images 45 of 50"),
        ({"attacks": [attack(n=51)]}, "PGD has 30 correct of 51, clean images 45 of 50"),
        ({"attacks": [attack(max_distance=1e308)]}, "max_distance 1e.308 in a ball of 0.1"),
        ({"attacks": [attack(config={"epsilon": 1e9, "norm": "linf"})]}, "PGD has epsilon 1000"),
        ({"attacks": [attack(config={"epsilon": 0.1, "norm": "l2"})]}, "PGD has norm 'l2'"),
        ({"attacks": [attack(config={})]}, "PGD has norm None"),
        (
            {
                "threat_model": {"norm": "linf", "epsilon": 1.5},
                "attacks": [attack(config={"epsilon": 1.5, "norm": "linf"})],
            },
            "epsilon 1.5, but no image is farther than 1",
        ),
        ({"minimum_norm": [distances(n=51)]}, "DeepFool has more examples than clean"),
        ({"minimum_norm": [distances(found=51)]}, "DeepFool found 51 of 50"),
        ({"minimum_norm": [distances(found=40)]}, "found 40 of 50 examples, 45 of them"),
        ({"minimum_norm": [distances(mean=1.1)]}, "beyond 1.* farther than any image"),
        ({"curve": curve(30)}, "curve is there, but not the checks"),
        ({"curve": curve(20), "checks": CHECKS * 2}, "checks must hold each check once"),
        (
            {"attacks": [attack(config={"epsilon": 0.1, "norm": "linf", "steps": 10**12})]},
            r"steps of an attack must lie in 0\.\.1,000,000",
        ),
        (
            {"attacks": [attack(config={"epsilon": 0.1, "norm": "linf", "restarts": -1})]},
            r"restarts of an attack must lie in",
        ),
        ({"curve": curve(20) | {"seed": 5}, "checks": CHECKS}, "must have one seed"),
        (
            {"curve": curve(20) | {"config": {"norm": "l2", "epsilon": 0.1}}, "checks": CHECKS},
            "curve has norm 'l2', threat_model 'linf'",
        ),
        (
            {"curve": curve(20) | {"config": {"norm": "linf", "epsilon": 1e9}}, "checks": CHECKS},
            "curve has epsilon 1000000000.0, threat_model 0.1",
        ),
        ({"curve": curve(*[0] * 11), "checks": CHECKS}, "goes on to 1.1, farther than any image"),
        ({"attacks": [attack(components={"a": 0.0, "b": 1.0})]}, "but its components"),
        ({"curve": curve(46), "checks": CHECKS}, "the curve at epsilon 0.1 has 46 correct"),
        ({"curve": curve(20, 21), "checks": CHECKS}, "curve must fall"),
        ({"curve": curve(31, 9), "checks": CHECKS}, "31 correct of 50 .* but worst_case 30 of 50"),
        ({"name": "x" * 201}, "1 to 200 characters, got 201"),
        ({"architecture": " "}, "1 to 200 characters, got 0"),
        ({"input": {"shape": [8, 8], "range": [0.0, 1.0]}}, "input.shape.2: Field required"),
        ({"input": {"shape": [8, 0, 1], "range": [0.0, 1.0]}}, "input.shape.1: .*at least|greater"),
        ({"input": {"shape": [8, 8, 1], "range": [0.0, 255.0]}}, "input.range.1: .*less than"),
        ({"attacks": [attack(seed=-1)]}, "attacks.0.seed: .*greater than"),
        ({"attacks": [attack(seconds=1e300)]}, "attacks.0.seconds: .*less than"),
        ({"name": "a\nb"}, "printable, on one line"),
        ({"dataset": {"name": "\x1b[31m", "version": "", "split": ""}}, "printable, on one line"),
        ({"versions": {"ker\u202eas": "3"}}, "printable, on one line"),
        ({"versions": {"keras": "x" * 5001}}, "at most 5,000 characters"),
        ({"license": "no sale"}, "license: String should match pattern"),
        ({"notice": "x" * 5001}, "notice: String should have at most 5000 characters"),
        ({"parameters": 10**30}, "parameters: Input should be less than"),
    ],
)
def test_what_does_not_fit_together_is_refused(record, changes, message):
    with pytest.raises(RecordError, match=message) as info:
        RobustnessRecord.from_json(changed(record, **changes), "file.json")
    assert len(str(info.value)) < 300
    assert str(info.value).isprintable()


def test_what_fits_together_is_taken(record):
    more = {"minimum_norm": [distances()], "curve": curve(30, 20, 0), "checks": CHECKS}
    assert RobustnessRecord.from_json(changed(record, **more)).curve.points[1].correct == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": "a", "name": "b"}', "'name' twice"),
        ("[" * 100_000, "recursion|nested|nesting"),
        (b"{\x80", "not UTF-8"),
        ('{"clean": NaN}', "Field required"),
        ("[" + "1," * 3_000_000 + "1]", "longer than"),
        ("3", "should be an object"),
        ("", "Expecting value"),
    ],
)
def test_text_that_is_no_record(text, message):
    with pytest.raises(RecordError, match=message) as info:
        RobustnessRecord.from_json(text)
    assert len(str(info.value)) < 300


def test_rows_are_everything_that_is_an_accuracy():
    from robust_zoo.zoo import load_record

    record = load_record("mlp.pgd_digits")
    rows = record.rows()
    kinds = [row["kind"] for row in rows]
    assert kinds.count("attack") == len(record.attacks)
    assert kinds.count("curve") == len(record.curve.points)
    (worst,) = [row for row in rows if row["kind"] == "worst case"]
    assert worst["accuracy"] == record.worst_case.accuracy
    assert (worst["norm"], worst["epsilon"]) == ("linf", record.threat_model.epsilon)
    assert (worst["low"], worst["high"]) == record.worst_case.ci95
    first = next(row for row in rows if row["kind"] == "attack")
    assert json.loads(first["settings"]) == record.attacks[0].config
    pandas = pytest.importorskip("pandas")
    frame = record.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.to_dict("records")[0]["kind"] == "clean"


def test_a_record_in_a_notebook_is_text():
    from robust_zoo.zoo import list_models, load_record

    record = load_record("mlp.pgd_digits")
    shown = record.model_copy(update={"name": "<script>alert(1)</script>"})._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert f"{record.worst_case.accuracy:.2%}" in shown
    table = list_models("*digits*")._repr_html_()
    assert table.count("<tr>") == len(list_models("*digits*")) + 1
