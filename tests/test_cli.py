import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from rich.console import Console

from robust_zoo import cli
from robust_zoo.attacks import ATTACKS
from robust_zoo.certification import certify
from robust_zoo.cli.common import number, parse_attack, read_attack
from robust_zoo.datasets import load_dataset
from robust_zoo.papers.comparison import Comparison
from robust_zoo.papers.madry.tables import by_scale
from robust_zoo.places import checkpoints_directory
from robust_zoo.recipe import execution
from robust_zoo.record import Accuracy, RobustnessRecord
from robust_zoo.zoo import (
    CheckpointError,
    IndexEntry,
    list_models,
    load_history,
    load_model,
    save_model,
)

pytestmark = pytest.mark.usefixtures("few_planted")


@pytest.fixture
def recipe(tmp_path):
    """A recipe file of one's own, with one attack of one step."""
    path = tmp_path / "mlp_fgsm_digits.py"
    path.write_text(
        "import keras\n"
        "from robust_zoo import architectures\n"
        "from robust_zoo.attacks import FGSM\n"
        "from robust_zoo.defenses import AdversarialTraining\n"
        "from robust_zoo.recipe import Recipe\n"
        "def get_recipe():\n"
        "    return Recipe(\n"
        "        name='mlp.fgsm_digits', dataset='digits', epochs=2, batch_size=64, attacks=(FGSM(epsilon=0.1),),\n"
        "        classifier=lambda: architectures.mlp((8, 8, 1)),\n"
        "        defense=lambda model, steps: AdversarialTraining(model, attack=FGSM(epsilon=0.1)),\n"
        "        optimizer=lambda steps: keras.optimizers.Adam(2e-3),\n"
        "    )\n"
    )
    return path


def test_list(command):
    status, out, err = command("list")
    assert (status, err) == (0, "")
    for entry in list_models():
        assert entry.name in out
        assert f"{100 * entry.clean.accuracy:.2f}%" in out
    assert "mlp.natural_digits" not in out
    _, out, _ = command("list", "--all")
    for entry in list_models(role="all"):
        assert entry.name in out


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, {"model"}),
        (60, {"model", "worst case", "clean"}),
        (80, {"model", "worst case", "clean", "dataset"}),
        (200, {"model", "worst case", "clean", "dataset", "threat model", "n", "attacks"}),
    ],
)
def test_a_list_cuts_no_name_however_narrow_the_terminal(command, monkeypatch, width, shown):
    monkeypatch.setattr("robust_zoo.cli.common.console", lambda: Console(width=width, markup=False))
    _, out, _ = command("list", "--all")
    heading = next(line for line in out.splitlines() if "model" in line)
    assert {part.strip() for part in heading.split("│")} - {""} == shown
    for entry in list_models(role="all"):
        assert re.search(rf"^│ {re.escape(entry.name)}\*? ", out, flags=re.M)
    left = {"model", "worst case", "clean", "dataset", "threat model", "n", "attacks"} - shown
    assert ("a wider terminal also shows" in out) == bool(left)


def test_list_filters(command):
    _, out, _ = command("list", "mlp.*", "--dataset", "digits", "--norm", "linf")
    assert "mlp.pgd_digits" in out
    assert "digits_cnn" not in out
    _, out, _ = command("list", "--defense", "natural", "--role", "baseline")
    assert "mlp.natural_digits" in out
    assert "pgd" not in out.replace("PGD", "")


def test_list_json_is_complete(command):
    status, out, _ = command("list", "--json")
    assert status == 0
    assert [
        IndexEntry.model_validate_json(json.dumps(item)) for item in json.loads(out)
    ] == list_models()


def test_show(command):
    status, out, err = command("show", "mlp.pgd_digits")
    record = load_model("mlp.pgd_digits").robustness
    assert (status, err) == (0, "")
    for part in (record.clean, record.worst_case, *record.attacks):
        assert f"{100 * part.accuracy:.2f}%" in out
    for check in record.checks:
        assert check.name in out
    _, out, _ = command("show", "mlp.pgd_digits", "--json")
    assert RobustnessRecord.from_json(out) == record


@pytest.mark.long
def test_evaluate_writes_what_it_prints(command, tmp_path):
    path, picture = tmp_path / "out.json", tmp_path / "curve.png"
    status, out, err = command(
        *("evaluate", "mlp.pgd_digits", "--attack", "pgd:steps=5,restarts=2", "--attack", "fgsm"),
        *("--epsilon", "25.5/255", "--n", 60, "--seed", 3, "--json", path, "--plot", picture),
    )
    assert (status, err) == (0, "")
    record = RobustnessRecord.read(path)
    assert record.name == "mlp.pgd_digits"
    assert record.threat_model.epsilon == pytest.approx(0.1)
    assert [outcome.n_examples for outcome in record.attacks] == [60, 60]
    assert record.attacks[0].config["restarts"] == 2
    assert (record.attacks[0].seed, record.clean.n_examples) == (3, 60)
    assert f"{100 * record.attacks[0].accuracy:.2f}%" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "out.json"]


