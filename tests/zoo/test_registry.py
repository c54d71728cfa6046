import functools

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import architectures, attacks, evaluation
from robust_zoo.attacks import FGSM
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import evaluate
from robust_zoo.places import RECORD, checkpoints_directory
from robust_zoo.zoo import CheckpointError, list_models, load_model, load_record, save_model
from robust_zoo.zoo.checkpoint import load_checkpoint
from robust_zoo.zoo.registry import UnknownModelError


@pytest.mark.slow
def test_every_shipped_model_loads_and_its_clean_accuracy_is_what_its_record_says():
    entries = list_models(role="all")
    records = [load_record(entry.name) for entry in entries]
    assert {record.name for record in records} >= {
        "digits_cnn.pgd_digits",
        "madry_cnn.natural_mnist",
        "madry_cnn.pgd_mnist",
        "mlp.natural_digits",
        "mlp.pgd_digits",
    }
    for record in records:
        model = load_model(record.name)
        assert model.robustness == record
        assert model.count_params() == record.parameters
        assert model.input_shape[1:] == record.input.shape
        if record.dataset.name == "digits":
            data = load_dataset("digits").sample(record.clean.n_examples, record.attacks[0].seed)
            found = ops.convert_to_numpy(model(data.images)).argmax(1) == data.labels
            assert found.sum() == record.clean.correct


def test_shipped_robust_accuracy_is_measured_again():
    model = load_model("mlp.pgd_digits")
    outcome = model.robustness.attacks[0]
    assert outcome.name == "FGSM"
    record = evaluate(model, "digits", attacks=[FGSM.from_config(outcome.config)], checks=False)
    # A gradient of nearly zero may have another sign on another backend.
    assert abs(record.attacks[0].correct - outcome.correct) <= 2
    assert record.name == "mlp.pgd_digits"
    assert record.training == model.robustness.training


def test_filters():
    assert {entry.dataset for entry in list_models("*_mnist")} == {"mnist"}
    digits = [entry.name for entry in list_models(dataset="digits", defense="pgd")]
    assert digits == ["mlp.pgd_digits", "digits_cnn.pgd_digits"]
    (natural,) = list_models(defense="natural", dataset="digits", role="baseline")
    assert natural.name == "mlp.natural_digits"
    assert list_models(defense="natural", dataset="digits") == []
    everything = list_models(role="all")
    assert {entry.role for entry in list_models()} == {"robust"}
    parts = [list_models(role=role) for role in ("robust", "baseline", "study")]
    assert sorted(map(repr, everything)) == sorted(repr(entry) for part in parts for entry in part)
    pgd, fgsm, step_ll, trained = (
        {entry.name for entry in list_models(defense=defense, role="all")}
        for defense in ("pgd", "FGSM", "step_ll", "AdversarialTraining")
    )
    others = {"logistic.fast_gradient_mnist37", "allconv.fgm_cifar10"}
    assert pgd | fgsm | step_ll | others == trained
    assert step_ll == {"lenet.step_ll_mnist"}
    assert all(".fgsm_" in name for name in fgsm)
    assert list_models(norm="l2") == []
    assert list_models("nosuch*") == []
    for options, message in (
        ({"norm": "l9"}, "norm must be one of linf, l2, l1, l0"),
        ({"role": "good"}, "role must be one of robust, baseline, study, all, got 'good'"),
        ({"dataset": "svhn"}, "dataset must be one that a model has, cifar10, digits, mnist"),
        ({"defense": "magic"}, "defense must be one that a model has, .*pgd"),
    ):
        with pytest.raises(ValueError, match=message):
            list_models(**options)


def test_a_model_that_only_has_a_recipe():
    with pytest.raises(
        UnknownModelError, match=r"'mlp\.fast_digits' has a recipe, but nobody published"
    ):
        load_model("mlp.fast_digits")


def test_unknown_names_come_with_the_closest_ones():
    with pytest.raises(UnknownModelError, match=r"'mlp.pgd_digit': did you mean mlp\.pgd_digits"):
        load_model("mlp.pgd_digit")
    with pytest.raises(UnknownModelError, match=r"'zzzzzzzz': there are .*digits_cnn\.pgd_digits"):
        load_model("zzzzzzzz")


