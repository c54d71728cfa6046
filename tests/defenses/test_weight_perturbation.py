import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from robust_zoo.attacks import FGSM
from robust_zoo.defenses import (
    AdversarialTraining,
    AdversarialWeightPerturbation,
    FreeAdversarialTraining,
    NaturalTraining,
    ParsevalTraining,
)


def compiled(defense, rate=0.5):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile(optimizer=keras.optimizers.SGD(rate), loss=loss, metrics=["accuracy"])
    return defense


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def test_a_step_by_hand(linear, images):
    model, kernel, bias = linear
    x, y = images(8, (2, 2, 1)), np.arange(8) % 3
    flat = x.reshape(8, 4)
    gradient = flat.T @ (softmax(flat @ kernel + bias) - np.eye(3)[y]) / 8
    change = 0.1 * np.linalg.norm(kernel) * gradient / np.linalg.norm(gradient)
    error = softmax(flat @ (kernel + change) + bias) - np.eye(3)[y]
    compiled(AdversarialWeightPerturbation(NaturalTraining(model), gamma=0.1)).train_on_batch(x, y)
    assert_allclose(model.get_weights()[0], kernel - 0.5 * flat.T @ error / 8, atol=1e-5)
    assert_allclose(model.get_weights()[1], bias - 0.5 * error.mean(0), atol=1e-5)


@pytest.mark.long
def test_without_a_perturbation_worth_the_name_it_is_the_other_defense(small_cnn, images):
    x, y = images(8), np.arange(8) % 5
    start, found = small_cnn.get_weights(), []
    for wrap in (lambda d: d, lambda d: AdversarialWeightPerturbation(d, gamma=1e-9)):
        small_cnn.set_weights(start)
        for make in (
            lambda: AdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1)),
            lambda: ParsevalTraining(small_cnn, beta=0.1),
        ):
            compiled(wrap(make())).fit(x, y, batch_size=4, shuffle=False, verbose=0)
        found.append(small_cnn.get_weights())
    for a, b in zip(*found, strict=True):
        assert_allclose(a, b, atol=1e-6)


def test_batch_statistics_are_counted_once(images):
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    x, y = images(16), np.arange(16) % 5
    compiled(AdversarialWeightPerturbation(NaturalTraining(model))).train_on_batch(x, y)
    mean = model.layers[2].get_weights()[2]
    assert_allclose(mean, 0.5 * x.reshape(16, 36).mean(0), rtol=1e-4)


def test_bad_arguments(small_cnn):
    inner = NaturalTraining(small_cnn)
    with pytest.raises(ValueError, match="gamma must be a number > 0, got 0"):
        AdversarialWeightPerturbation(inner, gamma=0)
    free = FreeAdversarialTraining(small_cnn, attack=FGSM(epsilon=0.1), batch_size=4)
    for wrong in (small_cnn, free, AdversarialWeightPerturbation(inner)):
        with pytest.raises(
            TypeError, match="defense must be a Defense whose update is Keras's own"
        ):
            AdversarialWeightPerturbation(wrong)
