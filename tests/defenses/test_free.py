import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose

from robust_zoo.attacks import FGSM, PGD
from robust_zoo.defenses import FreeAdversarialTraining

RATE, EPSILON = 0.5, 0.1


def compiled(trainer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(optimizer=keras.optimizers.SGD(RATE), loss=loss, metrics=["accuracy"])
    return trainer


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@pytest.mark.slow
def test_replays_and_the_kept_perturbation_by_hand(linear, images):
    """Algorithm 1 in NumPy, on two batches, the second smaller."""
    model, kernel, bias = linear
    weights, bias = kernel.copy(), bias.copy()
    change = np.zeros((6, 4))
    defense = FreeAdversarialTraining(model, attack=FGSM(epsilon=EPSILON), batch_size=6, replays=3)
    compiled(defense)
    for n in (6, 4):
        x, y = images(n, (2, 2, 1), seed=n), np.arange(n) % 3
        defense.train_on_batch(x, y)
        for _ in range(3):
            x_adv = np.clip(x.reshape(n, 4) + change[:n], 0, 1)
            error = softmax(x_adv @ weights + bias) - np.eye(3)[y]
            by_image = error @ weights.T
            weights = weights - RATE * x_adv.T @ error / n
            bias = bias - RATE * error.mean(0)
            change[:n] = np.clip(change[:n] + EPSILON * np.sign(by_image), -EPSILON, EPSILON)
        assert_allclose(model.get_weights()[0], weights, atol=1e-5)
        assert_allclose(model.get_weights()[1], bias, atol=1e-5)
        kept = ops.convert_to_numpy(defense.perturbation).reshape(6, 4)
        assert_allclose(kept, change, atol=1e-6)
    assert int(ops.convert_to_numpy(defense.optimizer.iterations)) == 6


@pytest.mark.slow
def test_l2_perturbations_stay_in_their_ball(linear, images):
    model = linear[0]
    attack = PGD(epsilon=0.3, norm="l2", steps=2)
    defense = compiled(FreeAdversarialTraining(model, attack=attack, batch_size=8, replays=5))
    defense.train_on_batch(images(8, (2, 2, 1)), np.arange(8) % 3)
    length = np.linalg.norm(ops.convert_to_numpy(defense.perturbation).reshape(8, -1), axis=1)
    assert length.max() <= 0.3 + 1e-6
    assert length.min() > 0.1


def test_bad_arguments(linear, images):
    model, attack = linear[0], FGSM(epsilon=0.1)
    with pytest.raises(ValueError, match="replays must be an integer >= 1, got 0"):
        FreeAdversarialTraining(model, attack=attack, batch_size=4, replays=0)
    defense = compiled(FreeAdversarialTraining(model, attack=attack, batch_size=4))
    with pytest.raises(ValueError, match="at most the defense's batch_size of 4 examples, got 8"):
        defense.fit(images(8, (2, 2, 1)), np.zeros(8, int), batch_size=8, verbose=0)
    inputs = keras.Input((None, None, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(inputs))
    with pytest.raises(ValueError, match="classifier must have a fixed image shape"):
        FreeAdversarialTraining(keras.Model(inputs, pooled), attack=attack, batch_size=4)


@pytest.mark.slow
def test_pixels_of_infinite_slope_are_perturbed():
    """A root has one at black: the adversary must not be blind there."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(ops.power(inputs, 0.45)))
    trainer = FreeAdversarialTraining(
        keras.Model(inputs, outputs), attack=PGD(epsilon=0.1, steps=1), batch_size=8, replays=2
    )
    trainer.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).random((8, 4, 4, 1)).astype("float32")
    x[:, :2] = 0
    trainer.fit(x, np.arange(8) % 3, batch_size=8, shuffle=False, verbose=0)
    perturbation = ops.convert_to_numpy(trainer.perturbation)
    assert (perturbation[:, :2] != 0).mean() > 0.9
