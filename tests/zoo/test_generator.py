import json

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import architectures
from robust_zoo.attacks import GeneratorAttack
from robust_zoo.places import checkpoints_directory
from robust_zoo.zoo import CheckpointError, load_attack, load_model, publish, save_model


@pytest.fixture
def attack():
    generator = architectures.perturbation_generator((8, 8, 1), 10, filters=4, hidden=8)
    for variable in generator.trainable_variables:
        variable.assign(variable + 0.01)
    return GeneratorAttack(generator=generator, gradient_scale=2.0)


@pytest.fixture
def saved(attack, tmp_path):
    model = load_model("mlp.pgd_digits")
    return save_model(model, tmp_path / "model", model.robustness, attack=attack)


@pytest.mark.slow
def test_it_is_the_same_attack(saved, attack, images, tmp_path):
    model, (x, y) = load_model(saved), (images(6, (8, 8, 1)), np.arange(6))
    found = load_attack(saved)
    assert found.get_config() == attack.get_config()
    expected = attack.run(model, x, y, progress=False)
    np.testing.assert_array_equal(found.run(model, x, y, progress=False).x_adv, expected.x_adv)
    handle = publish(saved, f"file://{tmp_path}/hub/pgn")
    assert load_attack(handle).get_config() == attack.get_config()


def test_a_model_without_one_says_so():
    with pytest.raises(CheckpointError, match="has no generator: only models trained by PGN"):
        load_attack("mlp.pgd_digits")
    assert not (checkpoints_directory() / "mlp.pgd_digits" / "generator.json").exists()


def test_other_weights_and_other_code_are_refused(saved):
    config, weights = saved / "generator.json", saved / "generator.weights.h5"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"x")
    with pytest.raises(CheckpointError, match="was tampered with: its sha256 is not that in"):
        load_attack(saved)
    weights.write_bytes(whole)
    told = json.loads(config.read_text())
    for changes, message in (
        ({"model_sha256": "0" * 64}, "belongs to another model"),
        ({"gradient_scale": -1.0}, "gradient_scale in .* must be a number >= 0, it is -1.0"),
    ):
        config.write_text(json.dumps({**told, **changes}))
        with pytest.raises(CheckpointError, match=message):
            load_attack(saved)
    told["config"]["class_name"], told["config"]["module"] = "system", "os"
    config.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"asks for os\.system"):
        load_attack(saved)
    config.write_text("{}")
    with pytest.raises(
        CheckpointError, match="must hold config, gradient_scale, model_sha256, weights_sha256"
    ):
        load_attack(saved)


@pytest.mark.slow
def test_weights_survive_as_they_are(saved, attack):
    for a, b in zip(load_attack(saved).generator.weights, attack.generator.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    assert isinstance(load_attack(saved).generator, keras.Model)
