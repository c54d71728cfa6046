import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose

from robust_zoo.attacks import APGD, FGSM, PGD, NormalStartPGD
from robust_zoo.backend import random
from robust_zoo.defenses import TRADES


def compiled(trainer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    return trainer


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def test_the_objective_is_cross_entropy_plus_beta_times_the_divergence(small_cnn):
    rng = np.random.default_rng(0)
    clean, adversarial = (rng.normal(size=(6, 5)) for _ in range(2))
    y, weight = np.arange(6) % 5, rng.random(6)
    p, q = softmax(clean), softmax(adversarial)
    each = -np.log(p[np.arange(6), y]) + 4 * (p * np.log(p / q)).sum(1)
    defense = compiled(TRADES(small_cnn, attack=FGSM(epsilon=0.1), beta=4))
    x, y_pred = {"clean": np.zeros((6, 6, 6, 1))}, {"clean": clean, "adversarial": adversarial}
    y_pred = {name: ops.convert_to_tensor(z, "float32") for name, z in y_pred.items()}
    assert float(defense.objective(x, y, y_pred, None)) == pytest.approx(each.mean(), rel=1e-5)
    weighted = float(defense.objective(x, y, y_pred, ops.convert_to_tensor(weight, "float32")))
    assert weighted == pytest.approx((weight * each).mean(), rel=1e-5)


@pytest.mark.slow
def test_without_the_divergence_it_is_natural_training(small_cnn, images):
    x, y = images(16), np.arange(16) % 5
    options = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    start = small_cnn.get_weights()
    compiled(small_cnn).fit(x, y, **options)
    natural = small_cnn.get_weights()
    small_cnn.set_weights(start)
    compiled(TRADES(small_cnn, attack=PGD(epsilon=0.1, steps=2), beta=0)).fit(x, y, **options)
    for a, b in zip(natural, small_cnn.get_weights(), strict=True):
        assert_allclose(a, b, atol=1e-6)


def test_its_attack_starts_close_by_and_moves_the_prediction(small_cnn, images):
    x, y = ops.convert_to_tensor(0.25 + 0.5 * images(8)), ops.zeros(8, "int32")
    settings = {"epsilon": 0.2, "loss": "kl_divergence", "step_size": 1e-9}
    start = NormalStartPGD(**settings, steps=1)(small_cnn, x, y, key=random.key(0))
    noise = ops.convert_to_numpy(start - x)
    assert noise.std() == pytest.approx(0.001, rel=0.2)
    settings["step_size"] = 0.05
    x_adv = NormalStartPGD(**settings, steps=10)(small_cnn, x, y, key=random.key(0))
    p, q = (softmax(ops.convert_to_numpy(small_cnn(images))) for images in (x, x_adv))
    noisy = softmax(ops.convert_to_numpy(small_cnn(x + 0.2 * np.sign(noise))))
    reached, random_one = ((p * np.log(p / z)).sum(1) for z in (q, noisy))
    assert (reached > random_one).all()
    assert np.abs(ops.convert_to_numpy(x_adv - x)).max() == pytest.approx(0.2, abs=1e-6)


def test_bad_arguments(small_cnn):
    with pytest.raises(ValueError, match="beta must be a number >= 0, got -1"):
        TRADES(small_cnn, attack=FGSM(epsilon=0.1), beta=-1)
    with pytest.raises(ValueError, match="start_deviation must be > 0"):
        NormalStartPGD(epsilon=0.1, start_deviation=0)
    with pytest.raises(
        ValueError, match="loss 'kl_divergence' needs a random start and no targets"
    ):
        PGD(epsilon=0.1, loss="kl_divergence", random_start=False)
    with pytest.raises(ValueError, match="loss must not need the clean logits in APGD"):
        APGD(epsilon=0.1, loss="kl_divergence")
