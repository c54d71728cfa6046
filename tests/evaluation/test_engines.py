"""The same record from several processes, and from Ray."""

import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from robust_zoo.attacks import PGD, DeepFool
from robust_zoo.evaluation import evaluate, plan_evaluation
from robust_zoo.evaluation.engines import measure_tasks, packed

NEEDS_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra ray"
)
ATTACKS = (PGD(epsilon=0.1, steps=3), DeepFool())
OPTIONS = {"attacks": ATTACKS, "n": 60, "task_size": 16, "seed": 1}


def timeless(record):
    told = record.model_dump(mode="json", exclude={"created"})
    for part in (*told["attacks"], *told["minimum_norm"]):
        part.pop("seconds")
    return told


@pytest.mark.long
@pytest.mark.home
def test_two_processes_make_the_record_of_one(trained, tmp_path):
    parts = tmp_path / "parts"
    several = evaluate(trained, "digits", **OPTIONS, workers=2, state_directory=parts)
    assert timeless(several) == timeless(evaluate(trained, "digits", **OPTIONS))
    assert len(list(parts.iterdir())) == 17
    # All is kept, and nothing measured again.
    begun = time.perf_counter()
    again = evaluate(trained, "digits", **OPTIONS, workers=2, state_directory=parts)
    assert time.perf_counter() - begun < 2
    assert timeless(again) == timeless(several)


RAY = """
import os, pathlib, sys
from robust_zoo.attacks import PGD, DeepFool
from robust_zoo.evaluation import engines, evaluate
from robust_zoo.zoo import load_model

if __name__ == "__main__":
    model = load_model("mlp.pgd_digits")
    options = dict(attacks=(PGD(epsilon=0.1, steps=3), DeepFool()), n=60, task_size=4, seed=1, checks=False)
    record = evaluate(model, "digits", engine="ray", workers=2, state_directory=sys.argv[1], **options)
    (idle,) = engines._IDLE.values()
    workers = set(idle)
    assert len(workers) == 2
    again = evaluate(model, "digits", engine="ray", workers=2, **options)
    assert again.clean == record.clean and set(idle) == workers  # none was started
    # A cluster that is named is not the one that was started here.
    try:
        evaluate(model, "digits", engine="ray", address="auto", **options)
    except ValueError as error:
        assert "address must be of a Ray cluster that can be reached" in str(error), error
    else:
        raise AssertionError("measured elsewhere")
    alone = evaluate(model, "digits", **options)
    for one, other in zip([*record.attacks, *record.minimum_norm], [*alone.attacks, *alone.minimum_norm]):
        assert one.model_copy(update={"seconds": 0.0}) == other.model_copy(update={"seconds": 0.0})
    assert (record.clean, record.worst_case) == (alone.clean, alone.worst_case)
    print("equal")
"""


@pytest.mark.long
@pytest.mark.home
@NEEDS_RAY
def test_ray_makes_the_same_record_though_a_worker_is_killed(tmp_path):
    script = tmp_path / "measure.py"
    script.write_text(RAY)
    parts = tmp_path / "parts"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(script), str(parts)], **pipes) as process:
        try:
            killed = None
            while process.poll() is None and killed is None:
                if parts.is_dir() and len(list(parts.iterdir())) > 2:
                    killed = kill_a_worker(process.pid)
                time.sleep(0.05)
            out, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, killed is not None) == (0, True), errors[-2000:]
    assert out.splitlines()[-1] == "equal"


def kill_a_worker(ancestor):
    """Kills one of Ray's actors below a process, and tells which; None if there is none."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            told = path.read_bytes()
            number = int(path.parent.name)
            if b"ray::RayWorker" in told and ancestor in ancestors(number):
                os.kill(number, signal.SIGKILL)
                return number
        except OSError:
            continue
    return None


def ancestors(number):
    found = []
    while number > 1:
        status = pathlib.Path(f"/proc/{number}/stat").read_text()
        number = int(status.rpartition(")")[2].split()[1])
        found.append(number)
    return found


def test_what_cannot_be_sent_elsewhere_is_told(trained):
    class Mine(PGD):
        pass

    plan = plan_evaluation(trained, "digits", attacks=Mine(epsilon=0.1), n=3)
    with pytest.raises(ValueError, match="must be of classes that other processes can import"):
        packed(plan)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"engine": "spark"}, ValueError, "engine must be one of process, ray, got 'spark'"),
        ({"workers": 0}, ValueError, "workers must be an integer >= 1, got 0"),
        ({"workers": 1.5}, ValueError, "workers must be an integer >= 1"),
        ({"address": "auto"}, ValueError, "it needs engine='ray', got 'auto'"),
    ],
)
def test_engines_that_are_none(trained, options, error, message):
    plan = plan_evaluation(trained, "digits", n=3)
    with pytest.raises(error, match=message):
        measure_tasks(plan, plan.tasks, **options)


def test_ray_that_is_not_installed_is_told(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    plan = plan_evaluation(trained, "digits", n=3)
    with pytest.raises(ImportError, match=r"pip install 'robust-zoo\[ray\]'"):
        measure_tasks(plan, plan.tasks, engine="ray")


@pytest.mark.slow
@NEEDS_RAY
def test_a_cluster_that_cannot_be_reached(trained):
    plan = plan_evaluation(trained, "digits", n=3)
    with pytest.raises(
        ValueError, match="address must be of a Ray cluster that can be reached, got 'auto'"
    ):
        measure_tasks(plan, plan.tasks, engine="ray", address="auto")
