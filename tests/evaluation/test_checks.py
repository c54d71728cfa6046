import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, AutoAttack, flags
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import checks, evaluate, tasks
from robust_zoo.record import ThreatModel

OPTIONS = {"seed": 0, "batch_size": 64, "progress": False}
THREAT = ThreatModel(norm="linf", epsilon=0.1)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def scaled(model, factor):
    """The same decisions with logits `factor` times as large."""
    copy = keras.models.clone_model(model)
    weights = model.get_weights()
    copy.set_weights([*weights[:-2], factor * weights[-2], factor * weights[-1]])
    return copy


@pytest.mark.long
def test_an_honest_model_passes_everything(trained, digits):
    attacks = [AutoAttack(epsilon=THREAT.epsilon)]
    found = evaluate(trained, digits, attacks=attacks).checks
    assert [check.name for check in found] == [
        "zero_gradients",
        "gradients_not_finite",
        "softmax_output",
        "logit_scale",
        "randomness",
        "clean_above_chance",
        "pgd_at_least_as_strong_as_fgsm",
        "no_label_leaking",
        "accuracy_reaches_chance",
        "curve_agrees_with_attacks",
        "binarisation_test",
        "square_stronger_than_white_box",
        "too_few_classes",
    ]
    assert all(check.passed for check in found), found
    assert "0.0000 at 1" in found[-5].explanation


def test_checks_without_a_threat_model_do_not_attack(trained, digits):
    assert len(evaluate(trained, digits).checks) == 6


def test_saturated_logits_fire_zero_gradients(trained, digits):
    x, y = digits.images[:100], digits.labels[:100]
    check, _ = flags.gradient_checks(scaled(trained, 1e3), x, y, batch_size=64)
    assert not check.passed
    assert check.value > 0.8


def test_softmax_fires(trained, digits):
    logits = ops.convert_to_numpy(ops.softmax(trained(digits.images[:50])))
    check = flags.softmax_output(logits)
    assert not check.passed
    assert check.value < 1e-5


def test_randomness_fires(digits):
    @keras.saving.register_keras_serializable("tests")
    class Noise(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seed_generator = keras.random.SeedGenerator(0)

        def call(self, x):
            return x + keras.random.normal(ops.shape(x), seed=self.seed_generator)

    model = architectures.mlp((8, 8, 1))
    noisy = keras.Model(model.inputs[0], Noise()(model.outputs[0]))
    assert flags.randomness(model, digits.images[:8]).passed
    check = flags.randomness(noisy, digits.images[:8])
    assert not check.passed
    assert check.value > 0.1


def quantised(model):
    """`model` behind a quantiser of pixels, which has no gradient."""
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, model(ops.round(inputs * 2) / 2))


@pytest.mark.long
def test_a_model_without_a_gradient_does_not_reach_chance(trained, digits):
    options = {"attacks": FGSM(epsilon=THREAT.epsilon), "n": 100}
    check, honest = (
        next(
            check
            for check in evaluate(model, digits, **options).checks
            if check.name == "accuracy_reaches_chance"
        )
        for model in (quantised(trained), trained)
    )
    assert honest.passed
    assert not check.passed
    assert check.value > honest.value + 0.2


def rows_of(*counts):
    """bool arrays of 100 images, so many of them true."""
    return (np.arange(100) < count for count in counts)


def test_pgd_weaker_than_fgsm_fires():
    check = checks.pgd_beats_fgsm(*rows_of(40, 70), "PGD-20")
    assert (check.passed, check.value) == (False, pytest.approx(-0.3))
    assert checks.pgd_beats_fgsm(*rows_of(40, 45), "PGD-20").passed  # within chance
    assert checks.pgd_beats_fgsm(*rows_of(40, 20), "PGD-20").passed
    few = (rows[:20] for rows in rows_of(40, 20))
    assert checks.pgd_beats_fgsm(*few, "PGD-20").passed is None


@pytest.mark.slow
@pytest.mark.usefixtures("few_planted")
def test_fgsm_and_pgd_are_compared_on_the_same_images(trained, digits, monkeypatch):
    def found():
        attack = FGSM(epsilon=THREAT.epsilon)
        record = evaluate(trained, digits, attacks=attack, n=300, progress=False)
        by_name = {check.name: check for check in record.checks}
        return by_name["pgd_at_least_as_strong_as_fgsm"], by_name["no_label_leaking"]

    some = digits.sample(300, 0)
    x, y = some.images[:256], some.labels[:256]
    one, many = (
        float((~attack.run(trained, x, y, progress=False).success).mean())
        for attack in (FGSM(epsilon=THREAT.epsilon), PGD(epsilon=THREAT.epsilon, steps=20))
    )
    weaker, leaking = found()
    assert weaker.passed
    assert weaker.value == pytest.approx(one - many)
    right = float((ops.convert_to_numpy(trained(x)).argmax(1) == y).mean())
    assert leaking.passed
    assert leaking.value == pytest.approx(one - right, abs=0.03)
    # A PGD that does not move is the weakest there is.
    still = PGD(epsilon=THREAT.epsilon, steps=1, step_size=1e-9)
    monkeypatch.setattr(tasks, "curve_attack", lambda threat, samples: still)
    assert found()[0].passed is False


@pytest.mark.slow
def test_a_step_that_helps_fires_label_leaking(trained, digits, monkeypatch):
    x, y = digits.images[:100], digits.labels[:100]
    # Labels moved on by one are mostly wrong on clean images; a step towards them is what leaking looks like.
    labels = (y + 1) % 10
    original = checks.FGSM
    monkeypatch.setattr(checks, "FGSM", lambda **k: original(**k, targeted=True))
    wide = ThreatModel(norm="linf", epsilon=0.3)
    moved = checks.right_after_fgsm(trained, x, labels, wide, seed=0, batch_size=64)
    clean = ops.convert_to_numpy(trained(x)).argmax(1) == labels
    check = checks.no_label_leaking(clean, moved)
    assert not check.passed
    assert check.value > 0.2
