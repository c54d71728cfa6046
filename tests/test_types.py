"""What a type checker makes of the public names."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

import robust_zoo as rz

# Each line with whether a type checker has to refuse it.
LINES = [
    ("import keras, numpy as np, pathlib", False),
    ("import robust_zoo as rz", False),
    ("model = rz.load_model('mlp.pgd_digits')", False),
    ("rz.load_model(pathlib.Path('here'), num_classes=3)", False),
    ("rz.load_model(3)", True),
    ("rz.load_model('mlp.pgd_digits', nonsense=True)", True),
    ("attack = rz.attacks.PGD(epsilon=0.1, steps=40)", False),
    ("rz.attacks.PGD(epsilonn=3)", True),
    ("rz.attacks.PGD(epsilon='large')", True),
    ("x, y = np.zeros((2, 8, 8, 1), 'float32'), np.zeros(2, 'int32')", False),
    ("attack.run(model, x, y, seed=1).success.mean()", False),
    ("attack.run(model, x, y, sed=1)", True),
    ("record = rz.evaluate(model, 'digits', attacks=[attack], n=100)", False),
    ("rz.evaluate(model, 'digits', attack=attack)", True),
    ("record.worst_case_accuracy", True),
    ("rz.save_model(model, 'here', record)", False),
    ("rz.save_model(model, 'here', 0.9)", True),
    ("rz.publish('here', 'hf://me/here', tag='v1')", False),
    ("rz.publish('here', 'hf://me/here', tags='v1')", True),
    ("rz.list_models(role='robust')[0].clean.accuracy", False),
    ("rz.list_models(role='good')", True),
    ("rz.defenses.AdversarialTraining(model, attack=attack, ramp_steps=10)", False),
    ("rz.defenses.AdversarialTraining(model, attak=attack)", True),
    ("rz.architectures.mlp((8, 8, 1), hidden=(16,))", False),
    ("rz.architectures.mlp((8, 8, 1), hiden=(16,))", True),
    ("rz.load_dataset('digits').sample(10, 0).images", False),
    ("rz.load_models", True),
]


@pytest.mark.slow
def test_a_type_checker_refuses_what_is_wrong_and_nothing_else(tmp_path):
    path = tmp_path / "use.py"
    path.write_text("".join(f"{line}\n" for line, _ in LINES))
    package = pathlib.Path(rz.__file__).parents[1]
    options = ["--ignore-missing-imports", "--follow-imports=silent", "--no-incremental"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, path.name],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(package)},
        capture_output=True,
        text=True,
    )
    refused = {int(number) for number in re.findall(r"^use\.py:(\d+): error", done.stdout, re.M)}
    wanted = {number for number, (_, wrong) in enumerate(LINES, 1) if wrong}
    assert refused == wanted, done.stdout + done.stderr
