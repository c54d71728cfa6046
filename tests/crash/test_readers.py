"""Readers in processes of their own while others write: every model that they see is of one version."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.crash

NAMES = ("mlp.natural_digits", "mlp.pgd_digits")

# The hash of what is loaded, weights and name of the record; None where there is no record.
PROGRAM = """
import sys, warnings
import robust_zoo as rz
from robust_zoo.weights import variables_sha256

what, place, count, names = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
warnings.simplefilter("ignore")
if what == "write":
    models = [rz.load_model(name) for name in names]
    recorded = [rz.load_model(name).robustness for name in names]
    for number in range(count):
        rz.save_model(models[number % 2], place, recorded[number % 2] if number % 4 < 2 else None)
else:
    for number in range(count):
        model = rz.load_model(place if number % 2 else "file://" + place)
        record = model.robustness
        print(variables_sha256(model), record.weights.sha256 if record else None)
"""


def test_two_thousand_loads_see_one_version_each(tmp_path):
    place = str(tmp_path / "model")
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}

    def start(what, count):
        command = [sys.executable, "-c", PROGRAM, what, place, str(count), *NAMES]
        output = subprocess.PIPE if what == "read" else None
        return subprocess.Popen(command, stdout=output, text=True, env=environment)

    assert start("write", 1).wait() == 0
    writers = [start("write", 300) for _ in range(2)]
    readers = [start("read", 334) for _ in range(6)]
    seen = [line.split() for reader in readers for line in reader.communicate()[0].splitlines()]
    assert [process.wait() for process in (*readers, *writers)] == [0] * 8
    assert len(seen) == 2004
    pairs = {(weights, record) for weights, record in seen}
    weights = {weights for weights, _ in pairs}
    assert len(weights) == 2
    for one in weights:  # each with its own record, or with none
        assert len({record for found, record in pairs if found == one} - {"None"}) == 1
    records = {record for _, record in pairs} - {"None"}
    assert len(records) == 2
