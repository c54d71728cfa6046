import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from robust_zoo import architectures, backend
from robust_zoo.attacks import FGSM, PGD, FixedBudgetAttack, MinimumNormAttack
from robust_zoo.datasets import Batches, flip_and_crop, load_dataset
from robust_zoo.defenses import AdversarialTraining, FixedSetTraining, with_weight_decay
from robust_zoo.evaluation import Part
from robust_zoo.layers import layers_of
from robust_zoo.places import checkpoints_directory, recipe_files, recipes_directory
from robust_zoo.recipe import (
    Recipe,
    RecipeError,
    SmoothedCrossEntropy,
    TimeLimitError,
    execution,
    load_recipe,
    recipe_names,
    run,
)
from robust_zoo.recipe.building import build
from robust_zoo.zoo import list_models, load_attack, load_model, load_record


@pytest.fixture(autouse=True)
def quick_records(monkeypatch, few_planted):
    """Without checks and curves, most of the time of an evaluation here."""
    quick = functools.partial(execution.evaluate, checks=False)
    monkeypatch.setattr(execution, "evaluate", quick)


# What processes of their own begin with.
QUICK = """
import os, sys, robust_zoo.recipe as r
from robust_zoo.recipe import execution, fitting
from robust_zoo.attacks import FGSM

def quick(name, epochs):
    return r.load_recipe(name)[0].changed(epochs=epochs, n=20, attacks=(FGSM(epsilon=0.1),))

"""


def quick(name, epochs):
    """A shipped recipe, measured by one step."""
    return load_recipe(name)[0].changed(epochs=epochs, n=20, attacks=(FGSM(epsilon=0.1),))


@pytest.fixture
def recipe():
    return Recipe(
        name="mlp.pgd_digits",
        dataset="digits",
        classifier=lambda: architectures.mlp((8, 8, 1), hidden=(32,)),
        defense=lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=PGD(epsilon=0.1, steps=2), ramp_steps=total_steps // 4
        ),
        paper="arXiv:1706.06083",
        optimizer=lambda total_steps: keras.optimizers.Adam(3e-3),
        epochs=4,
        batch_size=64,
        attacks=(FGSM(epsilon=0.1),),
        n=100,
        deviations=("small",),
    )


