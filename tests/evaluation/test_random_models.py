"""Records of models that are random, by attacks that average over draws of their randomness."""

import keras
import numpy as np
import pytest

from robust_zoo import evaluate, verify
from robust_zoo.attacks import EOT, PGD, AutoAttack, DeepFool
from robust_zoo.datasets import load_dataset
from robust_zoo.describe import accuracies, accuracy_of, describe_attack
from robust_zoo.record import RobustnessRecord

pytestmark = pytest.mark.usefixtures("few_planted")


@keras.saving.register_keras_serializable("tests")
class PixelNoise(keras.layers.Layer):
    """Adds normal noise to images, at inference too."""

    def __init__(self, deviation=0.3, **kwargs):
        super().__init__(**kwargs)
        self.deviation = deviation
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + self.deviation * keras.random.normal(
            keras.ops.shape(x), seed=self.seed_generator
        )

    def get_config(self):
        return {**super().get_config(), "deviation": self.deviation}


@pytest.fixture(scope="module")
def model(trained):
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, trained(PixelNoise()(inputs)), name="noisy")


def test_a_record_of_a_random_model(model, tmp_path):
    attacks = [
        EOT(PGD(epsilon=0.1, steps=10), 11),
        AutoAttack(epsilon=0.1, version="rand", samples=11),
    ]
    options = {"attacks": attacks, "n": 60, "progress": False}
    record = evaluate(model, "digits", **options)
    checks = {check.name: check for check in record.checks}
    assert checks["randomness"].passed
    assert checks["randomness"].value > 0.1
    assert 0.3 < record.clean.expected < 1
    pgd, auto = record.attacks
    assert pgd.expected < record.clean.expected
    assert auto.expected <= pgd.expected + 0.05
    # Draws are right more or less often than by their majority.
    assert pgd.expected != pgd.accuracy
    assert record.worst_case.correct <= min(pgd.correct, auto.correct)
    assert list(auto.components) == ["apgd-ce", "apgd-dlr"]
    assert "mean of 11 draws" in describe_attack(pgd)
    assert "version rand" in describe_attack(auto)
    assert record.curve.config["samples"] == 11
    assert RobustnessRecord.from_json(record.to_json()) == record
    (told,) = [part for part in accuracies(record) if part.found is pgd]
    assert "expected" in accuracy_of(told.found)
    # In parts, and again, it is the same.
    other = evaluate(model, "digits", task_size=32, state_directory=tmp_path, **options)
    assert other.attacks[0].n_examples == 60
    model.robustness = record
    assert all(part.agrees for part in verify(model, n=30, progress=False))
    del model.robustness


def test_without_averaging_it_is_flagged(model):
    record = evaluate(model, "digits", attacks=[PGD(epsilon=0.1, steps=5)], n=40, progress=False)
    checks = {check.name: check for check in record.checks}
    assert not checks["randomness"].passed
    assert "AutoAttack's version rand" in checks["randomness"].explanation
    assert record.clean.expected is None
    assert '"expected"' not in record.to_json()


def test_minimum_norm_attacks(model):
    record = evaluate(
        model, "digits", attacks=[EOT(DeepFool(), 11)], n=40, checks=False, progress=False
    )
    (found,) = record.minimum_norm
    assert 0 < found.found.n_examples <= 40
    assert found.config["samples"] == 11


def test_attacks_by_name(command, tmp_path):
    status, _, err = command(
        "evaluate", "mlp.natural_digits", "--attack", "pgd:steps=3,samples=4", "--epsilon", "0.1", "--n", "20",
        "--json", tmp_path / "record.json",
    )  # fmt: skip
    assert status == 0, err
    record = RobustnessRecord.from_json((tmp_path / "record.json").read_text())
    assert record.attacks[0].config["samples"] == 4
    # The model is not random: each draw says the same.
    assert record.attacks[0].expected == pytest.approx(record.attacks[0].accuracy)
    status, _, err = command(
        "evaluate",
        "mlp.natural_digits",
        "--attack",
        "pgd:samples=0",
        "--epsilon",
        "0.1",
        "--n",
        "20",
    )
    assert status == 1
    assert "--attack: samples of 'pgd' must be an integer >= 1, got '0'" in err


def test_images_of_others_are_judged_by_the_majority(model, tmp_path):
    from robust_zoo import challenge

    record = evaluate(
        model,
        "digits",
        attacks=[EOT(PGD(epsilon=0.1, steps=3), 5)],
        n=40,
        checks=False,
        progress=False,
    )
    data = load_dataset("digits", "test")
    np.savez(tmp_path / "images.npz", images=data.images)
    model.robustness = record
    harmless = challenge(model, tmp_path / "images.npz", source="nobody")
    del model.robustness
    assert harmless.external[0].correct == record.clean.correct
    assert harmless.worst_case == record.worst_case


def test_attacks_that_average_differently_are_refused(model):
    attacks = [PGD(epsilon=0.1, steps=3), EOT(PGD(epsilon=0.1, steps=3), 5)]
    with pytest.raises(ValueError, match=r"must all average over as many draws.*got samples 1, 5"):
        evaluate(model, "digits", attacks=attacks, n=10, progress=False)
