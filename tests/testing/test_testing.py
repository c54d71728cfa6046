"""The public checks catch what they are for."""

from dataclasses import dataclass

import keras
import pytest
from keras import ops

from robust_zoo.attacks import FGSM, PGD, DeepFool
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.testing import attack_checks, check_attack, check_defense, defense_checks


@keras.saving.register_keras_serializable("tests.testing")
@dataclass(frozen=True, kw_only=True)
class Fast(FGSM):
    """FGSM, broken by `fault`."""

    fault: str = ""

    def get_config(self):
        config = super().get_config()
        return {k: v for k, v in config.items() if self.fault != "forgets" or k != "labels"}

    def template(self):
        return self

    def step(self, model, x, state, epsilon):
        state, logits = super().step(model, x, state, epsilon)
        if self.fault == "leaves":
            state = {**state, "x_adv": ops.clip(x + 2 * (state["x_adv"] - x), 0.0, 1.0)}
        if self.fault == "batch":  # one image's change depends on the others
            state = {**state, "x_adv": ops.clip(x + ops.mean(state["x_adv"] - x, axis=0), 0.0, 1.0)}
        return state, logits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ("leaves", {"stays_in_its_ball", "pure_call_and_run_agree"}),
        ("batch", {"batch_size_does_not_matter"}),
        ("forgets", {"configuration_round_trips"}),
    ],
)
def test_faults_of_attacks_are_caught(fault, caught):
    attack = Fast(epsilon=0.1, labels="predicted" if fault == "forgets" else "true", fault=fault)
    failed = set()
    for name, check in attack_checks(attack).items():
        try:
            check()
        except (AssertionError, RuntimeError):  # `run` itself looks at the ball
            failed.add(name)
    assert failed >= caught
    with pytest.raises((AssertionError, RuntimeError)) as error:
        check_attack(attack)
    assert "in the check" in error.value.__notes__[0]


@pytest.mark.slow
@pytest.mark.parametrize("attack", [PGD(epsilon=0.1, steps=3), DeepFool(steps=5)])
def test_good_attacks_pass(attack):
    check_attack(attack)


@keras.saving.register_keras_serializable("tests.testing")
class Forgetful(AdversarialTraining):
    """Does not weigh its examples."""

    def objective(self, x, y, y_pred, sample_weight):
        return super().objective(x, y, y_pred, None)


def training(kind):
    return lambda classifier: kind(classifier, attack=PGD(epsilon=0.1, steps=2))


@pytest.mark.long
@pytest.mark.home
def test_faults_of_defenses_are_caught():
    checks = defense_checks(training(Forgetful))
    checks["training_moves_the_weights"]()
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        checks["examples_of_weight_zero_do_not_count"]()
    with pytest.raises(AssertionError) as error:
        check_defense(training(Forgetful))
    assert "'examples_of_weight_zero_do_not_count'" in error.value.__notes__[0]


@pytest.mark.long
@pytest.mark.home
def test_good_defenses_pass(strategy):
    check_defense(training(AdversarialTraining), strategy=strategy)