@pytest.mark.long
def test_run_writes_a_checkpoint_with_a_true_record(recipe, tmp_path, monkeypatch):
    evaluate = execution.evaluate.func
    monkeypatch.setattr(execution, "evaluate", evaluate)
    source = tmp_path / "x.py"
    source.write_text("# what made it")
    record = run(recipe, tmp_path / "out", source=source, verbose=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.py"]
    content = (tmp_path / "out" / "recipe.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == record.training.recipe_sha256
    told = json.loads(content)
    digest = hashlib.sha256(b"# what made it").hexdigest()
    assert told["source"] == {"file": "x.py", "sha256": digest}
    assert told["dataset"]["name"] == "digits"
    assert told["dataset"]["train"] == {"n": 1137, "sha256": load_dataset("digits", "train").sha256}
    assert told["defense"] == {"name": "AdversarialTraining", **record.defense.config}
    assert told["optimizer"]["learning_rate"] == pytest.approx(3e-3)
    assert (told["epochs"], told["steps_per_epoch"], told["batch_size"]) == (4, 17, 64)
    assert [row["epoch"] for row in told["history"]] == [1, 2, 3, 4]
    assert told["history"][-1]["accuracy"] > told["history"][0]["accuracy"]
    assert {"loss", "robust_accuracy", "val_accuracy"} <= set(told["history"][0])
    model = load_model(tmp_path / "out")
    assert model.robustness == record
    assert record.curve is not None
    assert {check.name for check in record.checks} >= {"curve_agrees_with_attacks", "randomness"}
    sample = load_dataset("digits").sample(100, 0)
    held = ~FGSM(epsilon=0.1).run(model, sample.images, sample.labels).success
    assert record.attacks[0].correct == held.sum()
    assert held.mean() > 0.3
    assert record.defense.name == "AdversarialTraining"
    assert record.defense.config["ramp_steps"] == 17
    assert record.defense.paper == "arXiv:1706.06083"
    assert record.training.epochs == 4
    assert record.training.recipe == "x.py"
    assert record.base_model is None
    assert record.training.deviations == ("small",)
    assert record.training.backend == backend.name
    assert (record.name, record.architecture) == ("mlp.pgd_digits", "mlp")


@pytest.mark.slow
def test_natural_training_has_no_defense(recipe, tmp_path):
    natural = recipe.model_copy(update={"defense": None})
    record = run(natural, tmp_path / "out", verbose=0)
    assert record.defense is None
    assert record.clean.accuracy > 0.8


@pytest.mark.long
def test_an_interrupted_run_resumes_to_the_same_weights(recipe, tmp_path, monkeypatch):
    run(recipe, tmp_path / "whole", verbose=0)
    begin = Batches.begin

    def power_cut(self, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        begin(self, epoch)

    monkeypatch.setattr(Batches, "begin", power_cut)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "cut", verbose=0)
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(Batches, "begin", begin)
    with pytest.raises(RecipeError, match=r"seed must be 0, as in the interrupted run, got 5\."):
        run(recipe.model_copy(update={"seed": 5}), tmp_path / "cut", resume=True, verbose=0)
    file = tmp_path / ".cut.training" / "training.npz"
    with np.load(file) as content:
        kept, weights = json.loads(str(content["told"])), content["weights"]
    assert kept["seconds"] > 0
    np.savez(file, told=json.dumps({**kept, "seconds": 1000.0}), weights=weights)
    record = run(recipe, tmp_path / "cut", resume=True, verbose=0)
    assert 1000 < record.training.seconds < 1500
    whole, cut = load_model(tmp_path / "whole"), load_model(tmp_path / "cut")
    for a, b in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "whole"]


@pytest.mark.long
def test_interrupted_attacks_go_on(tmp_path, monkeypatch):
    """Of a recipe with averaged weights, which are those measured."""
    recipe = load_recipe("mlp.pgn_digits")[0].override({"epochs": "2", "n": "30"})
    attacks = (FGSM(epsilon=0.1, norm="l2"), PGD(epsilon=0.1, norm="l2", steps=3))
    recipe = recipe.model_copy(update={"attacks": attacks})
    run(recipe, tmp_path / "whole", verbose=0)
    attack = PGD.run

    def power_cut(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(PGD, "run", power_cut)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "cut", verbose=0)
    folder = tmp_path / ".cut.training" / "attacks"
    _, finished = sorted(folder.iterdir())  # predictions, and the attack before
    dataclasses.replace(Part.load(finished), seconds=1000.0).save(finished)
    monkeypatch.setattr(PGD, "run", attack)
    record = run(recipe, tmp_path / "cut", resume=True, verbose=0)
    assert not folder.exists()
    whole = load_model(tmp_path / "whole").robustness
    assert record.weights == whole.weights
    assert record.attacks[0].seconds == 1000
    assert [part.correct for part in record.attacks] == [part.correct for part in whole.attacks]


def test_an_output_that_is_something_else_is_refused_before_training(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    late = recipe.model_copy(update={"classifier": lambda: 1 / 0})
    with pytest.raises(ValueError, match="is not a checkpoint: it is left alone"):
        run(late, tmp_path / "out")


@pytest.mark.long
@pytest.mark.skipif(backend.name != "tensorflow", reason="strategies are TensorFlow's")
def test_two_devices_make_the_same_model(tmp_path, monkeypatch):
    """Two in a process of their own, since a CPU is divided before TensorFlow starts."""
    monkeypatch.setattr(execution, "_LARGE", 10**9)  # float16 would round small differences up
    run(quick("mlp.pgd_digits", 1), tmp_path / "1", verbose=0)
    code = (
        f"{QUICK}execution._LARGE = 10**9\n"
        "r.run(quick('mlp.pgd_digits', 1), sys.argv[1], devices=2, verbose=0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "2")], check=True, timeout=300)
    one, two = load_model(tmp_path / "1"), load_model(tmp_path / "2")
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.long
def test_a_recipe_starts_from_a_checkpoint(recipe, tmp_path):
    still = {"optimizer": lambda steps: keras.optimizers.SGD(0.0), "epochs": 1, "n": 20}
    run(recipe.model_copy(update={"epochs": 1, "n": 20}), tmp_path / "first", verbose=0)
    second = recipe.model_copy(update={**still, "start": str(tmp_path / "first"), "seed": 5})
    run(second, tmp_path / "second", verbose=0)
    first, second = load_model(tmp_path / "first"), load_model(tmp_path / "second")
    assert second.robustness.base_model == first.base_model
    assert first.base_model.weights_sha256 == first.robustness.weights.sha256
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    wide = lambda: architectures.mlp((8, 8, 1), hidden=(33,))  # noqa: E731
    other = recipe.model_copy(update={"start": str(tmp_path / "first"), "classifier": wide})
    with pytest.raises(
        RecipeError, match="start must be a checkpoint of the recipe's architecture"
    ):
        run(other, tmp_path / "third", verbose=0)
    with pytest.raises(ValueError, match=r"unknown model 'mlp\.nothing'"):
        run(recipe.override({"start": "mlp.nothing"}), tmp_path / "third", verbose=0)


@pytest.mark.long
def test_averaged_weights_are_watched_and_kept(recipe, tmp_path):
    """An average that never leaves the first step's weights, whatever the optimizer did since."""

    def optimizer(steps):
        return keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=1.0)

    short = {"optimizer": optimizer, "defense": None, "n": 20, "epochs": 1}
    run(recipe.model_copy(update={**short, "epochs": 3}), tmp_path / "long", verbose=0)
    run(recipe.model_copy(update=short), tmp_path / "short", verbose=0)
    weights = [load_model(tmp_path / name).get_weights() for name in ("long", "short")]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_loss_smooths_labels():
    z = np.random.default_rng(0).normal(size=(4, 10)).astype("float32")
    y = np.arange(4)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    plain = -log_p[np.arange(4), y].mean()
    assert float(SmoothedCrossEntropy()(y, z)) == pytest.approx(plain, rel=1e-5)
    target = np.full((4, 10), 0.1 / 9)
    target[np.arange(4), y] = 0.9
    found = float(SmoothedCrossEntropy(label_smoothing=1 / 9)(y, z))
    assert found == pytest.approx(-(target * log_p).sum(1).mean(), rel=1e-5)


@pytest.mark.slow
def test_a_fixed_set_is_made_of_the_training_split(recipe, tmp_path):
    seen = []

    class Spy(FixedSetTraining):
        def training_images(self, x, y):
            seen.append(len(x))
            return super().training_images(x, y)

    spied = {
        "defense": lambda model, steps: Spy(model, made_by=FGSM(epsilon=0.1)),
        "epochs": 1,
        "n": 20,
    }
    run(recipe.model_copy(update=spied), tmp_path / "out", verbose=0)
    assert seen == [1137]


def test_augmentation_depends_on_seed_epoch_and_batch():
    data = load_dataset("digits", "train")
    batches = Batches(data, 64, 0, lambda images, rng: flip_and_crop(images, rng, pad=1))
    found = []
    for epoch in (0, 1, 0):
        batches.begin(epoch)
        found.append(batches[3][0])
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])
    plain = Batches(data, 64, 0)
    assert not np.array_equal(plain[3][0], found[0])
    np.testing.assert_array_equal(plain[3][1], batches[3][1])


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize("name", ["mlp.pgn_digits", "mlp.deepfool_digits"])
def test_a_killed_run_loses_the_current_epoch_at_most(name, tmp_path, capsys, monkeypatch):
    """Killed for good in the middle of the third epoch, then resumed: the same weights.

    One with an update of its own and averaged weights, one on a set made of the first weights.
    """
    monkeypatch.setattr(execution, "_LARGE", 10**9)  # float16 would round small differences up
    recipe = quick(name, 4)
    code = (
        f"{QUICK}import tensorflow as tf\n"
        "tf.config.optimizer.set_experimental_options({'disable_meta_optimizer': True})\n"  # as here
        "get = fitting.Batches.__getitem__\n"
        "def item(self, index):\n"
        "    if self.first == 2 * len(self) and index == 9: os.kill(os.getpid(), 9)\n"
        "    return get(self, index)\n"
        "fitting.Batches.__getitem__ = item\n"
        "r.run(quick(sys.argv[2], 4), sys.argv[1], verbose=0)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cut"), name]
    assert subprocess.run(command, timeout=300).returncode == -9
    capsys.readouterr()
    run(recipe, tmp_path / "cut", resume=True, verbose=2)
    told = capsys.readouterr().out
    assert "Epoch 3/4" in told
    assert "Epoch 2/4" not in told
    run(recipe, tmp_path / "whole", verbose=0)
    whole, cut = load_model(tmp_path / "whole"), load_model(tmp_path / "cut")
    for a, b in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_weight_decay_is_told_in_the_record(recipe, tmp_path):
    decayed = {
        "classifier": lambda: with_weight_decay(architectures.mlp((8, 8, 1)), l2=0.02),
        "defense": None, "epochs": 1, "n": 20, "paper": "arXiv:1804.03308",
    }  # fmt: skip
    record = run(recipe.model_copy(update=decayed), tmp_path / "out", verbose=0)
    assert record.defense.name == "WeightDecay"
    assert record.defense.paper == "arXiv:1804.03308"
    found = record.defense.config["kernel_regularizers"]
    assert len(found) == 3
    for entry in found.values():
        assert entry["l2"] == pytest.approx(0.01)