@pytest.mark.long
def test_evaluate_uses_the_record_s_threat_model_by_default(command, tmp_path):
    status, _, _ = command("evaluate", "mlp.pgd_digits", "--n", 20, "--json", tmp_path / "o.json")
    record = RobustnessRecord.read(tmp_path / "o.json")
    assert status == 0
    assert record.threat_model == load_model("mlp.pgd_digits").robustness.threat_model
    assert [outcome.name for outcome in record.attacks] == ["PGD"]


@pytest.mark.long
def test_evaluate_with_several_kinds_of_attack(command, tmp_path):
    path = tmp_path / "out.json"
    names = ("autoattack", "deepfool:norm=linf", "jsma:gamma=0.1", "pgd-cw+:steps=5")
    options = [part for name in names for part in ("--attack", name)]
    status, out, err = command(
        *("evaluate", "mlp.natural_digits", *options, "--n", 30, "--json", path),
        *("--state", tmp_path / "state"),
    )
    assert (status, err) == (0, "")
    record = RobustnessRecord.read(path)
    assert [outcome.name for outcome in record.attacks] == ["AutoAttack", "PGD"]
    assert record.attacks[1].config["loss"] == {"name": "cw_margin", "confidence": 50.0}
    assert [(item.name, item.norm) for item in record.minimum_norm] == [
        ("DeepFool", "linf"),
        ("JSMA", "l0"),
    ]
    for text in ("after apgd-ce", "after square", "DeepFool-50", "clean-correct only", "JSMA"):
        assert text in out
    # Predictions, four attacks, the curve and the checks.
    assert len(list((tmp_path / "state").iterdir())) == 8


@pytest.mark.long
def test_evaluate_at_several_epsilons(command, tmp_path):
    path, picture = tmp_path / "out.json", tmp_path / "curve.svg"
    status, out, err = command(
        *("evaluate", "mlp.pgd_digits", "--attack", "pgd:steps=5", "--attack", "apgd-ce:steps=5"),
        *("--epsilons", "5/255,25.5/255,0.5", "--n", 40, "--json", path, "--plot", picture),
        *("--state", tmp_path / "state"),
    )
    assert (status, err) == (0, "")
    records = [
        RobustnessRecord.from_json(json.dumps(part)) for part in json.loads(path.read_text())
    ]
    assert [record.threat_model.epsilon for record in records] == pytest.approx([5 / 255, 0.1, 0.5])
    accuracy = [record.attacks[0].accuracy for record in records]
    assert accuracy[0] > accuracy[1] > accuracy[2]
    assert out.count("epsilon ") == 3
    assert "APGD-5" in picture.read_text()
    assert len(list((tmp_path / "state").iterdir())) == 3


@pytest.mark.slow
def test_an_attack_without_a_budget_needs_no_epsilon(command, tmp_path):
    load_model("mlp.pgd_digits").save(tmp_path / "mine.keras")
    options = ("evaluate", tmp_path / "mine.keras", "--dataset", "digits", "--n", 10)
    status, out, err = command(*options, "--attack", "deepfool")
    assert (status, err) == (0, "")
    assert "10 of 10" in out
    status, _, err = command(*options, "--attack", "deepfool", "--attack", "pgd")
    assert status == 1
    assert "--epsilon is needed" in err


@pytest.mark.long
def test_evaluate_anybody_s_keras_file(command, tmp_path):
    zoo = load_model("mlp.pgd_digits")
    theirs = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), zoo, keras.layers.Softmax()],
        name="theirs",
    )
    theirs.save(tmp_path / "mine.keras")
    options = ("--dataset", "digits", "--epsilon", "0.1", "--attack", "fgsm", "--n", 100)
    status, _, err = command(
        *("evaluate", tmp_path / "mine.keras", "--input-range", "0,255", "--output", "softmax"),
        *(*options, "--json", tmp_path / "theirs.json"),
    )
    assert (status, err) == (0, "")
    command("evaluate", "mlp.pgd_digits", *options, "--json", tmp_path / "zoo.json")
    found = RobustnessRecord.read(tmp_path / "theirs.json")
    expected = RobustnessRecord.read(tmp_path / "zoo.json")
    assert found.clean.correct == expected.clean.correct
    assert abs(found.attacks[0].correct - expected.attacks[0].correct) <= 1
    status, _, err = command("evaluate", tmp_path / "mine.keras", *options)
    assert status == 1
    assert "ends in softmax" in err


@pytest.mark.slow
def test_a_model_file_goes_all_the_way_to_a_hub(command, tmp_path):
    """evaluate --save writes a checkpoint that publish takes, of a file in any letter case."""
    load_model("mlp.pgd_digits").save(tmp_path / "mine.keras")
    (tmp_path / "mine.keras").rename(tmp_path / "Mine.KERAS")
    saved = tmp_path / "saved"
    status, out, err = command(
        *("evaluate", tmp_path / "Mine.KERAS", "--dataset", "digits", "--epsilon", "0.1"),
        *("--attack", "fgsm", "--n", 50, "--save", saved),
    )
    assert (status, err) == (0, "")
    assert f"written to {saved}" in out
    handle = f"file://{tmp_path}/hub/mine"
    status, pinned, err = command("publish", saved, handle)
    assert (status, err) == (0, "")
    found = load_model(pinned.strip())
    zoo = load_model("mlp.pgd_digits")
    assert found.robustness.attacks[0].name == "FGSM"
    assert found.robustness.dataset.sha256
    for a, b in zip(found.get_weights(), zoo.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    status, _, err = command(
        *("evaluate", "mlp.pgd_digits", "--attack", "fgsm", "--n", 5, "--save", tmp_path)
    )
    assert status == 1
    assert "exists and is not a checkpoint" in err


@pytest.mark.slow
def test_legacy_files_are_taken(command, tmp_path):
    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]).save(
        tmp_path / "mine.h5"
    )
    status, out, err = command(
        *("evaluate", tmp_path / "mine.h5", "--dataset", "digits", "--attack", "deepfool", "--n", 5)
    )
    assert (status, err) == (0, "")
    assert "not recorded" in out


