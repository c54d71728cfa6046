"""The index: what the zoo is known by without opening a record, and what names resolve to."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from robust_zoo import attacks
from robust_zoo.attack_names import DEFAULTS
from robust_zoo.places import checkpoints_directory
from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo import (
    CheckpointError,
    UnknownModelError,
    index,
    list_models,
    load_model,
    load_record,
    publish,
)
from robust_zoo.zoo.index import make_index, read_index, write_index
from robust_zoo.zoo.publishing import publish_zoo

NAME = "mlp.pgd_digits"


def test_the_index_is_not_stale():
    entries = read_index()
    fresh = make_index(checkpoints_directory(), entries)
    assert fresh == entries, "run robust-zoo index"


def test_an_entry_is_what_the_record_says():
    (entry,) = list_models(NAME)
    record = load_record(NAME)
    assert (entry.name, entry.dataset, entry.architecture) == (NAME, "digits", "mlp")
    assert (entry.clean, entry.worst_case) == (record.clean, record.worst_case)
    assert entry.threat_model == record.threat_model
    assert entry.attacks == ("FGSM", "PGD-40 x 5", "AutoAttack")
    assert entry.record_sha256 == record.sha256
    assert entry.weights_bytes == record.weights.bytes


def test_robust_models_come_first_within_dataset_and_threat_model():
    found = list_models(role="all")
    kinds = [(entry.dataset, str(entry.threat_model)) for entry in found]
    runs = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
    assert len(runs) == len(set(runs))
    for kind in runs:
        worst = [e.worst_case.accuracy for e, k in zip(found, kinds, strict=True) if k == kind]
        assert worst == sorted(worst, reverse=True)


@pytest.fixture
def folder(tmp_path):
    """A folder of three checkpoints' records."""
    for name in ("mlp.natural_digits", NAME, "digits_cnn.pgd_digits"):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        shutil.copy(checkpoints_directory() / name / "robustness.json", tmp_path / "zoo" / name)
    return tmp_path / "zoo"


def test_roles_and_handles_stay(folder, tmp_path):
    entries = make_index(folder, [])
    assert [(entry.name, entry.role) for entry in entries] == [
        ("digits_cnn.pgd_digits", "robust"),
        ("mlp.natural_digits", "baseline"),
        (NAME, "robust"),
    ]
    entries = make_index(folder, entries, {NAME: "study"})
    handle = f"hf://org/{NAME}@{40 * 'a'}#{entries[-1].record_sha256}"
    entries[-1] = entries[-1].model_copy(update={"handle": handle})
    write_index(entries, tmp_path / "index.json")
    again = make_index(folder, read_index(tmp_path / "index.json"))
    assert again == entries
    path = folder / NAME / "robustness.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "other"}))
    changed = make_index(folder, entries)[-1]
    assert (changed.role, changed.handle) == ("study", "")  # another record: not the one published
    with pytest.raises(CheckpointError, match=r"role mlp\.none: no such checkpoint"):
        make_index(folder, entries, {"mlp.none": "study"})
    with pytest.raises(CheckpointError, match=r"no checkpoints with a robustness\.json"):
        make_index(tmp_path / "zoo" / NAME, [])


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Nothing in the package or a checkout: models of the zoo come from a hub, or not at all."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("robust_zoo.zoo.registry.checkpoints_directory", lambda: tmp_path / "empty")
    monkeypatch.delenv("ROBUST_ZOO_HUB", raising=False)
    entries = [entry.model_copy(update={"handle": ""}) for entry in read_index()]
    monkeypatch.setattr("robust_zoo.zoo.index.read_index", lambda: entries)
    return tmp_path


def test_a_name_resolves_to_the_hub_that_the_environment_names(elsewhere, monkeypatch):
    with pytest.raises(UnknownModelError, match="give the hub that has them in ROBUST_ZOO_HUB"):
        load_model(NAME)
    monkeypatch.setenv("ROBUST_ZOO_HUB", "our-hub")
    with pytest.raises(ValueError, match=r"ROBUST_ZOO_HUB must be hf://org or file:///path, got"):
        load_model(NAME)
    publish(checkpoints_directory() / NAME, f"file://{elsewhere}/hub/{NAME}")
    monkeypatch.setenv("ROBUST_ZOO_HUB", f"file://{elsewhere}/hub/")
    record = RobustnessRecord.read(checkpoints_directory() / NAME / "robustness.json")
    model = load_model(NAME)
    assert model.robustness == record == load_record(NAME)
    assert model.base_model.handle.startswith(f"file://{elsewhere}/hub/{NAME}")
    # Other weights under that name, with a sound record of their own.
    publish(checkpoints_directory() / "mlp.natural_digits", f"file://{elsewhere}/hub/{NAME}")
    for load in (load_model, load_record):
        with pytest.raises(CheckpointError, match="published anew, or tampered with"):
            load(NAME)


def test_a_name_resolves_to_where_it_was_published(elsewhere, monkeypatch):
    handle = publish(checkpoints_directory() / NAME, f"file://{elsewhere}/hub/mine")
    entries = [
        entry.model_copy(update={"handle": handle if entry.name == NAME else ""})
        for entry in read_index()
    ]
    monkeypatch.setattr("robust_zoo.zoo.index.read_index", lambda: entries)
    assert load_model(NAME).robustness.sha256 == load_record(NAME).sha256


