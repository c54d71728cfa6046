"""Attacks of other packages, found by their entry points."""

import json
import textwrap

import numpy as np
import pytest

from robust_zoo import evaluate, load_model, verify
from robust_zoo.attacks import FGSM, Attack
from robust_zoo.attacks.registry import attack_of, class_of, outside_hyperparameters
from robust_zoo.cli.common import needs_epsilon, norms_of, parse_attack, read_attack
from robust_zoo.datasets import load_dataset
from robust_zoo.record import RobustnessRecord


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """A package that is installed, with two entry points."""
    (tmp_path / "other_attacks.py").write_text(
        textwrap.dedent(
            """
            from __future__ import annotations
            from dataclasses import dataclass
            from typing import ClassVar
            import keras
            from keras import ops
            from robust_zoo.attacks import FixedBudgetAttack

            @keras.saving.register_keras_serializable("other_attacks")
            @dataclass(frozen=True, kw_only=True)
            class Brighter(FixedBudgetAttack):
                "All pixels lighter, by a share of the budget."
                share: float = 1.0
                darker: bool = False
                colour: str = "any"
                norms: ClassVar[tuple[str, ...]] = ("linf",)
                steps: ClassVar[int] = 0

                def start(self, model, x, y, keys, epsilon, attempt):
                    change = epsilon * self.share * (-1.0 if self.darker else 1.0)
                    return {"x_adv": ops.clip(x + change, 0.0, 1.0), "labels": y}

                def loss_value(self, logits, state):
                    return -ops.max(logits, axis=1)
            """
        )
    )
    about = tmp_path / "other_attacks-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other-attacks\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[robust_zoo.attacks]\nbrighter = other_attacks:Brighter\nbroken = other_attacks:Nothing\n"
        "none = json:dumps\nfgsm = other_attacks:Brighter\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_they_have_names_on_the_command_line(other_package):
    assert read_attack("brighter:share=0.5,darker=true,colour=red") == (
        "brighter",
        {"share": 0.5, "darker": True, "colour": "red"},
    )
    assert needs_epsilon("brighter")
    assert norms_of("brighter") == ("linf",)
    attack = parse_attack("brighter:share=0.5", 0.1, None)
    assert (type(attack).__name__, attack.epsilon, attack.share) == ("Brighter", 0.1, 0.5)
    assert attack_of("fgsm", epsilon=0.1) == FGSM(epsilon=0.1)  # ours stay ours


def test_they_measure_and_are_verified(other_package):
    trained = load_model("mlp.natural_digits")
    attack = attack_of("brighter", epsilon=0.3)
    images = load_dataset("digits").sample(50, 0).images
    np.testing.assert_allclose(
        attack.run(trained, images, progress=False).distance.max(), 0.3, rtol=1e-5
    )
    record = evaluate(trained, "digits", attacks=[attack], n=50, checks=False, progress=False)
    trained.robustness = RobustnessRecord.from_json(json.dumps(json.loads(record.to_json())))
    assert [part.agrees for part in verify(trained, progress=False)] == [True, True, True]
    assert class_of("Brighter") is type(attack)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "brighter:nothing=1",
            "'brighter' has no 'nothing': it must be one of norm, samples, epsilon, share",
        ),
        ("brighter:share=red", "share of 'brighter' must be a number"),
        ("broken", "attack 'broken' cannot be loaded: "),
        (
            "none:norm=linf",
            "attack 'none' must be a dataclass derived from .*Attack, got <function",
        ),
        ("nosuch", "unknown attack 'nosuch': it must be one of autoattack, .*, brighter, broken"),
    ],
)
def test_wrong_ones_are_refused(other_package, text, message):
    with pytest.raises(ValueError, match=message):
        parse_attack(text, 0.1, None)


def test_without_other_packages():
    assert class_of("Brighter") is None
    assert class_of("PGD").__mro__[-2] is Attack
    with pytest.raises(ValueError, match="cannot be loaded"):
        outside_hyperparameters("brighter")