def test_a_name_that_is_also_a_directory_is_doubtful(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(load_model("mlp.natural_digits"), tmp_path / "mlp.pgd_digits")
    status, _, err = command("show", "mlp.pgd_digits")
    assert status == 1
    assert "write './mlp.pgd_digits' for the directory, or 'zoo://mlp.pgd_digits'" in err
    status, out, _ = command("show", "zoo://mlp.pgd_digits")
    assert (status, "AdversarialTraining" in out) == (0, True)
    _, _, err = command("show", "./mlp.pgd_digits")
    assert "its robustness was never measured" in err
    status, _, err = command("train", "mlp.pgd_digits")
    assert status == 1
    assert "is there already: give --overwrite" in err


@pytest.mark.long
def test_verify(command, tmp_path):
    status, out, err = command("verify", "mlp.natural_digits", "--n", 25)
    assert (status, err) == (0, "")
    parts = len(load_model("mlp.natural_digits").robustness.attacks)
    assert out.count(" agrees") == parts + 3  # clean, DeepFool, and the worst case
    lying = tmp_path / "lying"
    shutil.copytree(checkpoints_directory() / "mlp.natural_digits", lying)
    told = json.loads((lying / "robustness.json").read_text())
    told["attacks"], told["minimum_norm"] = told["attacks"][:1], []
    part = {key: told["clean"][key] for key in ("correct", "accuracy", "ci95")}
    told["attacks"][0] |= part
    told["worst_case"] |= {**part, "attacks": [told["attacks"][0]["name"]]}
    told["attacks"][0]["n_examples"] = told["worst_case"]["n_examples"] = told["clean"][
        "n_examples"
    ]
    (lying / "robustness.json").write_text(json.dumps(told))
    status, out, err = command("verify", lying, "--n", 100)
    assert (status, "DISAGREES" in out) == (1, True)
    assert re.search(r"does not hold: FGSM.*worst case came out otherwise", err)
    told["dataset"]["name"] = "mine.npz"
    (lying / "robustness.json").write_text(json.dumps(told))
    status, out, err = command("verify", lying)
    assert (status, out) == (1, "")
    assert "--dataset must be given: the record was measured on 'mine.npz'" in err
    for path, message in (
        (tmp_path / "none", "no checkpoint directory"),
        ("nosuch", "unknown model"),
    ):
        status, _, err = command("verify", path)
        assert (status, message in err) == (1, True)


def test_a_hostile_record_is_listed_as_text(command, tmp_path, monkeypatch):
    for place, name in enumerate(("[/red]", "[bold]x[/]", ":smile:")):
        directory = tmp_path / "hub" / f"m{place}"
        shutil.copytree(checkpoints_directory() / "mlp.pgd_digits", directory)
        record = json.loads((directory / "robustness.json").read_text())
        record["dataset"]["name"] = record["name"] = name
        (directory / "robustness.json").write_text(json.dumps(record))
        (directory / "README.md").unlink()
        status, out, err = command("show", directory)
        assert (status, err) == (0, "")
        assert name in out
    status, out, err = command("list", "--hub", f"file://{tmp_path}/hub")
    assert (status, err) == (0, "")
    assert all(name in out for name in ("[/red]", "[bold]x[/]", ":smile:"))
    record["dataset"]["name"] = "\x1b[31mred"
    (directory / "robustness.json").write_text(json.dumps(record))
    status, out, err = command("list", "--hub", f"file://{tmp_path}/hub")
    assert (status, "\x1b" in out + err) == (0, False)
    assert "[/red]" in out
    assert re.fullmatch(r"robust-zoo: warning: left out: .*text must be printable.*\n", err)


def test_filters_that_match_nothing_say_what_there_is(command):
    status, _, err = command("list", "--all", "--role", "study")
    assert (status, "--all lists every role: leave out --role study" in err) == (1, True)
    status, _, err = command("list", "--norm", "foo")
    assert (status, "--norm must be one of linf, l2, l1, l0, got 'foo'" in err) == (1, True)
    _, _, err = command("list", "--dataset", "cifar1000")
    assert "mnist" in err
    _, _, err = command("list", "nothing*")
    assert "no robust model matches 'nothing*'" in err


@pytest.mark.slow
def test_wrong_options_are_found_before_tensorflow_starts(tmp_path):
    """In a process of its own, which must not have imported Keras when it fails."""
    (tmp_path / "mine.keras").write_bytes(b"")
    mine = str(tmp_path / "mine.keras")
    code = (
        "import sys; from robust_zoo import cli; sys.argv = ['robust-zoo', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit as stop: print(stop.code, 'keras' in sys.modules)"
    )
    for arguments, message in (
        (["mlp.pgd_digits", "--attack", "pdg"], "--attack: unknown attack 'pdg'"),
        (["mlp.pgd_digits", "--attack", "pgd:stps=3"], "--attack: 'pgd' has no 'stps'"),
        (["mlp.pgd_digits", "--attack", "pgd:steps=0"], "must be an integer >= 1, got '0'"),
        (["mlp.pgd_digits", "--attack", "pgd", "--norm", "l0"], "--norm of 'pgd' must be one of"),
        (["mlp.pgd_digits", "--epsilon", "8"], "--epsilon: epsilon must be at most 1"),
        (
            ["mlp.pgd_digits", "--attack", "apgd-t:targets=10"],
            "--attack: targets must be at most 9",
        ),
        ([mine, "--epsilon", "8"], "write 8/255"),
        ([mine, "--output", "tanh"], "--output must be one of logits, softmax, sigmoid"),
        ([mine, "--input-range", "255"], "--input-range must be two rising numbers"),
        ([f"{mine}x.keras"], "no model file"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, "evaluate", *arguments], capture_output=True, text=True
        )
        assert done.stdout.split() == ["1", "False"], done.stderr
        assert message in done.stderr


def test_errors_name_flags(command, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.save(tmp_path / "mine.keras")
    status, _, err = command(
        *("evaluate", tmp_path / "mine.keras", "--dataset", "digits", "--epsilon", "0.1")
    )
    assert status == 1
    assert "use --output softmax to remove the softmax" in err
    status, _, err = command("evaluate", "mlp.pgd_digits", "--n", "5000")
    assert "--n must be integers in 1..500" in err


def test_ctrl_c_says_what_is_kept(command, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["robust_zoo.evaluation.tasks"], "predict", interrupt)
    status, _, err = command("evaluate", "mlp.pgd_digits", "--n", 5)
    assert (status, "nothing is kept: give --state FOLDER" in err) == (130, True)
    status, _, err = command("evaluate", "mlp.pgd_digits", "--n", 5, "--state", tmp_path / "s")
    assert (status, "the same command resumes from there" in err) == (130, True)


@pytest.mark.long
def test_evaluate_several_models(command, tmp_path):
    path = tmp_path / "records.json"
    models = ("mlp.natural_digits", "mlp.pgd_digits")
    status, out, err = command("evaluate", *models, "--attack", "fgsm", "--n", 60, "--json", path)
    assert (status, err) == (0, "")
    told = json.loads(path.read_text())
    assert [record["name"] for record in told] == list(models)
    table = out[out.rindex("worst case") :]
    assert table.index("mlp.pgd_digits") < table.index(
        "mlp.natural_digits"
    )  # the most robust first
    status, _, err = command("evaluate", *models, "--save", tmp_path / "m")
    assert (status, "--save keeps one record: give one model" in err) == (1, True)


@pytest.mark.long
def test_plan_measure_and_merge(command, tmp_path):
    plan, parts, merged = tmp_path / "plan.json", tmp_path / "parts", tmp_path / "record.json"
    options = ("--attack", "pgd:steps=3", "--attack", "deepfool", "--n", 40, "--seed", 2)
    status, out, err = command(
        *("plan", "mlp.pgd_digits", *options, "--task-size", 16, "--out", plan)
    )
    assert (status, err) == (0, "")
    assert out.startswith(f"13 tasks in {plan}")
    assert command("merge", plan, parts)[0] == 1
    for shard in ("2/2", "1/2", "1/2"):
        status, out, err = command("measure", plan, "--shard", shard, "--out", parts)
        assert (status, err) == (0, "")
    assert f"7 of 13 parts are in {parts}" in out
    status, out, err = command("merge", plan, parts, "--json", merged)
    assert (status, err) == (0, "")
    assert "PGD" in out
    whole = tmp_path / "whole.json"
    assert command("evaluate", "mlp.pgd_digits", *options, "--json", whole)[0] == 0
    one, other = RobustnessRecord.read(merged), RobustnessRecord.read(whole)
    assert one.attacks[0].correct == other.attacks[0].correct
    assert one.worst_case == other.worst_case
    assert [check.passed for check in one.checks] == [check.passed for check in other.checks]
    (parts / "part_00003.npz").unlink()
    status, _, err = command("merge", plan, parts)
    assert (status, "but 1 are missing: 3." in err) == (1, True)


@pytest.mark.long
def test_a_plan_knows_where_its_data_are(command, tmp_path):
    (tmp_path / "data").mkdir()
    data = load_dataset("digits").sample(8, 0)
    np.savez(tmp_path / "data" / "few.npz", images=data.images, labels=data.labels)
    plan, parts = tmp_path / "plan.json", tmp_path / "parts"
    where = ("--dataset", tmp_path / "data" / "few.npz")
    options = ("--attack", "fgsm", "--epsilon", 0.1, *where)
    assert command("plan", "mlp.pgd_digits", *options, "--out", plan)[0] == 0
    status, _, err = command("measure", plan, "--out", parts)
    assert (status, err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("measure", "PLAN", "--out", "parts", "--shard", "3/2"), "--shard must be a number of a count"),
        (("measure", "PLAN", "--out", "parts", "--shard", "x"), "such as 3/16, got 'x'"),
        (("measure", "PLAN", "--out", "parts", "--workers", 0), "--workers must be an integer >= 1"),
        (("measure", "PLAN", "--out", "parts"), "PLAN is not a valid plan: it: "),
        (("merge", "PLAN", "parts"), "PLAN is not a valid plan"),
        (("measure", "nowhere.json", "--out", "parts"), "No such file"),
        (("evaluate", "mlp.pgd_digits", "--engine", "spark"), "--engine must be one of process, ray"),
        (("evaluate", "mlp.pgd_digits", "--address", "auto", "--n", 5), "needs engine='ray'"),
        (("plan", "mlp.pgd_digits", "--out", "PLAN", "--task-size", 0), "--task-size must be an integer"),
    ],
)  # fmt: skip
def test_plans_that_are_refused(command, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("PLAN").write_text("{}{")
    status, _, err = command(*arguments)
    assert (status, message in err) == (1, True), err


@pytest.mark.long
def test_training_stops_at_its_time_limit_and_goes_on(command, recipe, tmp_path):
    arguments = ("train", recipe, "--output", tmp_path / "m", "--set", "epochs=3")
    status, out, err = command(*arguments, "--max-minutes", "0.001")
    assert status == 75
    assert "stopped after epoch 1 of 3" in err
    status, out, err = command(*arguments, "--resume", "--set", "n=20")
    assert status == 0
    assert "Epoch 1/3" not in out
    assert "Epoch 3/3" in out
    assert f"robust_zoo.load_model('{tmp_path / 'm'}') loads it" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "mlp.pgd_digit"], "did you mean mlp.pgd_digits"),
        (["show", "./nowhere"], "no checkpoint directory './nowhere'"),
        (["evaluate", "mlp.pgd_digits", "--attack", "pdg"], "unknown attack 'pdg'"),
        (["evaluate", "mlp.pgd_digits", "--attack", "pdg"], "apgd-t, fab-t, square"),
        (["evaluate", "mlp.pgd_digits", "--attack", "pgd:stps=3"], "has no 'stps'"),
        (
            ["evaluate", "mlp.pgd_digits", "--attack", "pgd:epsilon=1"],
            "epsilon is set by --epsilon",
        ),
        (["evaluate", "mlp.pgd_digits", "--attack", "fab-t:targets=10"], "at most 9"),
        (["evaluate", "mlp.pgd_digits", "--attack", "pixel-swap"], "whole number of changed"),
        (
            ["evaluate", "mlp.pgd_digits", "--attack", "pixel-swap", "--epsilon", "2.5"],
            "--epsilon: epsilon must be a whole number of changed values",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--attack", "deepfool", "--plot", "x.png"],
            "attacks with a budget only",
        ),
        (["evaluate", "mlp.pgd_digits", "--epsilon", "0.1", "--epsilons", "0.2"], "both"),
        (["evaluate", "mlp.pgd_digits", "--epsilons", "0.1,x"], "0.3 or 8/255, got 'x'"),
        (
            ["evaluate", "mlp.pgd_digits", "--epsilons", "0.1,0.2", "--attack", "deepfool"],
            "deepfool has none",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--attack", "pgd:steps=x"],
            "--attack: steps of 'pgd' must be an integer >= 1, got 'x'",
        ),
        (["evaluate", "mlp.pgd_digits", "--epsilon", "8"], "epsilon must be at most 1"),
        (["evaluate", "mlp.pgd_digits", "--epsilon", "lots"], "0.3 or 8/255, got 'lots'"),
        (["evaluate", "mlp.pgd_digits", "--norm", "l9"], "norm must be one of"),
        (["evaluate", "mlp.pgd_digits", "--norm", "l0"], "--norm of 'pgd' must be one of linf, l2"),
        (["evaluate", "mlp.pgd_digits", "--attack", "pgd:loss=hinge"], "one of cross_entropy, cw"),
        (["evaluate", "mlp.pgd_digits", "--dataset", "nosuchset"], "unknown dataset"),
        (["evaluate", "mlp.pgd_digits", "--n", "0"], "--n must be an integer >= 1, got 0"),
        (["evaluate", "mlp.pgd_digits", "--epsilon", "1e400"], "epsilon must be > 0 and finite"),
        (
            ["evaluate", "mlp.pgd_digits", "--attack", "pgd:random_start=no"],
            "random_start of 'pgd' must be true or false, got 'no'",
        ),
        (["evaluate", "mlp.pgd_digits", "--plot", "curve.xyz"], "must end in one of"),
        (["evaluate", "mlp.pgd_digits", "--json", "/"], "--json must be a file"),
        (
            ["evaluate", "mlp.pgd_digits", "--dataset", "mnist:9.9.9"],
            "unknown dataset 'mnist:9.9.9'",
        ),
        (["train", "mlp.pgd_digits", "--devices", "0"], "divisible by the number of devices"),
        (["evaluate", "mlp.pgd_digits", "--json", "/no/such/out.json"], "--json: no directory"),
        (["evaluate", "mlp.pgd_digits", "--output", "softmax"], "are for .keras and .h5 files"),
        (["evaluate", "/no/such.keras"], "no model file '/no/such.keras'"),
        (["train", "mlp.none"], "no recipe 'mlp.none'"),
        (["train", "mlp.pgd_digits", "--set", "epochs=none"], "setting epochs"),
        (["cards", "/no/such"], "no checkpoints"),
        (["publish", "/no/such", "file:///hub/x"], "no checkpoint directory '/no/such'"),
        (["publish", "/no/such", "hub/x"], "must begin with one of ['hf://', 'file://']"),
        (["publish", "/no/such", "file:///hub/x", "--tag", "v1"], "tag is for hf:// only"),
        (["list", "--hub", "file:///no/such"], "there is no hub at file:///no/such"),
        (["show", "file:///no/such"], "there is no model at file:///no/such"),
        (["reproduce", "table9"], "name must be one of ("),
        (["plot", "curves", "mlp.pgd_digits", "--output", "x.bmp"], "must end in one of"),
        (
            ["plot", "radii", "mlp.pgd_digits", "--output", "x.png"],
            "must have certificates by smoothing",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--certify", "abc"],
            "--certify must be one of ibp, crown-ibp, each once, got abc",
        ),
        (["evaluate", "mlp.pgd_digits", "--skip-certified"], "--skip-certified needs --certify"),
        (["corruptions", "mlp.pgd_digits", "--corruption", "rain"], "--corruption must be some of"),
        (["evaluate", "mlp.pgd_digits", "--smoothing", "n=20"], "--smoothing needs sigma"),
        (
            ["evaluate", "mlp.pgd_digits", "--smoothing", "sigma=0.1,n=3"],
            "--smoothing: n must be at least 10",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--smoothing", "sigma=0.1,n=x"],
            "--smoothing: n must be an integer, got 'x'",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--smoothing", "sigma=0.1,radii=0:a"],
            "--smoothing: radii must be numbers such as 0:0.25:0.5, got '0:a'",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--smoothing", "sigma=0.1,radii=0.2:-0.1"],
            "--smoothing: radii must be rising numbers >= 0",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--threat-model", "l2"],
            "--threat-model must be a norm and a radius, such as l2:0.5",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--threat-model", "l1:0.5"],
            "--threat-model must have a norm of each attack with a budget: PGD has linf, l2, got 'l1'",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--attack", "fgsm", "--threat-model", "l2:100"],
            "--threat-model must not be larger than l2 8",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--attack", "deepfool", "--threat-model", "l2:1"],
            "--threat-model needs attacks with a budget",
        ),
        (
            ["evaluate", "mlp.pgd_digits", "--certify", "ibp", "--norm", "l2"],
            "--certify is for the linf ball of the attacks, got attacks of norm 'l2'",
        ),
        (["evaluate", "mlp.pgd_digits", "--attack", "ddn:levels=1"], "--attack: levels must be 0"),
        (
            ["evaluate", "mlp.pgd_digits", "--threat-model", "linf:8"],
            "--threat-model: epsilon must be at most 1",
        ),
        (
            ["plot", "curves", "mlp.pgd_digits", "madry_cnn.pgd_mnist", "--output", "x.png"],
            "must have curves on one dataset",
        ),
        (
            [
                "plot",
                "transfer",
                "mlp.pgd_digits",
                "madry_cnn.pgd_mnist",
                "--output",
                "x.png",
                "--epsilon",
                "0.1",
            ],
            "records of one dataset, got ['digits', 'mnist']",
        ),
        (
            [
                "plot",
                "landscape",
                "mlp.pgd_digits",
                "--output",
                "x.png",
                "--epsilon",
                "0.1",
                "--index",
                "500",
            ],
            "--index must be in 0..499, got 500",
        ),
    ],
)
def test_failures_are_one_sentence(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(*arguments)
    assert status == 1
    assert message in err
    assert err.startswith("robust-zoo: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["nonsense"], ["list", "--colour", "red"], ["train", "x", "--set", "epochs"]],
)
def test_wrong_usage(command, arguments):
    status, out, err = command(*arguments)
    assert status == 2
    assert "Usage" in out + err


@pytest.mark.long
def test_train_resumes(command, recipe, tmp_path, monkeypatch):
    evaluate = execution.evaluate
    monkeypatch.setattr(execution, "evaluate", lambda *a, **k: 1 / 0)
    output = tmp_path / "out" / "m"
    arguments = ("train", recipe, "--output", output)
    status, out, err = command(*arguments)
    assert (status, err) == (1, "robust-zoo: division by zero\n")
    monkeypatch.setattr(execution, "evaluate", evaluate)
    status, out, _ = command(*arguments, "--resume", "--set", "n=20")
    assert status == 0
    assert "Epoch" not in out  # nothing was left to train, and nothing was lost
    assert [path.name for path in output.parent.iterdir()] == ["m"]


def test_a_fresh_process_fails_with_one_sentence(tmp_path):
    root = pathlib.Path(cli.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "robust_zoo.cli", "show", "nosuch"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        },
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("robust-zoo: unknown model 'nosuch'")
    assert done.stderr.count("\n") == 1


@pytest.mark.long
def test_train_and_cards(command, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "checkpoints" / "mlp.fgsm_digits"
    status, out, _ = command("train", recipe, "--output", output, "--set", "n=50")
    assert status == 0
    assert "Epoch 2/2" in out
    assert f"written to {output}" in out
    record = load_model(output).robustness
    assert (record.training.epochs, record.clean.n_examples) == (2, 50)
    (output / "README.md").write_text("stale")
    status, out, _ = command("cards")
    assert status == 0
    assert "1 cards" in out
    assert record.name in (output / "README.md").read_text()
    assert record.name in (tmp_path / "MODEL_CARDS.md").read_text()


@pytest.mark.long
def test_nothing_but_the_answer_is_printed_in_a_pipe(tmp_path):
    """A fresh process: no start-up chatter, no bar."""
    arguments = ["evaluate", "mlp.pgd_digits", "--attack", "fgsm", "--n", "20"]
    environment = {key: v for key, v in os.environ.items() if not key.startswith("TF_CPP")}
    root = pathlib.Path(cli.__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(root), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "robust_zoo.cli", *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].strip() == "mlp.pgd_digits"
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(("text", "value"), [("0.3", 0.3), ("8/255", 8 / 255), (" 1 / 4 ", 0.25)])
def test_numbers(text, value):
    assert np.isclose(number(text, "--epsilon"), value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pgd:step_size=-1", "step_size of 'pgd' must be a number > 0, got '-1'"),
        ("pgd:step_size=nan", "step_size of 'pgd' must be a number > 0, got 'nan'"),
        ("pgd:steps=1.5", "steps of 'pgd' must be an integer >= 1, got '1.5'"),
        ("apgd-t:rho=2", "rho of 'apgd-t' must be a number > 0 and <= 1, got '2'"),
        ("fab-t:beta=x", "beta of 'fab-t' must be a number such as 0.3 or 8/255, got 'x'"),
        ("deepfool:candidates=1", "must be an integer >= 2, got '1'"),
        ("pgd:labels=least_likely", "labels=least_likely needs targeted=true"),
        ("fgsm-pred:targeted=true", "labels=predicted cannot be targeted"),
        ("fgsm:loss=kl_divergence", "loss=kl_divergence needs a random start"),
        ("pgd:loss=kl_divergence,random_start=false", "loss=kl_divergence needs a random start"),
        ("jsma:theta=0", "theta must not be 0"),
        ("pgd:steps=3,steps=4", "steps of 'pgd' is given twice, got 'pgd:steps=3,steps=4'"),
    ],
)
def test_attacks_that_cannot_be(text, message):
    with pytest.raises(ValueError, match=f"^--attack: .*{re.escape(message)}"):
        read_attack(text)


def test_names_of_attacks_in_any_letter_case():
    assert read_attack("PGD:steps=3") == ("pgd", {"steps": 3})
    assert parse_attack("Step-LL", 0.1, None) == ATTACKS["step-ll"](epsilon=0.1)


@pytest.mark.slow
def test_publish_list_show_and_evaluate_on_a_hub(command, tmp_path):
    shipped = checkpoints_directory() / "mlp.pgd_digits"
    handle = f"file://{tmp_path}/hub/robust"
    sha256 = load_model("mlp.pgd_digits").robustness.sha256
    assert command("publish", shipped, handle) == (0, f"{handle}#{sha256}\n", "")
    status, out, err = command("list", "--hub", f"file://{tmp_path}/hub")
    assert (status, err) == (0, "")
    assert handle in out
    status, out, _ = command("show", handle, "--json")
    assert RobustnessRecord.from_json(out) == load_model("mlp.pgd_digits").robustness
    status, out, err = command("evaluate", handle, "--attack", "fgsm", "--n", 20)
    assert (status, err) == (0, "")
    assert "FGSM" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["curves"],
        ["landscape", "--epsilon", "25.5/255", "--steps", "3", "--restarts", "2"],
        ["transfer", "--epsilon", "0.1", "--n", "20"],
        ["roll-off", "--epsilons", "2,8,64", "--attack", "pixel-swap", "--n", "20"],
        ["top-k", "--epsilons", "0.1,51/255", "--k", "1", "--k", "3", "--n", "20"],
        ["top-k", "--epsilons", "0.1", "--n", "20"],
        ["fooling", "--epsilons", "0.1,0.5", "--n", "4", "--threshold", "0.5"],
        ["fooling-images", "--steps", "2"],
    ],
)
def test_plot(command, tmp_path, options):
    picture = tmp_path / "picture.svg"
    kind, *others = options
    models = ("mlp.pgd_digits", "mlp.natural_digits")
    assert command("plot", kind, *models, "--output", picture, *others) == (0, f"{picture}\n", "")
    text = picture.read_text()
    assert all(name in text for name in models)