@pytest.mark.long
@pytest.mark.parametrize(
    ("hidden", "parameters", "dtype"), [(1330, 99_760, "float32"), (1334, 100_060, "float16")]
)
def test_large_models_are_stored_as_float16(recipe, tmp_path, hidden, parameters, dtype):
    large = recipe.model_copy(
        update={
            "classifier": lambda: architectures.mlp((8, 8, 1), hidden=(hidden,)),
            "epochs": 1,
            "n": 20,
        }
    )
    record = run(large, tmp_path / "out", verbose=0)
    assert (record.parameters, record.weights.dtype) == (parameters, dtype)
    rounded = "weights rounded to float16 before measuring" in record.training.deviations
    assert rounded == (dtype == "float16")
    assert load_model(tmp_path / "out").robustness == record


@pytest.mark.long
def test_mixed_precision_is_only_for_training(recipe, tmp_path):
    mixed = recipe.override({"dtype_policy": "mixed_bfloat16", "epochs": "1"})
    run(mixed, tmp_path / "out", verbose=0)
    assert keras.config.dtype_policy().name == "float32"
    model = load_model(tmp_path / "out")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_every_epoch_has_an_order_of_its_own_and_all_examples_get_a_turn():
    data = load_dataset("digits", "train")
    batches = Batches(data, 64, seed=0)
    orders = []
    for epoch in (0, 1, 0):
        batches.begin(epoch)
        orders.append(np.concatenate([batches[i][1] for i in range(len(batches))]))
        assert len(orders[-1]) == 64 * 17
    assert not np.array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attack": "fgsm"}, r"setting must be one of .*epochs.*got 'attack'"),
        ({"epochs": "0"}, r"setting epochs: .*greater than or equal to 1, got '0'"),
        ({"epochs": "many"}, r"setting epochs: .*valid integer.*got 'many'"),
        ({"dtype_policy": "int8"}, r"setting dtype_policy: .*'float32' or 'mixed_bfloat16'"),
    ],
)
def test_bad_settings(recipe, settings, message):
    with pytest.raises(RecipeError, match=message):
        recipe.override(settings)


