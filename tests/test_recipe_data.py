"""Recipes whose training images are read as they are needed."""

import functools
import json

import keras
import numpy as np
import pytest

from robust_zoo.attacks import FGSM, DeepFool
from robust_zoo.datasets import (
    Batches,
    RandomResizedCrop,
    StoredDataset,
    dataset,
    flip_and_crop,
    open_dataset,
)
from robust_zoo.defenses import AdversarialTraining, FixedSetTraining
from robust_zoo.recipe import Recipe, RecipeError, execution, resolved, run
from robust_zoo.recipe.fitting import TimeLimitError
from robust_zoo.zoo import load_model

pytestmark = [pytest.mark.home, pytest.mark.slow]
SIZES = {"train": 24, "validation": 12, "test": 9}


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures of two sizes, a brighter class and a darker one."""
    rng = np.random.default_rng(0)
    for split, n in SIZES.items():
        for number in range(n):
            label = number % 2
            directory = tmp_path / "pictures" / split / ("dark", "light")[label]
            directory.mkdir(parents=True, exist_ok=True)
            side = 8 + 4 * (number % 3 > 0)
            pixels = rng.integers(0, 180, (side, 12, 3)) + 60 * label
            keras.utils.save_img(directory / f"{number:02d}.png", pixels, scale=False)
    return str(tmp_path / "pictures")


def linear():
    parts = [keras.layers.Flatten(), keras.layers.Dense(2, name="logits")]
    return keras.Sequential([keras.Input((8, 8, 3)), *parts], name="linear")


def recipe(pictures, **changes):
    return Recipe(
        **{
            "name": "linear.fgsm_pictures",
            "dataset": pictures,
            "classifier": linear,
            "defense": lambda model, steps: AdversarialTraining(model, attack=FGSM(epsilon=0.02)),
            "optimizer": lambda steps: keras.optimizers.SGD(0.1),
            "augment": functools.partial(flip_and_crop, pad=1),
            "epochs": 3,
            "batch_size": 8,
            "attacks": (FGSM(epsilon=0.02),),
            **changes,
        }
    )


@pytest.fixture
def asked(monkeypatch, pictures):
    """How many images each reading of the folder was asked for; none of its splits fits into memory."""
    monkeypatch.setattr(dataset, "_PICTURES_IN_MEMORY", 1000)
    monkeypatch.setattr(resolved, "_SAMPLE", 8)
    monkeypatch.setattr(execution, "evaluate", functools.partial(execution.evaluate, checks=False))
    found = []
    kind = type(open_dataset(pictures, "train").reader)
    original = kind.read

    def read(self, numbers, parts=None):
        found.append(len(numbers))
        return original(self, numbers, parts)

    monkeypatch.setattr(kind, "read", read)
    return found


def test_the_model_is_the_one_of_data_in_memory(pictures, asked, tmp_path, monkeypatch):
    stored = run(recipe(pictures), tmp_path / "stored", verbose=0)
    # One to know the shape, batches and the samples by which the data are known, an evaluation's task.
    assert set(asked) == {1, 8, 9}
    assert asked.count(8) >= 9
    monkeypatch.setattr(dataset, "_PICTURES_IN_MEMORY", 10**9)
    whole = run(recipe(pictures), tmp_path / "whole", verbose=0)
    assert stored.weights == whole.weights
    assert stored.attacks[0].correct == whole.attacks[0].correct
    assert load_model(tmp_path / "stored").robustness.dataset.preparation.startswith("resized to")


def test_a_host_reads_its_own_rows(pictures, asked):
    data = open_dataset(pictures, "train", image_shape=(8, 8, 3))
    assert isinstance(data, StoredDataset)
    augment = functools.partial(flip_and_crop, pad=2)
    whole = Batches(data.take(slice(None)), 8, 3, augment)
    hosts = [Batches(data, 8, 3, augment, rows=slice(4 * i, 4 * i + 4)) for i in (0, 1)]
    asked.clear()
    for epoch in (0, 4):
        for part in (whole, *hosts):
            part.begin(epoch)
        for index in range(3):
            images, labels = whole[index]
            read = [part[index] for part in hosts]
            np.testing.assert_array_equal(np.concatenate([x for x, _ in read]), images)
            np.testing.assert_array_equal(np.concatenate([y for _, y in read]), labels)
    assert set(asked) == {4}


def test_parts_of_a_pass_are_its_batches(pictures):
    data = open_dataset(pictures, "train", image_shape=(8, 8, 3))
    augment = functools.partial(flip_and_crop, pad=2)
    whole, parts = Batches(data, 8, 3, augment), Batches(data, 8, 3, augment, steps=2)
    assert (len(whole), len(parts)) == (3, 2)
    for number in range(6):  # two passes
        whole.begin(number // 3)
        parts.begin(number // 2)
        for one, other in zip(whole[number % 3], parts[number % 2], strict=True):
            np.testing.assert_array_equal(one, other)


def test_parts_are_cut_of_pictures_as_they_are_stored(pictures, tmp_path, monkeypatch):
    """Though they are few, none of those trained on is in memory; those measured on are the middle of each."""
    monkeypatch.setattr(execution, "evaluate", functools.partial(execution.evaluate, checks=False))
    read = []
    original = StoredDataset.take
    monkeypatch.setattr(
        StoredDataset,
        "take",
        lambda self, rows, parts=None: read.append(parts) or original(self, rows, parts),
    )
    cropped = recipe(pictures, augment=RandomResizedCrop((0.2, 1.0)), central_crop=0.75, epochs=1)
    record = run(cropped.override({"augment.ratio": "(0.5, 2.0)"}), tmp_path / "out", verbose=0)
    parts = np.concatenate([each for each in read if each is not None])
    assert len(parts) >= SIZES["train"]
    assert parts[:, 0].min() > 0.2
    assert 0.5 <= parts[:, 1].min() < 0.7
    assert "the middle 0.75 resized to 8 x 8" in record.dataset.preparation
    told = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert told["augment"]["name"] == "robust_zoo.datasets.augment.RandomResizedCrop"
    assert (told["augment"]["area"], told["augment"]["ratio"]) == ([0.2, 1.0], [0.5, 2.0])
    assert told["central_crop"] == 0.75


@pytest.mark.long
def test_a_run_resumes_within_a_pass(pictures, tmp_path, monkeypatch):
    """Epochs of two of the three batches of a pass: cut after the first, resumed, the same weights."""
    parted = recipe(pictures, steps_per_epoch=2, epochs=3)
    whole = run(parted, tmp_path / "whole", verbose=0)
    assert whole.training.epochs == 3
    with pytest.raises(TimeLimitError, match="after epoch 1 of 3"):
        run(parted, tmp_path / "cut", max_minutes=1e-6, verbose=0)
    resumed = run(parted, tmp_path / "cut", resume=True, verbose=0)
    assert resumed.weights == whole.weights
    # As many steps in two epochs of a whole pass.
    passes = run(recipe(pictures, epochs=2), tmp_path / "passes", verbose=0)
    assert passes.weights == whole.weights


def test_a_set_made_of_all_images_needs_them_in_memory(pictures, asked, tmp_path):
    fixed = recipe(
        pictures,
        augment=None,
        defense=lambda model, steps: FixedSetTraining(
            model, made_by=DeepFool(steps=2), attack=FGSM(epsilon=0.02)
        ),
    )
    with pytest.raises(RecipeError, match=r"FixedSetTraining trains on a set .* too large"):
        run(fixed, tmp_path / "out", verbose=0)
    assert not (tmp_path / "out").exists()


def test_an_epoch_is_chosen_by_images_in_memory(pictures, asked, tmp_path):
    chosen = recipe(pictures, validation_attack=FGSM(epsilon=0.02))
    with pytest.raises(RecipeError, match=r"validation_attack needs .* leave it out"):
        run(chosen, tmp_path / "out", verbose=0)
    assert 12 not in asked
    assert not (tmp_path / "out").exists()