def test_plot_robustness_curve(command, tmp_path):
    picture = tmp_path / "picture.svg"
    options = ("--output", picture, "--attack", "DeepFool")
    models = ("mlp.pgd_digits", "mlp.natural_digits")
    status, out, err = command("plot", "robustness-curve", *models, *options)
    assert (status, out, err) == (0, f"{picture}\n", "")
    for method in ("mlp, AdversarialTraining, PGD", "mlp, natural training"):
        assert method in picture.read_text()
    clean = load_model(models[0]).robustness.clean.accuracy
    status, out, _ = command("plot", "robustness-curve", *models, *options, "--accuracy", clean)
    assert re.search(r"^mlp, AdversarialTraining, PGD: [\d.]+$", out, flags=re.M)
    assert "mlp, natural training: not reached" in out
    other = (*options[:3], "CarliniWagner")
    status, _, err = command("plot", "robustness-curve", *models, *other)
    assert status == 1
    assert "must have distances under CarliniWagner, got 'mlp.pgd_digits'" in err


@pytest.mark.long
def test_certify(command, tmp_path):
    figures = tmp_path / "figures.json"
    options = ("--epsilon", 0.005, "--n", 40, "--json", figures)
    status, out, err = command("certify", "mlp.pgd_digits", *options)
    assert (status, err) == (0, "")
    told = json.loads(figures.read_text())
    model, data = load_model("mlp.pgd_digits"), load_dataset("digits").sample(40, 0)
    expected = certify(model, data.images, data.labels, epsilon=0.005).accuracy
    assert (told["certified"]["correct"], told["certified"]["n_examples"]) == (expected.correct, 40)
    assert 0 < expected.correct <= 40
    assert f"certified: {100 * expected.accuracy:.2f}%" in out
    assert "attacks leave" not in out
    status, out, _ = command("certify", "mlp.pgd_digits", "--n", 5, "--method", "ibp")
    assert "of 5 images at linf 0.1, by ibp\nattacks leave 86.80% in its record" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mlp.pgd_digits", "--method", "lp"), "--method must be one of ibp, crown-ibp, each once, got lp"),
        (("mlp.pgd_digits", "--n", 501), "--n must be at most 500, the images of the split, got 501"),
        (("mlp.pgd_digits", "--epsilon", "wide"), "--epsilon must be"),
        (("allconv.natural_cifar10",), "--epsilon is needed: the record of 'allconv.natural_cifar10' is of norm l2"),
    ],
)  # fmt: skip
def test_certificates_that_are_refused(command, arguments, message):
    status, _, err = command("certify", *arguments)
    assert (status, message in err) == (1, True), err


