"""Plans, their tasks, and records merged from parts."""

import random

import keras
import numpy as np
import pytest

from robust_zoo.attacks import APGD, FAB, FGSM, PGD, AutoAttack, DeepFool, Square
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import (
    EvaluationPlan,
    Part,
    evaluate,
    measure,
    merge,
    merging,
    plan_evaluation,
)
from robust_zoo.record import Check

ATTACKS = (PGD(epsilon=0.1, steps=3), DeepFool())


@pytest.fixture
def plan(trained):
    return plan_evaluation(trained, "digits", attacks=ATTACKS, n=[50, 30], task_size=16, seed=1)


def timeless(record):
    told = record.model_dump(mode="json", exclude={"created"})
    for part in (*told["attacks"], *told["minimum_norm"]):
        part.pop("seconds")
    return told


@pytest.mark.long
@pytest.mark.usefixtures("few_planted")
def test_parts_from_elsewhere_make_the_record_of_one_process(trained, plan, tmp_path):
    whole = evaluate(trained, "digits", attacks=ATTACKS, n=[50, 30], task_size=16, seed=1)
    elsewhere = EvaluationPlan.from_json(plan.to_json())
    elsewhere = elsewhere.bind(trained, load_dataset("digits"))
    tasks = list(plan.tasks)
    random.Random(0).shuffle(tasks)
    for task in tasks:
        measure(elsewhere, task).save(tmp_path / f"{task.number}.npz")
    parts = [Part.load(path) for path in tmp_path.iterdir()]
    merged = merge(EvaluationPlan.from_json(plan.to_json()), parts)
    assert timeless(merged) == timeless(whole)
    assert {check.name for check in merged.checks} >= {"binarisation_test", "clean_above_chance"}


def test_tasks_cover_every_image_once(plan):
    kinds = [(task.kind, task.attack, task.first, task.last) for task in plan.tasks]
    assert [task.number for task in plan.tasks] == list(range(len(kinds)))
    for kind, attack, n in (
        ("clean", -1, 50), ("attack", 0, 50), ("attack", 1, 30), ("curve", -1, 50), ("checks", -1, 50)
    ):  # fmt: skip
        spans = [span[2:] for span in kinds if span[:2] == (kind, attack)]
        size = 256 if kind == "checks" else 16
        assert spans == [(first, min(first + size, n)) for first in range(0, n, size)]


@pytest.mark.long
@pytest.mark.usefixtures("few_planted")
def test_verdicts_do_not_depend_on_the_size_of_tasks(trained):
    attack = PGD(epsilon=0.08, steps=4, restarts=2)
    records = [
        evaluate(trained, "digits", attacks=attack, n=60, task_size=size) for size in (7, 256)
    ]
    assert records[0].attacks[0].correct == records[1].attacks[0].correct
    points = [[point.correct for point in record.curve.points] for record in records]
    assert points[0] == points[1]


@pytest.mark.slow
def test_flags_of_an_attack_are_a_task(trained, monkeypatch):
    """They look at the same images whatever the size of tasks, once."""
    attack, seen = AutoAttack(epsilon=0.01), []
    find = AutoAttack.find_flags

    def watched(self, model, x, y, **options):
        seen.append(len(x))
        return find(self, model, x, y, **options)

    monkeypatch.setattr(AutoAttack, "find_flags", watched)
    components = {"apgd-ce": APGD(epsilon=0.01, steps=1), "fab-t": FAB(targets=1, steps=1)}
    components |= {"square": Square(epsilon=0.01, steps=1)}
    monkeypatch.setattr(AutoAttack, "ensemble", lambda self, *told: (components, []))
    options = {"attacks": attack, "n": 140, "checks": False}
    plan = plan_evaluation(trained, "digits", task_size=50, **options)
    assert [task for task in plan.tasks if task.kind == "flags"] == [(6, "flags", 0, 0, 128)]
    record = evaluate(trained, "digits", task_size=50, **options)
    assert seen == [128]
    names = {"square_stronger_than_white_box", "too_few_classes", "zero_gradients", "randomness"}
    assert {check.name for check in record.checks} >= names


@pytest.fixture
def parts(plan):
    nothing = {"checks": False, "attacks": (), "threat_model": None}
    bare = plan.model_copy(update=nothing).with_bound(plan.bound)
    return bare, [measure(bare, task) for task in bare.tasks]