@pytest.mark.parametrize("handle", ["no/such/place", "./nowhere", "../checkpoints"])
def test_missing_directories(handle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint directory"):
        load_model(handle)


def test_a_name_works_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_model("mlp.pgd_digits").robustness.name == "mlp.pgd_digits"


def test_a_new_head_drops_the_record_and_says_so():
    with pytest.warns(UserWarning, match=r"new head of 3 classes.*does not hold.*evaluate"):
        model = load_model("digits_cnn.pgd_digits", num_classes=3)
    assert model.robustness is None
    assert model.output_shape == (None, 3)
    body = load_model("digits_cnn.pgd_digits").layers[1].get_weights()[0]
    np.testing.assert_array_equal(model.layers[1].get_weights()[0], body)


@pytest.mark.long
def test_fine_tuning_a_loaded_model():
    from robust_zoo.attacks import PGD
    from robust_zoo.defenses import AdversarialTraining

    with pytest.warns(UserWarning, match="new head"):
        model = load_model("digits_cnn.pgd_digits", num_classes=2)
    data, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    defense = AdversarialTraining(model, attack=PGD(epsilon=0.1, steps=3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    defense.fit(data.images, data.labels % 2, epochs=2, verbose=0)
    record = evaluate(
        defense.classifier,
        (test.images, test.labels % 2),
        attacks=[PGD(epsilon=0.1, steps=5)],
        checks=False,
    )
    assert record.attacks[0].accuracy > 0.8


def test_a_directory_without_a_record(tmp_path):
    save_model(architectures.digits_cnn(), tmp_path / "plain")
    assert load_model(tmp_path / "plain").robustness is None
    with pytest.raises(CheckpointError, match="robustness was never measured"):
        load_record(tmp_path / "plain")


split_of = functools.lru_cache(1)(lambda name: load_dataset(name, "test"))


def check_numbers(name, number, n):
    """Clean accuracy exactly, and one attack on n images within four standard errors of the record's number."""
    model = load_model(name)
    clean, recorded = model.robustness.clean, model.robustness.attacks[number]
    attack = getattr(attacks, recorded.name).from_config(recorded.config)
    data = split_of(model.robustness.dataset.name)
    found = evaluation.clean_accuracy(model, data.images, data.labels)
    assert found.n_examples == clean.n_examples
    assert abs(found.correct - clean.correct) <= 2
    record = evaluate(model, data, attacks=[attack], n=n, checks=False)
    p = recorded.accuracy
    assert abs(record.attacks[0].accuracy - p) <= 4 * np.sqrt(p * (1 - p) / n) + 1e-9
    return recorded


@pytest.mark.long
@pytest.mark.mnist
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(record.name, marks=[pytest.mark.home] * (record.name != "madry_cnn.pgd_mnist"))
        for record in list_models("*mnist*", role="all")
    ],
)
def test_shipped_mnist_models_are_as_robust_as_their_records_say(name):
    assert check_numbers(name, 0, 1000).name == "FGSM"


@pytest.mark.long
@pytest.mark.mnist
@pytest.mark.parametrize("name", ["madry_cnn.natural_mnist", "madry_cnn.pgd_mnist"])
def test_numbers_of_an_iterative_attack(name):
    assert check_numbers(name, 1, 200).config["steps"] == 40


@pytest.mark.parametrize(
    "hide", [lambda path: path.unlink(), lambda path: (path.unlink(), path.mkdir())]
)
def test_a_directory_without_a_record_warns(checkpoint, hide):
    """Missing, or no file."""
    directory = checkpoint()
    hide(directory / RECORD)
    with pytest.warns(
        UserWarning, match=r"has no robustness\.json: its robustness was never measured"
    ):
        assert load_model(directory).robustness is None


def test_a_model_of_the_zoo_that_is_replaced_while_it_loads_is_refused(monkeypatch):
    """What was read is compared with the index, not what lay there before."""
    other = checkpoints_directory() / "mlp.pgd_digits"
    monkeypatch.setattr(
        "robust_zoo.zoo.loading.load_checkpoint", lambda directory: load_checkpoint(other)
    )
    with pytest.raises(CheckpointError, match="not the one in the zoo's index"):
        load_model("mlp.natural_digits")