def test_settings_reach_hyperparameters(recipe):
    settings = {
        "defense.attack.epsilon": "0.2",
        "defense.ramp_steps": "7",
        "optimizer.learning_rate": "0.5",
        "validation_attack.steps": "9",
        "augment.pad": "2",
        "label_smoothing": "0.25",
    }
    whole = recipe.changed(
        validation_attack=PGD(epsilon=0.1, steps=3), augment=functools.partial(flip_and_crop, pad=1)
    )
    changed = whole.override(settings)
    trainer = build(changed, total_steps=10)
    assert trainer.attack == PGD(epsilon=0.2, steps=2, step_size=trainer.attack.step_size)
    assert trainer.ramp_steps == 7
    assert float(trainer.optimizer.learning_rate) == 0.5
    assert trainer.loss.label_smoothing == 0.25
    assert changed.validation_attack.steps == 9
    assert changed.augment.keywords == {"pad": 2}
    assert "defense.attack.epsilon set to 0.2" in changed.deviations
    before = build(whole, total_steps=10)
    assert before.attack == PGD(epsilon=0.1, steps=2)
    assert whole.augment.keywords == {"pad": 1}


def test_settings_reach_into_wrapped_defenses_and_schedules():
    settings = {"defense.defense.beta": "2.5", "optimizer.learning_rate.decay_steps": "77"}
    recipe, _ = load_recipe("mlp.awp_digits", settings)
    trainer = build(recipe, total_steps=10)
    assert trainer.defense.beta == 2.5
    assert trainer.defense.classifier is trainer.classifier
    assert trainer.gamma == 5e-3
    assert trainer.optimizer.get_config()["learning_rate"]["config"]["decay_steps"] == 77


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"defense.betta": "6"},
            r"setting defense\.betta: TRADES has attack, .*beta, .*not 'betta'\.",
        ),
        ({"defense.beta": "-1"}, r"setting defense\.beta: beta must be .*-1"),
        (
            {"defense.beta": "many"},
            r"setting defense\.beta: must be float, such as 6\.0, got 'many'",
        ),
        ({"defense.attack.steps": "1.5"}, r"setting defense\.attack\.steps: must be int, .*'1\.5'"),
        ({"defense.attack.epsilon.x": "1"}, r"setting defense.attack.epsilon.x: float has nothing"),
        (
            {"optimizer.rate": "1"},
            r"setting optimizer\.rate: Adam has .*learning_rate.* not 'rate'",
        ),
    ],
)
def test_bad_hyperparameters(settings, message):
    recipe, _ = load_recipe("mlp.trades_digits", settings)
    with pytest.raises(RecipeError, match=message):
        build(recipe, total_steps=10)