def test_gaps_doubles_and_parts_of_others_are_refused(parts, plan):
    bare, made = parts
    assert merge(bare, reversed(made)).clean.n_examples == 50
    with pytest.raises(ValueError, match=r"each of the plan's 4 tasks, but 2 are missing: 1, 3\."):
        merge(bare, [made[0], made[2]])
    with pytest.raises(ValueError, match="task 2 is there twice"):
        merge(bare, [*made, made[2]])
    with pytest.raises(ValueError, match="part of task 0 belongs to another plan"):
        merge(plan, made)
    versions = {**made[1].versions, "keras": "1.0"}
    other = Part(made[1].plan, 1, versions, 0.0, made[1].arrays, made[1].notes)
    with pytest.raises(
        ValueError, match=r"one backend and the same versions, but task 1 by .*'1\.0'"
    ):
        merge(bare, [made[0], other, *made[2:]])
    with pytest.raises(ValueError, match="is of task 4, and the plan has 4"):
        merge(bare, [*made, Part(bare.sha256, 4, {}, 0.0, {})])


def test_a_plan_knows_its_model_and_data(plan, trained):
    loose = EvaluationPlan.from_json(plan.to_json())
    assert loose.sha256 == plan.sha256
    with pytest.raises(ValueError, match=r"plan\.bind\(model, data\)"):
        measure(loose, plan.tasks[0])
    data = load_dataset("digits")
    other = keras.models.clone_model(trained)
    with pytest.raises(ValueError, match=r"model must be the plan's, .* with weights"):
        loose.bind(other, data)
    with pytest.raises(ValueError, match="data must be the plan's, 'digits' whose sample"):
        loose.bind(trained, load_dataset("digits", "validation"))
    older = loose.model_copy(update={"version": "0.0.1"})
    with pytest.raises(ValueError, match=r"plan was made by robust_zoo 0\.0\.1, and this is"):
        older.bind(trained, data)
    with pytest.raises(ValueError, match=r"task must be one of plan\.tasks"):
        measure(plan, plan.tasks[0]._replace(last=3))
    with pytest.raises(ValueError, match=r"mine\.json is not a valid plan: seed: "):
        EvaluationPlan.from_json(plan.to_json().replace('"seed": 1', '"seed": "x"'), "mine.json")
    for n, message in ((10**12, "at most 1,000,000 tasks"), (40, "more examples than n")):
        with pytest.raises(ValueError, match=message):
            EvaluationPlan.from_json(plan.to_json().replace('"n": 50', f'"n": {n}', 1))
    with pytest.raises(ValueError, match="task_size must be an integer >= 1, got 0"):
        plan_evaluation(trained, data, task_size=0)


def test_two_attacks_with_flags_make_one_record():
    def flag(name, passed):
        return Check(name=name, passed=passed, value=0.0, explanation="why")

    flags = [flag("a", True), flag("b", True), flag("a", False), flag("b", None), flag("c", False)]
    found = merging._others(flags, [flag("c", True)])
    assert [(check.name, check.passed) for check in found] == [("a", False), ("b", True)]


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY"])
def test_files_that_are_no_parts(content, tmp_path):
    path = tmp_path / "part.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"part\.npz' is not a part of an evaluation: "):
        Part.load(path)
    np.savez(path, about=np.asarray("{}"))
    with pytest.raises(ValueError, match="is not a part of an evaluation"):
        Part.load(path)


@pytest.mark.parametrize(
    "numbers", [[0, 0, 1], [0, 1], [-1, 0, 1], [0.0, 1.0, 2.0], [[0, 1, 2]], [0, 1, 2**31]]
)
def test_numbers_that_are_none(numbers, small_cnn, images):
    with pytest.raises(ValueError, match=r"numbers must be 3 different integers in 0\.\.2\^31 - 1"):
        FGSM(epsilon=0.1).run(small_cnn, images(3), np.zeros(3, int), numbers=numbers)


@pytest.mark.long
@pytest.mark.parametrize("attack", [PGD(epsilon=0.05, steps=3), AutoAttack(epsilon=0.02)])
def test_numbers_make_a_part_of_the_whole(attack, small_cnn, images, tmp_path):
    x, y = images(9), np.arange(9) % 5
    whole = attack.run(small_cnn, x, y, progress=False)
    some = np.array([2, 5, 8])
    options = {"progress": False, "state_file": tmp_path / "state.npz"}
    part = attack.run(small_cnn, x[some], y[some], numbers=some, **options)
    np.testing.assert_array_equal(part.success, whole.success[some])
    np.testing.assert_allclose(part.x_adv, whole.x_adv[some], atol=1e-5)
    with pytest.raises(ValueError, match="belongs to another run: not the same numbers"):
        attack.run(small_cnn, x[some], y[some], numbers=some + 1, **options)