def test_publishing_the_zoo_notes_the_handles(elsewhere, monkeypatch):
    for name in ("mlp.natural_digits", NAME):
        shutil.copytree(checkpoints_directory() / name, elsewhere / "here" / name)
    write_index(make_index(elsewhere / "here", []), elsewhere / "index.json")
    hub = "robust_zoo.zoo.publishing"
    monkeypatch.setattr(f"{hub}.checkpoints_directory", lambda: elsewhere / "here")
    monkeypatch.setattr(f"{hub}.read_index", lambda: read_index(elsewhere / "index.json"))
    monkeypatch.setattr(
        f"{hub}.write_index", lambda new: write_index(new, elsewhere / "index.json")
    )
    found = list(publish_zoo(f"file://{elsewhere}/hub"))
    assert [entry.handle for entry in read_index(elsewhere / "index.json")] == found
    for handle, name in zip(found, ("mlp.natural_digits", NAME), strict=True):
        assert load_model(handle).robustness.name == name
    # Interrupted by a model that is not there: what went before is noted.
    shutil.rmtree(elsewhere / "here" / NAME)
    first = next(publish_zoo(f"file://{elsewhere}/other"))
    assert read_index(elsewhere / "index.json")[0].handle == first
    with pytest.raises(CheckpointError, match="no checkpoint directory"):
        list(publish_zoo(f"file://{elsewhere}/other"))


def test_a_record_that_is_not_the_one_in_the_index_is_refused(elsewhere):
    shutil.copytree(checkpoints_directory() / NAME, elsewhere / "empty" / NAME)
    assert load_model(NAME).robustness.name == NAME
    path = elsewhere / "empty" / NAME / "robustness.json"
    path.write_text(path.read_text().replace('"deviations": [', '"deviations": ["none", ', 1))
    for load in (load_model, load_record):
        with pytest.raises(CheckpointError, match="is not the one in the zoo's index"):
            load(NAME)
    assert load_model(elsewhere / "empty" / NAME).robustness.training.deviations[0] == "none"


@pytest.mark.slow
def test_ten_thousand_models_are_listed_in_no_time(tmp_path):
    some = read_index()
    many = [
        some[i % len(some)].model_copy(update={"name": f"{some[i % len(some)].name}{i}"})
        for i in range(10_000)
    ]
    write_index(many, tmp_path / "index.json")
    # In a process of its own: collecting the garbage of one with many models takes longer than the list.
    code = f"""
import contextlib, io, pathlib, time
from robust_zoo.cli.common import print_entries
from robust_zoo.zoo import index
begin = time.process_time()
entries = index.read_index(pathlib.Path({str(tmp_path / "index.json")!r}))
found = index.chosen(entries, "*mnist*", role="all", norm="linf")
with contextlib.redirect_stdout(io.StringIO()) as out:
    print_entries(found)
seconds = time.process_time() - begin
assert len(out.getvalue().splitlines()) >= len(found)
assert len(found) > 5_000
assert found == index.ranked(found)
print(seconds)
"""
    command, taken = [sys.executable, "-c", code], []
    while min(taken, default=2) > 1.5 and len(taken) < 5:  # the best of some: others' work slows it
        run = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
        taken.append(float(run.stdout))
    assert min(taken) < 1.5, taken


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["list"], 0),
        (["list", "--all", "--json"], 0),
        (["show", NAME], 0),
        (["--help"], 0),
        (["evaluate", "--help"], 0),
        (["--version"], 0),
        (["list", "--norm", "l9"], 1),
        (["show", "mlp.nothing"], 1),
        (["evaluate", NAME, "--attack", "pgdd"], 1),
        (["evaluate", NAME, "--epsilon", "8"], 1),
        (["evaluate", NAME, "--attack", "apgd-t:targets=10"], 1),
        (["evaluate", NAME, "--nonsense"], 2),
    ],
)
def test_commands_that_compute_nothing_start_no_backend(arguments, status):
    code = (
        "import sys; from robust_zoo import cli\n"
        "sys.argv = ['robust-zoo', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit as end: status = end.code\n"
        "slow = {'keras', 'tensorflow', 'jax', 'torch', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "print(f'status {status or 0}, slow {slow}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"status {status}, slow set()"


def test_defaults_are_those_of_the_classes():
    told = {"epsilon", "norm", "steps", "restarts", "loss", "targets", "random_start", "scale"}
    told |= {"targeted", "step_size", "samples"}  # said in another way, or by the threat model
    found = {}
    for name in dir(attacks):
        kind = getattr(attacks, name)
        if isinstance(kind, type) and issubclass(kind, attacks.Attack):
            own = {
                field.name: field.default
                for field in dataclasses.fields(kind)
                if field.name not in told and field.default not in (None, dataclasses.MISSING)
            }
            found |= {name: own} if own else {}
    assert found == DEFAULTS


def test_names_of_odd_digits_are_sorted():
    assert sorted(["x²", "x10", "x9", "①"], key=index.natural_order) == ["x9", "x10", "x²", "①"]
