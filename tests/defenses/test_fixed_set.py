import keras
import numpy as np
import pytest

from robust_zoo.attacks import FGSM, DeepFool
from robust_zoo.datasets import load_dataset
from robust_zoo.defenses import FixedSetTraining
from robust_zoo.zoo import load_model


def compiled(trainer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("made_by", [DeepFool(steps=3), FGSM(epsilon=0.1)])
def test_it_is_natural_training_on_what_the_attack_made_at_first(small_cnn, images, made_by):
    x, y = images(8), np.arange(8) % 5
    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    start = small_cnn.get_weights()
    fixed = made_by.run(small_cnn, x, y, seed=0).x_adv
    assert np.abs(fixed - x).max() > 1e-3
    compiled(small_cnn).fit(fixed, y, **options)
    expected = small_cnn.get_weights()
    small_cnn.set_weights(start)
    compiled(FixedSetTraining(small_cnn, made_by=made_by)).fit(x, y, **options)
    for a, b in zip(small_cnn.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_the_set_that_is_made_by_default_fools_the_classifier():
    model, data = load_model("mlp.natural_digits"), load_dataset("digits", "validation")
    fixed = FixedSetTraining(model).training_images(data.images, data.labels)
    assert (model.predict(fixed, verbose=0).argmax(1) == data.labels).mean() < 0.1


def test_bad_arguments(small_cnn):
    with pytest.raises(ValueError, match="made_by must neither aim at the labels given"):
        FixedSetTraining(small_cnn, made_by=FGSM(epsilon=0.1, targeted=True))
    with pytest.raises(TypeError, match="made_by must be a robust_zoo attack, got 'deepfool'"):
        FixedSetTraining(small_cnn, made_by="deepfool")
