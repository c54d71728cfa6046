import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from robust_zoo import architectures, backend
from robust_zoo.attacks import FGSM, PGD, FixedBudgetAttack, MinimumNormAttack
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.recipe import (
    Recipe,
    RecipeError,
    _Epochs,
    load_recipe,
    recipes_directory,
    run,
)
from robust_zoo.zoo import list_models, load_model


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


def test_run_writes_a_checkpoint_with_a_true_record(recipe, tmp_path):
    record = run(recipe, tmp_path / "out", source="training/recipes/x.py", verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    model = load_model(tmp_path / "out")
    assert model.robustness == record
    sample = load_dataset("digits").sample(100, 0)
    held = ~FGSM(epsilon=0.1).run(model, sample.images, sample.labels).success
    assert record.attacks[0].correct == held.sum()
    assert held.mean() > 0.3
    assert record.defense.name == "AdversarialTraining"
    assert record.defense.config["ramp_steps"] == 17
    assert record.defense.paper == "arXiv:1706.06083"
    assert record.training.epochs == 4
    assert record.training.recipe == "training/recipes/x.py"
    assert record.training.deviations == ("small",)
    assert record.training.backend == backend.name
    assert (record.name, record.architecture) == ("mlp.pgd_digits", "mlp")


def test_natural_training_has_no_defense(recipe, tmp_path):
    natural = recipe.model_copy(update={"defense": None})
    record = run(natural, tmp_path / "out", verbose=0)
    assert record.defense is None
    assert record.clean.accuracy > 0.8


def test_an_interrupted_run_resumes_to_the_same_weights(recipe, tmp_path, monkeypatch):
    run(recipe, tmp_path / "whole", verbose=0)
    begin = _Epochs.begin

    def power_cut(self, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        begin(self, epoch)

    monkeypatch.setattr(_Epochs, "begin", power_cut)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "cut", verbose=0)
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(_Epochs, "begin", begin)
    run(recipe, tmp_path / "cut", resume=True, verbose=0)
    whole, cut = load_model(tmp_path / "whole"), load_model(tmp_path / "cut")
    for a, b in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "whole"]


def test_an_output_that_is_something_else_is_refused_before_training(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    late = recipe.model_copy(update={"classifier": lambda: 1 / 0})
    with pytest.raises(ValueError, match="is not a checkpoint: it is left alone"):
        run(late, tmp_path / "out")


def test_two_devices_make_the_same_model(tmp_path):
    """In processes of their own, since a CPU is divided before TensorFlow starts."""
    code = (
        "import sys, robust_zoo.recipe as r\n"
        "recipe, source = r.load_recipe('mlp.pgd_digits')\n"
        "recipe = recipe.override({'epochs': '1', 'n': '20'})\n"
        "r.run(recipe, sys.argv[1], devices=int(sys.argv[2]), verbose=0)\n"
    )
    for devices in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / devices), devices], check=True, timeout=300
        )
    one, two = load_model(tmp_path / "1"), load_model(tmp_path / "2")
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_large_models_are_stored_as_float16(recipe, tmp_path):
    large = recipe.model_copy(
        update={
            "classifier": lambda: architectures.mlp((8, 8, 1), hidden=(1000, 1000)),
            "epochs": 1,
            "n": 20,
        }
    )
    record = run(large, tmp_path / "out", verbose=0)
    assert record.weights.dtype == "float16"
    assert record.parameters > 1_000_000
    assert load_model(tmp_path / "out").robustness == record


def test_mixed_precision_is_only_for_training(recipe, tmp_path):
    mixed = recipe.override({"dtype_policy": "mixed_bfloat16", "epochs": "1"})
    run(mixed, tmp_path / "out", verbose=0)
    assert keras.config.dtype_policy().name == "float32"
    model = load_model(tmp_path / "out")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_every_epoch_has_an_order_of_its_own_and_all_examples_get_a_turn():
    data = load_dataset("digits", "train")
    batches = _Epochs(data, 64, seed=0)
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


def test_a_diverging_run_leaves_no_checkpoint(recipe, tmp_path):
    hot = recipe.model_copy(update={"optimizer": lambda steps: keras.optimizers.SGD(1e30)})
    with pytest.raises(RecipeError, match=r"'mlp\.pgd_digits' diverged"):
        run(hot, tmp_path / "out", verbose=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted(recipes_directory().glob("*.py")), ids=lambda p: p.stem)
def test_every_recipe_loads_and_builds(path):
    recipe, source = load_recipe(path)
    assert recipe.name.replace(".", "_") == path.stem
    assert load_recipe(recipe.name)[0].name == recipe.name
    assert source == f"training/recipes/{path.name}"
    classifier = recipe.classifier()
    assert recipe.name.startswith(f"{classifier.name}.")
    if recipe.defense:
        assert recipe.defense(classifier, 100).classifier is classifier
    assert f"robust-zoo train {recipe.name}" in path.read_text()


def test_mnist_is_measured_on_enough_examples():
    for record in list_models("*mnist"):
        assert record.clean.n_examples == 10_000
        fgsm, pgd, restarts, autoattack = record.attacks
        assert [part.name for part in record.attacks] == ["FGSM", "PGD", "PGD", "AutoAttack"]
        assert fgsm.n_examples == pgd.n_examples == 10_000
        assert (pgd.config["steps"], restarts.config["steps"]) == (40, 100)
        assert restarts.config["restarts"] == 20
        assert restarts.n_examples == autoattack.n_examples == 1_000
        assert [item.n_examples for item in record.minimum_norm] == [1_000]


def test_every_shipped_model_has_its_recipe():
    for record in list_models():
        recipe, source = load_recipe(record.name)
        assert record.training.recipe == source
        assert recipe.epochs == record.training.epochs
        fixed = [attack for attack in recipe.attacks if isinstance(attack, FixedBudgetAttack)]
        free = [attack for attack in recipe.attacks if isinstance(attack, MinimumNormAttack)]
        for attacks, found in ((fixed, record.attacks), (free, record.minimum_norm)):
            assert [attack.get_config() for attack in attacks] == [item.config for item in found]
        assert recipe.deviations == record.training.deviations


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 5", "must assign a Recipe to `recipe`, got 5"),
        ("recipe = Recipe(", "cannot be read"),
        ("import nothing_of_that_name", "cannot be read: No module named"),
    ],
)
def test_bad_recipe_files(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_unknown_recipes():
    with pytest.raises(RecipeError, match=r"no recipe 'mlp\.none': .*mlp_pgd_digits"):
        load_recipe("mlp.none")
    with pytest.raises(RecipeError, match="no recipe"):
        load_recipe(pathlib.Path("/no/such/recipe.py"))