def test_arguments_of_a_recipe_file():
    recipe, _ = load_recipe("madry_cnn.fgsm_mnist", {"scale": "2"})
    assert recipe.name == "madry_cnn_scale2.fgsm_mnist"
    assert recipe.deviations[-1] == "scale set to 2, not 16"
    file = recipes_directory() / "mnist" / "madry_cnn.py"
    recipe, source = load_recipe(file, {"defense": "trades", "epochs": "3"})
    assert (recipe.name, recipe.epochs, source) == ("madry_cnn.trades_mnist", 3, file)
    with pytest.raises(RecipeError, match=r"setting defense: .*'natural', 'fgsm'.* got 'foo'"):
        load_recipe(file, {"defense": "foo"})
    with pytest.raises(RecipeError, match=r"setting scale: .*integer.* got 'wide'"):
        load_recipe(file, {"scale": "wide"})


def test_settings_replace_fields(recipe):
    changed = recipe.override({"epochs": "7", "n": "50", "seed": "3"})
    assert (changed.epochs, changed.n, changed.seed) == (7, 50, 3)
    assert changed.classifier is recipe.classifier
    assert changed.deviations == (
        "small",
        "epochs set to 7, not 4",
        "n set to 50, not 100",
        "seed set to 3, not 0",
    )


