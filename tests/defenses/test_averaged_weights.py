import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo.attacks import FGSM
from robust_zoo.defenses import AdversarialTraining, AveragedWeights

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def batches(images, in_batches):
    return in_batches(images(40, (4, 4, 1)), np.arange(40) % 3)


def network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(3, 3, use_bias=False, name="kernel")(inputs)
    x = layers.BatchNormalization(momentum=0.7, name="bn")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def averaged(model):
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, LOSS, metrics=["accuracy"])


def moments_by_hand(model, images, size=8):
    """Mean over batches of the mean and variance of the convolution's output."""
    kernel = model.get_layer("kernel")
    made = ops.convert_to_numpy(kernel(images))
    parts = [made[i : i + size].reshape(-1, 3) for i in range(0, len(made), size)]
    return np.mean([p.mean(0) for p in parts], 0), np.mean([p.var(0) for p in parts], 0)


@pytest.mark.slow
def test_statistics_are_those_of_the_averaged_weights(batches):
    model = network()
    averaged(model)
    model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[AveragedWeights(batches)])
    mean, variance = moments_by_hand(model, batches.x)
    bn = model.get_layer("bn")
    np.testing.assert_allclose(ops.convert_to_numpy(bn.moving_mean), mean, atol=1e-4)
    np.testing.assert_allclose(ops.convert_to_numpy(bn.moving_variance), variance, rtol=1e-3)


@pytest.mark.long
def test_validation_sees_them_and_training_does_not(batches):
    """Training goes on as if nobody had looked."""
    runs = []
    for callbacks in ([keras.callbacks.SwapEMAWeights()], [AveragedWeights(batches)]):
        model = network()
        averaged(model)
        history = model.fit(
            batches,
            epochs=3,
            validation_data=batches,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        ).history
        runs.append((history, model.get_weights()))
    np.testing.assert_allclose(runs[0][0]["loss"], runs[1][0]["loss"], rtol=1e-5)
    assert runs[0][0]["val_loss"] != pytest.approx(runs[1][0]["val_loss"], rel=1e-3)


@pytest.mark.slow
def test_a_defense_s_statistics_are_of_its_adversarial_images(batches):
    model = network()
    defense = AdversarialTraining(model, attack=FGSM(epsilon=0.3))
    averaged(defense)
    callback = AveragedWeights(batches)
    defense.fit(batches, shuffle=False, verbose=0, callbacks=[callback])
    found = ops.convert_to_numpy(model.get_layer("bn").moving_mean)
    clean, _ = moments_by_hand(model, batches.x)
    assert np.abs(found - clean).max() > 1e-3
    # FGSM has no random numbers: its images of the final model, statistics of before included, are not known, but
    # they are within epsilon, which bounds how far a mean can be.
    bound = 0.3 * np.abs(model.get_layer("kernel").get_weights()[0]).sum((0, 1, 2))
    assert (np.abs(found - clean) <= bound + 1e-5).all()


def test_without_averages_it_says_so(batches):
    model = network()
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="needs an optimizer with use_ema=True"):
        model.fit(batches, verbose=0, callbacks=[AveragedWeights(batches)])
