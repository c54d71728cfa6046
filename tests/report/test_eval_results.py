import pathlib

import pytest
import yaml

from robust_zoo.record import Certified
from robust_zoo.report.eval_results import BENCHMARK, TASKS, eval_results, task_of
from robust_zoo.zoo import load_record

BENCHMARK_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmark"


def test_tasks_are_those_of_the_benchmark():
    told = yaml.safe_load((BENCHMARK_FOLDER / "eval.yaml").read_text())
    assert {"name", "description", "evaluation_framework", "tasks"} <= told.keys()
    found = {task["id"]: task["config"] for task in told["tasks"]}
    assert found == {
        f"{task}-{kind}": dataset
        for task, (dataset, _, _) in TASKS.items()
        for kind in ("robust", "clean", "certified")
    }
    readme = (BENCHMARK_FOLDER / "README.md").read_text()
    assert all(f"`{task}`" in readme for task in TASKS)
    assert BENCHMARK in readme


def test_what_is_written():
    record = load_record("preact_resnet.pgd_cifar10")
    robust, clean = yaml.safe_load(eval_results(record, "me/robust"))
    assert robust["dataset"] == {"id": BENCHMARK, "task_id": "cifar10-linf-8-255-robust"}
    assert robust["value"] == pytest.approx(100 * record.worst_case.accuracy)
    assert robust["source"] == {
        "url": "https://huggingface.co/me/robust/blob/main/robustness.json",
        "name": "robustness.json",
    }
    assert "AutoAttack" in robust["notes"]
    assert "n 1000, 95% interval 43.82 to 50.00, seed 0" in robust["notes"]
    assert clean["dataset"]["task_id"] == "cifar10-linf-8-255-clean"
    assert clean["value"] == pytest.approx(100 * record.clean.accuracy)
    proof = Certified.count(
        10, 1000, methods=("ibp",), norm="linf", epsilon=8 / 255, seed=0, undecided=0, seconds=1.0
    )
    proven = record.model_copy(update={"certified": (proof,)})
    *_, last = yaml.safe_load(eval_results(proven, "me/robust"))
    assert (last["dataset"]["task_id"], last["value"]) == ("cifar10-linf-8-255-certified", 1.0)


def test_records_of_no_task():
    assert task_of(load_record("madry_cnn.pgd_mnist")) == "mnist-linf-0.3"
    digits = load_record("mlp.pgd_digits")
    assert task_of(digits) == ""
    assert eval_results(digits, "me/robust") == ""
    record = load_record("madry_cnn.pgd_mnist")
    train = record.dataset.model_copy(update={"split": "train"})
    assert task_of(record.model_copy(update={"dataset": train})) == ""