def test_plot_training(command, tmp_path):
    picture = tmp_path / "picture.svg"
    options = ("allconv.natural_cifar10", "allconv.pgn_cifar10", "--output", picture)
    assert command("plot", "training", *options) == (0, f"{picture}\n", "")
    for text in ("robust accuracy", "allconv.pgn_cifar10"):
        assert f"<!-- {text} -->" in picture.read_text()
    status, _, err = command("plot", "training", "mlp.pgd_digits", "--output", picture)
    assert status == 1
    assert "has no history of its training: a recipe that trains it writes one" in err


def test_histories(tmp_path):
    found = load_history("allconv.natural_cifar10")
    assert [row["epoch"] for row in found] == list(range(1, 21))
    assert {"loss", "accuracy", "val_loss"} <= set(found[-1])
    for content in (
        "",
        "[]",
        '{"history": null}',
        '{"history": []}',
        '{"history": [{"loss": "x"}]}',
    ):
        (tmp_path / "recipe.json").write_text(content)
        with pytest.raises(CheckpointError, match="has no history of its training"):
            load_history(tmp_path)


@pytest.mark.long
def test_plot_capacity(command, tmp_path):
    half, picture = Accuracy.count(1, 2), tmp_path / "picture.svg"
    names = ["madry_cnn_scale2.pgd_mnist", "madry_cnn.pgd_mnist", "madry_cnn.natural_mnist"]
    found = Comparison(
        title="width", source="S", note="N.", columns=("clean", "PGD-40", "loss", "correlation"), weights={}, missing=(),
        rows=dict.fromkeys(names, ((None,) * 4, (half, half, 0.5, 0.1))), n_examples=2, seed=0,
    )  # fmt: skip
    assert {kind: list(scales) for kind, scales in by_scale(found).items()} == {
        "pgd": [2, 16], "natural": [16]
    }  # fmt: skip
    (tmp_path / "found.json").write_text(found.model_dump_json())
    options = (tmp_path / "found.json", "--output", picture)
    assert command("plot", "capacity", *options) == (0, f"{picture}\n", "")
    for text in ("width", "pgd training", "natural training", "PGD-40"):
        assert text in picture.read_text()
    (tmp_path / "bad.json").write_text('{"title": 1}')
    rows = {"A, FGSM": ((None,), (half,))}
    other = found.model_copy(update={"columns": ("accuracy",), "rows": rows})
    (tmp_path / "other.json").write_text(other.model_dump_json())
    for wrong in ("bad.json", "other.json", "missing.json"):
        status, _, err = command("plot", "capacity", tmp_path / wrong, "--output", picture)
        assert status == 1
        assert f"printed, got '{tmp_path / wrong}'" in err