def test_bad_batches_and_devices(recipe, tmp_path):
    with pytest.raises(RecipeError, match="batch_size must be at most 1137"):
        run(recipe.override({"batch_size": "2000"}), tmp_path / "out")
    with pytest.raises(RecipeError, match="divisible by the number of devices, got 64 and 3"):
        run(recipe, tmp_path / "out", devices=3)
    with pytest.raises(ValueError, match=r"devices must be"):
        run(recipe, tmp_path / "out", devices=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_diverging_run_leaves_no_checkpoint(recipe, tmp_path):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([20], [0.01, 1e30])
    hot = recipe.model_copy(update={"optimizer": lambda steps: keras.optimizers.SGD(schedule)})
    with pytest.raises(
        RecipeError, match=r"'mlp\.pgd_digits' diverged: .*last good epoch is kept in"
    ):
        run(hot, tmp_path / "out", verbose=0)
    assert not (tmp_path / "out").exists()


def recipes():
    for name in recipe_names():
        reads_mnist = name.startswith("logistic.expert") and name.endswith("mnist37")
        yield pytest.param(name, marks=[pytest.mark.mnist] * reads_mnist)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads(name):
    recipe, source = load_recipe(name)
    assert recipe.name == name
    assert re.search(rf"robust-zoo train {source.stem}\S* --output", source.read_text())
    trainer = build(recipe.changed(start=None), total_steps=10)
    assert recipe.name.startswith(f"{trainer.classifier.name}.")


@pytest.mark.parametrize("path", recipe_files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_file_makes_a_recipe_without_arguments(path):
    recipe, source = load_recipe(path)
    assert recipe.name in recipe_names()
    assert source == path


def test_the_commit_tells_changes_anywhere_in_the_package(tmp_path, monkeypatch):
    file = tmp_path / "robust_zoo" / "recipe" / "execution.py"
    attack = tmp_path / "robust_zoo" / "attacks" / "square.py"
    for path in (file, attack, file.parents[1] / "__init__.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def git(*arguments):
        name = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        command = ["git", "-C", str(tmp_path), *name, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setattr(execution, "__file__", str(file))
    monkeypatch.setattr(execution, "recipes_directory", lambda: tmp_path / "training")
    assert execution._commit() == ""
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert execution._commit() == git("rev-parse", "HEAD")
    attack.write_text("changed")
    assert execution._commit() == git("rev-parse", "HEAD") + "+"


def kinds_of_recipes():
    """Recipes in which each network and each defense is once: every pair of them would add but time.

    "step_ll_k4" is a variant of "step_ll", where a network has both.
    """
    chosen, seen, names = [], set(), recipe_names()
    for name in names:
        network, _, rest = name.partition(".")
        defense, _, dataset = rest.rpartition("_")
        shorter = [defense[:end] for end in range(1, len(defense))]
        if any(f"{network}.{part}_{dataset}" in names for part in shorter):
            continue
        parts = {network.partition("_scale")[0], defense}
        if not parts <= seen:
            chosen.append(name)
            seen |= parts
    return chosen


@pytest.mark.long
@pytest.mark.parametrize("name", kinds_of_recipes())
def test_recipes_take_the_same_step_on_two_replicas(name, strategy, monkeypatch):
    for architecture, size in (("preact_resnet", {"width": 4}), ("madry_resnet", {"units": 1})):
        whole = getattr(architectures, architecture)
        small = lambda whole=whole, size=size, **options: whole(**options | size)  # noqa: E731
        monkeypatch.setattr(architectures, architecture, small)
    recipe, _ = load_recipe(name)
    changes = {"start": None, "dtype_policy": "float32"}
    if "free" not in name:  # which is told its batch size
        changes["batch_size"] = 8
    recipe = recipe.changed(**changes)
    start, alone = _one_step(recipe, contextlib.nullcontext())
    _, together = _one_step(recipe, strategy.scope(), start)
    moved = max(np.abs(old - new).max() for old, new in zip(start, alone, strict=True))
    assert (moved > 0) == (name != "logistic.expert_mnist37")  # its initial weights are the model
    if any(
        isinstance(layer, keras.layers.Dropout) for layer in recipe.classifier()._flatten_layers()
    ):
        return  # each replica drops values of its own
    one, other = (np.concatenate([w.ravel() for w in part]) for part in (alone, together))
    # But for a few: Adam makes a whole step of a gradient that is but a rounding error.
    assert np.isclose(other, one, rtol=1e-4, atol=1e-3 * moved).mean() > 0.98


def _one_step(recipe, scope, start=None):
    """The weights before and after a batch in the middle of training."""
    with scope:
        trainer = build(recipe, total_steps=10)
        classifier = trainer.classifier
        rng, size = np.random.default_rng(0), recipe.batch_size
        x = rng.random((size, *classifier.input_shape[1:]), dtype="float32")
        y = rng.integers(0, classifier.output_shape[1], size)
        if start is None:
            start = _with_statistics_of(classifier, x)
        classifier.set_weights(start)
        if recipe.name in ("madry_resnet.pgd_cifar10", "madry_cnn.trades_mnist"):
            # Untrained, they make much of a rounding error within several steps by signs.
            trainer.attack = trainer.attack.replace(norm="l2", epsilon=0.5, step_size=0.1, steps=1)
        elif getattr(getattr(trainer, "attack", None), "steps", 0) > 2:
            trainer.attack = trainer.attack.replace(steps=2)  # of which one is like another
        trainer.optimizer.iterations.assign(5)  # a schedule may begin with 0
        # Not compiled, which takes longer than the step: the defenses' own tests compile each of them.
        trainer.run_eagerly = True
        trainer.fit(x, y, batch_size=size, shuffle=False, verbose=0)
        return start, classifier.get_weights()


def _with_statistics_of(classifier, x):
    """Weights whose batch normalisation has the statistics of `x`: the initial ones are of no use to an attack."""
    normalisations = [
        layer
        for layer in layers_of(classifier)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momentum = [layer.momentum for layer in normalisations]
    for layer in normalisations:
        layer.momentum = 0.0
    if normalisations:
        classifier(x, training=True)
    for layer, value in zip(normalisations, momentum, strict=True):
        layer.momentum = value
    return classifier.get_weights()


def test_a_recipe_makes_the_same_configuration_each_time(recipe):
    configurations = [build(recipe, total_steps=10).classifier.get_config() for _ in range(2)]
    assert configurations[0] == configurations[1]


def _names(pattern="*"):
    return [entry.name for entry in list_models(pattern, role="all")]


def test_mnist_is_measured_on_enough_examples():
    for record in map(load_record, _names("madry_cnn.*_mnist")):
        assert record.clean.n_examples == 10_000
        fgsm, pgd, *_, autoattack = record.attacks
        assert [fgsm.name, pgd.name, autoattack.name] == ["FGSM", "PGD", "AutoAttack"]
        assert fgsm.n_examples == pgd.n_examples == 10_000
        assert pgd.config["steps"] == 40
        assert autoattack.n_examples == 1_000
        assert [item.n_examples for item in record.minimum_norm] == [1_000]


def test_every_shipped_model_has_its_recipe():
    for record in map(load_record, _names()):
        recipe, source = load_recipe(record.name)
        assert source in recipe_files(record.name)
        assert recipe.reported == record.reported
        # One sample for all, so that models can be compared.
        assert {item.seed for item in (*record.attacks, *record.minimum_norm)} == {0}
        assert recipe.epochs == record.training.epochs
        fixed = [attack for attack in recipe.attacks if isinstance(attack, FixedBudgetAttack)]
        free = [attack for attack in recipe.attacks if isinstance(attack, MinimumNormAttack)]
        for attacks, found in ((fixed, record.attacks), (free, record.minimum_norm)):
            assert [attack.get_config() for attack in attacks] == [item.config for item in found]
        chosen = [text for text in record.training.deviations if "on the validation split" in text]
        rounded = record.weights.dtype == "float16"
        rounding = ("weights rounded to float16 before measuring",) * rounded
        assert record.training.deviations == (*recipe.deviations, *chosen, *rounding)


def test_every_shipped_model_has_a_resolved_recipe():
    for record in map(load_record, _names()):
        content = (checkpoints_directory() / record.name / "recipe.json").read_bytes()
        assert hashlib.sha256(content).hexdigest() == record.training.recipe_sha256
        told = json.loads(content)
        assert told["epochs"] == record.training.epochs
        assert told["classifier"]["parameters"] == record.parameters
        assert told["dataset"]["version"] == record.dataset.version
        assert told["source"]["file"] == pathlib.Path(record.training.recipe).name
        attacks = [{"name": item.name, **item.config} for item in record.attacks]
        attacks += [{"name": item.name, **item.config} for item in record.minimum_norm]
        by_name = functools.partial(json.dumps, sort_keys=True)
        assert sorted(map(by_name, told["attacks"])) == sorted(map(by_name, attacks))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 5", r"must define get_recipe\(\), which returns a Recipe"),
        ("def get_recipe(): return 5", "must return a Recipe, got 5"),
        ("def get_recipe(): return 1 / 0", "cannot be made: division by zero"),
        ("def get_recipe(", "cannot be read"),
        ("import nothing_of_that_name", "cannot be read: No module named"),
    ],
)
def test_bad_recipe_files(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_unknown_recipes():
    with pytest.raises(RecipeError, match=r"no recipe 'mlp\.none': .*mlp\.pgd_digits"):
        load_recipe("mlp.none")
    with pytest.raises(RecipeError, match="no recipe"):
        load_recipe(pathlib.Path("/no/such/recipe.py"))


@pytest.mark.slow
def test_an_edited_recipe_does_not_go_on(recipe, tmp_path):
    with pytest.raises(TimeLimitError, match="stopped after epoch 1 of 4"):
        run(recipe, tmp_path / "m", max_minutes=1e-6, verbose=0)
    changes = {
        "optimizer": lambda total_steps: keras.optimizers.Adam(1e-3),
        "defense": lambda classifier, total_steps: AdversarialTraining(
            classifier, attack=PGD(epsilon=0.2, steps=2), ramp_steps=total_steps // 4
        ),
        "augment": lambda images, rng: flip_and_crop(images, rng, pad=1),
        "label_smoothing": 0.1,
        "attacks": (FGSM(epsilon=0.2),),
        "classifier": lambda: architectures.mlp((8, 8, 1), hidden=(16,)),
        "validation_attack": FGSM(epsilon=0.1),
    }
    for name, change in changes.items():
        with pytest.raises(RecipeError, match=f"^{name} must be .* as in the interrupted run, got"):
            run(recipe.changed(**{name: change}), tmp_path / "m", resume=True, verbose=0)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """Of which the configuration tells nothing."""

    factor = 0.5

    def __call__(self, step):
        return self.factor * 1e-3

    def get_config(self):
        return {}


@pytest.mark.long
def test_edits_that_no_configuration_shows_are_seen(recipe, tmp_path, monkeypatch):
    def connected(twice):
        def make():
            inputs = keras.Input((8, 8, 1))
            x = keras.layers.Flatten()(inputs)
            h = keras.layers.Dense(64)(x)
            z = keras.layers.Add()([h, h] if twice else [x, h])
            return keras.Model(inputs, keras.layers.Dense(10)(z), name="mlp")

        return make

    recipe = recipe.changed(
        augment=functools.partial(flip_and_crop, pad=1),
        optimizer=lambda total_steps: keras.optimizers.SGD(Halving()),
        classifier=connected(twice=False),
    )
    with pytest.raises(TimeLimitError):
        run(recipe, tmp_path / "m", max_minutes=1e-6, verbose=0)
    changes = {
        "augment": functools.partial(flip_and_crop, pad=2),
        "classifier": connected(twice=True),
    }
    for name, change in changes.items():
        with pytest.raises(RecipeError, match=f"^{name} must be"):
            run(recipe.changed(**{name: change}), tmp_path / "m", resume=True, verbose=0)
    monkeypatch.setattr(Halving, "factor", 0.25)
    with pytest.raises(RecipeError, match=r"^optimizer must be"):
        run(recipe, tmp_path / "m", resume=True, verbose=0)
    monkeypatch.undo()
    with pytest.raises(TimeLimitError, match="stopped after epoch 2"):
        run(recipe, tmp_path / "m", resume=True, max_minutes=1e-6, verbose=0)


@pytest.mark.long
def test_the_best_epoch_is_kept_and_told(recipe, tmp_path):
    chosen = recipe.changed(validation_attack=PGD(epsilon=0.1, steps=3), epochs=3)
    record = run(chosen, tmp_path / "m", verbose=0)
    (remark,) = (text for text in record.training.deviations if text.startswith("weights of epoch"))
    assert remark.endswith("of 3, the best under PGD-3 on the validation split")


@pytest.mark.long
@pytest.mark.home
def test_a_trained_generator_is_kept(tmp_path):
    chosen = load_recipe("mlp.pgn_digits")[0].changed(epochs=1, n=10, attacks=(FGSM(epsilon=0.1),))
    run(chosen, tmp_path / "m", verbose=0)
    data = load_dataset("digits").sample(5, 0)
    attack = load_attack(tmp_path / "m")
    result = attack.run(load_model(tmp_path / "m"), data.images, data.labels, progress=False)
    assert result.x_adv.shape == data.images.shape
