"""Every write, rename and removal of what is kept fails once, or is the last thing that its process does.

Whatever happens, what was there before or what was to come is there in full, the same call succeeds afterwards, and
nothing is left beside it.
"""

import errno
import os
import shutil

import keras
import pytest
from keras import ops

from robust_zoo import architectures, files
from robust_zoo.attacks import FGSM, PGD
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.evaluation import Part, evaluate
from robust_zoo.places import checkpoints_directory
from robust_zoo.recipe import Recipe, RecipeError, building, run
from robust_zoo.zoo import CheckpointError, HubError, load_model, publish, save_model

FAILURES = pytest.mark.parametrize("how", ["kill", errno.EIO, errno.ENOSPC])

if keras.config.backend() != "tensorflow":
    pytest.skip("files are the same on every backend", allow_module_level=True)


def contents(folder):
    """The files of a folder; of Keras's metadata, which has the time in it, the name alone."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: data if name != "metadata.json" else b"" for name, data in files.items()}


def model(seed):
    keras.utils.set_random_seed(seed)
    return architectures.mlp((8, 8, 1), hidden=(4,))


def points(count, step):
    """Numbers of the operations that fail: every one in the whole suite, some in the quick one."""
    return range(0, count, step)


EVERY = pytest.param(1, id="every", marks=pytest.mark.crash)
STEPS = [pytest.param(7, id="some"), EVERY]


@pytest.mark.long
@FAILURES
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [True, False], ids=["over another", "new"])
@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_save_model(disk, tmp_path, monkeypatch, how, step, before, exchange):
    """Also where a system cannot exchange two directories in one step."""
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    target = tmp_path / "zoo" / "model"
    old, new = model(0), model(1)
    versions = [contents(save_model(each, tmp_path / each.layers[-2].name)) for each in (old, new)]

    def save():
        save_model(new, target)

    def reset():
        shutil.rmtree(target.parent, ignore_errors=True)
        if before:
            save_model(old, target)

    reset()
    assert disk.run(save) is None
    for at in points(disk.count, step):
        reset()
        failed = disk.run(save, at, how)
        if not exchange:
            files.sweep_beside(target)  # as the next writer does
        found = contents(target) if target.exists() else None
        assert found in ([*versions] if before else [None, versions[1]])
        assert failed is not None or found == versions[1]
        if isinstance(failed, OSError):  # what is refused is not done
            assert found == (versions[0] if before else None)
        save()
        assert contents(target) == versions[1]
        assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_an_old_version_that_cannot_be_put_back_is_not_removed(tmp_path, monkeypatch):
    """Two renames fail in a row, where directories cannot be exchanged; the next writer finds it."""
    record_of, target = load_model("mlp.pgd_digits"), tmp_path / "hub" / "model"
    save_model(record_of, target, record_of.robustness)
    before, rename = contents(target), os.rename

    def failing(path, to, **options):
        if os.fspath(to) == str(target):
            raise OSError(errno.EIO, "io")
        rename(path, to, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_exchange", lambda one, other: False)
        patch.setattr(os, "rename", failing)
        with pytest.raises(HubError, match=r"cannot be written, io, and what was there lies in"):
            publish(checkpoints_directory() / "mlp.natural_digits", target.as_uri())
    assert not target.exists()
    files.sweep_beside(target)
    assert contents(target) == before


@pytest.mark.parametrize("theirs", ["assets/thesis.txt", ".notes.partial", ".notes.partial/x"])
def test_somebodys_files_in_a_checkpoint_are_left_alone(tmp_path, theirs):
    save_model(model(0), tmp_path / "model")
    path = tmp_path / "model" / theirs
    path.parent.mkdir(exist_ok=True)
    path.write_text("years of work")
    with pytest.raises(CheckpointError, match="is not a checkpoint: it is left alone"):
        save_model(model(1), tmp_path / "model")
    assert path.read_text() == "years of work"


def test_links_are_followed(tmp_path):
    save_model(model(0), tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    new = model(1)
    save_model(new, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "nowhere").symlink_to(tmp_path / "later")
    save_model(new, tmp_path / "nowhere")
    assert contents(tmp_path / "real") == contents(tmp_path / "later")


@pytest.mark.slow
@FAILURES
@pytest.mark.parametrize("step", STEPS)
def test_publish(disk, tmp_path, how, step):
    record_of = load_model("mlp.pgd_digits")
    save_model(record_of, tmp_path / "first", record_of.robustness)
    second = load_model("mlp.natural_digits")
    save_model(second, tmp_path / "second", second.robustness)
    versions = [contents(tmp_path / name) for name in ("first", "second")]
    handle = (tmp_path / "hub" / "model").as_uri()
    target = tmp_path / "hub" / "model"

    def reset():
        shutil.rmtree(target.parent, ignore_errors=True)
        shutil.copytree(tmp_path / "first", target)

    def put():
        try:
            publish(tmp_path / "second", handle)
        except HubError as error:
            raise OSError(str(error)) from error

    reset()
    assert disk.run(put) is None
    weights = "model.weights.h5"
    for at in points(disk.count, step):
        reset()
        failed = disk.run(put, at, how)
        found = contents(target)
        (version,) = [new for new in versions if new[weights] == found[weights]]
        assert found["robustness.json"] == version["robustness.json"]
        assert failed is not None or version is versions[1]
        if isinstance(failed, OSError):
            assert version is versions[0]
        put()
        assert contents(target)[weights] == versions[1][weights]
        assert [path.name for path in target.parent.iterdir()] == ["model"]


@pytest.mark.long
@FAILURES
@pytest.mark.parametrize("step", [pytest.param(61, id="some"), EVERY])
def test_a_measurement(disk, tmp_path, monkeypatch, how, step):
    monkeypatch.setattr("robust_zoo.attacks.state_file._SECONDS", -1.0)
    attacks = [FGSM(epsilon=0.1), PGD(epsilon=0.1, steps=3, restarts=2)]
    states = tmp_path / "zoo" / "states"
    measured = load_model("mlp.natural_digits")

    def measure():
        measures = {"attacks": attacks, "n": 6, "checks": False, "progress": False}
        record = evaluate(measured, "digits", state_directory=states, **measures)
        found = {}
        for file in sorted(states.glob("*.npz")):
            part = Part.load(file)
            arrays = {name: array.tolist() for name, array in part.arrays.items()}
            found[file.name] = (part.plan, part.task, part.notes, arrays)
        return [each.correct for each in record.attacks], found

    states.parent.mkdir()
    expected = measure()
    shutil.rmtree(states)
    assert disk.run(measure) is None
    for at in points(disk.count, step):
        shutil.rmtree(states, ignore_errors=True)
        disk.run(measure, at, how)
        assert measure() == expected  # the files' names too
        remains = {path.name for path in states.iterdir()} - set(expected[1])
        # The next that writes there removes them.
        assert all(name.endswith(".partial") for name in remains)


def recipe():
    return Recipe(
        name="mlp.pgd_digits",
        dataset="digits",
        classifier=lambda: architectures.mlp((8, 8, 1), hidden=(4,)),
        defense=lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=FGSM(epsilon=0.1)
        ),
        optimizer=lambda total_steps: keras.optimizers.SGD(0.1, momentum=0.9),
        epochs=3,
        batch_size=256,
        validation_attack=FGSM(epsilon=0.1),
        attacks=(FGSM(epsilon=0.1),),
        n=20,
    )


@pytest.fixture
def quick_training(monkeypatch):
    """Trainings that share one compiled trainer, and measure clean accuracy alone."""
    made = []

    def build(*args):
        if not made:
            trainer = building.build(*args)
            trainer.optimizer.build(trainer.trainable_variables)
            variables = [*trainer.variables, *trainer.optimizer.variables]
            values = [ops.convert_to_numpy(variable) for variable in variables]
            made.extend([trainer, variables, values])
        trainer, variables, values = made
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return trainer

    def measure(*args, attacks, n, **options):
        return evaluate(*args, n=n, checks=False, **options)

    monkeypatch.setattr("robust_zoo.recipe.execution.build", build)
    monkeypatch.setattr("robust_zoo.recipe.execution.evaluate", measure)


@pytest.mark.long
@FAILURES
@pytest.mark.parametrize("step", [pytest.param(41, id="some"), EVERY])
def test_a_training(disk, tmp_path, quick_training, how, step):
    run(recipe(), tmp_path / "uninterrupted", verbose=0)
    expected = contents(tmp_path / "uninterrupted")["model.weights.h5"]
    target = tmp_path / "zoo" / "model"

    def train(resume=False):
        run(recipe(), target, resume=resume, verbose=0)

    target.parent.mkdir()
    assert disk.run(train) is None
    for at in points(disk.count, step):
        shutil.rmtree(target.parent)
        target.parent.mkdir()
        disk.run(train, at, how)
        if target.exists():
            assert contents(target)["model.weights.h5"] == expected
        train(resume=True)
        assert contents(target)["model.weights.h5"] == expected
        assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_two_trainings_into_one_output(tmp_path, monkeypatch):
    def meanwhile(*args, **options):
        with pytest.raises(RecipeError, match="is being trained by another process"):
            run(recipe(), tmp_path / "model", verbose=0)
        raise KeyboardInterrupt

    monkeypatch.setattr("robust_zoo.recipe.execution.fit", meanwhile)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(), tmp_path / "model", verbose=0)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_another_name_are_left_alone(tmp_path):
    theirs = tmp_path / ".model.x.ab12cd34.partial"
    (theirs / "old").mkdir(parents=True)
    mine = tmp_path / ".model.ab12cd34.partial"
    (mine / "new").mkdir(parents=True)
    save_model(model(0), tmp_path / "model")
    assert theirs.is_dir()
    assert not mine.exists()


def test_a_checkpoint_with_leftovers_in_it_is_replaced(tmp_path):
    save_model(model(0), tmp_path / "model")
    (tmp_path / "model" / ".README.md.ab12cd34.partial").mkdir()
    save_model(model(1), tmp_path / "model")
    assert [path for path in (tmp_path / "model").iterdir() if path.is_dir()] == []
