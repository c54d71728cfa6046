import importlib
import json

import numpy as np
import pytest

from robust_zoo import verify
from robust_zoo.attacks import FGSM, DeepFool
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import evaluate
from robust_zoo.evaluation.verification import _agree
from robust_zoo.record import RobustnessRecord

ATTACKS = (FGSM(epsilon=0.1), DeepFool(steps=5))


@pytest.fixture(scope="module")
def record(trained):
    return evaluate(trained, "digits", attacks=ATTACKS, n=[300, 100], seed=3, checks=False)


def with_record(model, record, **changes):
    told = {**json.loads(record.to_json()), **changes}
    model.robustness = RobustnessRecord.from_json(json.dumps(told))
    return model


@pytest.mark.long
def test_an_honest_record_agrees(trained, record):
    model = with_record(trained, record)
    whole, part = verify(model, progress=False), verify(model, n=60, progress=False)
    assert [item.recorded for item in whole] == [item.measured for item in whole]
    assert [item.measured[1] for item in whole] == [300, 300, 100, 300]
    assert [item.measured[1] for item in part] == [60, 60, 60, 60]
    assert all(item.agrees for item in (*whole, *part))
    # The first 60 of the very sample, not any 60.
    sample = load_dataset("digits").sample(60, 3)
    held = ~FGSM(epsilon=0.1).run(trained, sample.images, sample.labels, progress=False).success
    assert part[1].measured[0] == held.sum()


def test_a_lie_does_not(trained, record):
    told = json.loads(record.to_json())
    clean, attack, worst = told["clean"], told["attacks"][0], told["worst_case"]
    for part in (attack, worst):
        part |= {key: clean[key] for key in ("correct", "accuracy", "ci95")}
    model = with_record(trained, record, attacks=[attack], worst_case=worst)
    for n in (None, 60):
        clean, fgsm, deepfool, worst = verify(model, n=n, progress=False)
        assert (clean.agrees, fgsm.agrees, deepfool.agrees) == (True, False, True)
        assert worst.agrees is False


def test_other_data_are_refused(trained, record):
    model = with_record(trained, record)
    data = load_dataset("digits")
    images = data.images.copy()
    images[:, 0, 0] = 0.25
    from dataclasses import replace

    with pytest.raises(ValueError, match="what the record was measured on: the sha256"):
        verify(model, data=replace(data, images=images))
    few = replace(data, images=data.images[:200], labels=data.labels[:200])
    with pytest.raises(ValueError, match="must have the 300 examples"):
        verify(model, data=few)


@pytest.mark.parametrize(
    "name", ["/etc", "../data", "huggingface:x/y", "mine.npz", "gs://x", "a folder"]
)
def test_no_file_is_opened_for_a_recorded_name(trained, record, name, monkeypatch):
    monkeypatch.delattr(
        importlib.import_module("robust_zoo.evaluation.verification"), "open_dataset"
    )
    dataset = {**json.loads(record.to_json())["dataset"], "name": name}
    model = with_record(trained, record, dataset=dataset)
    with pytest.raises(ValueError, match=r"data must be given: .* is not public by that name"):
        verify(model, n=10, progress=False)
    assert verify(model, data=load_dataset("digits"), n=10, progress=False)[0].agrees


def test_attacks_that_are_none(trained, record):
    told = json.loads(record.to_json())["minimum_norm"][0]
    for change, message in (
        ({"name": "np"}, "'np' of the record cannot be made again: it is none of"),
        ({"config": {"steps": 0}}, "'DeepFool' of the record cannot be made again: steps"),
        ({"config": {"nothing": 1}}, "cannot be made again"),
    ):
        model = with_record(trained, record, minimum_norm=[{**told, **change}])
        with pytest.raises(ValueError, match=message):
            verify(model, n=10, progress=False)


def test_no_examples(trained, record):
    with pytest.raises(ValueError, match="n must be an integer >= 1"):
        verify(with_record(trained, record), n=0)


def test_no_record(trained):
    trained.robustness = None
    with pytest.raises(ValueError, match="has no record to verify"):
        verify(trained)


@pytest.mark.parametrize(
    ("recorded", "measured", "agrees"),
    [
        ((500, 1000), (500, 1000), True),
        ((500, 1000), (505, 1000), True),
        ((500, 1000), (506, 1000), False),
        ((10, 20), (11, 20), True),
        ((10, 20), (12, 20), False),
        ((500, 1000), (50, 100), True),
        ((500, 1000), (37, 100), True),  # 2.6 deviations of 0.5 sqrt(100 x 0.9)
        ((500, 1000), (30, 100), False),  # 4.2
        ((0, 1000), (0, 100), True),
        ((0, 1000), (3, 100), True),
        ((0, 1000), (9, 100), False),
        ((1000, 1000), (100, 100), True),
        ((1000, 1000), (80, 100), False),
    ],
)
def test_what_chance_and_machines_explain(recorded, measured, agrees):
    assert _agree(recorded, measured) is agrees


def test_false_alarms_are_rare():
    rng = np.random.default_rng(0)
    held = np.arange(1000) < 430
    counts = [int(rng.permutation(held)[:200].sum()) for _ in range(2000)]
    assert sum(not _agree((430, 1000), (count, 200)) for count in counts) <= 4
