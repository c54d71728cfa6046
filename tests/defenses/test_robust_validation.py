import keras
import numpy as np
import pytest
from keras import layers, ops

from robust_zoo.attacks import FGSM, PGD
from robust_zoo.defenses import AdversarialTraining, RobustValidation

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ATTACK = PGD(epsilon=0.05, steps=5)


@pytest.fixture
def data(images):
    x, y = images(48, (4, 4, 1)) / 2, np.arange(48) % 3
    x[np.arange(48), 0, y] = 1  # a bright pixel says the class
    return x, y


def defense():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs)))
    trainer = AdversarialTraining(model, attack=FGSM(epsilon=0.05))
    trainer.compile(keras.optimizers.Adam(0.05), LOSS)
    return trainer


@pytest.mark.long
def test_the_best_epoch_is_measured_and_kept(data, tmp_path):
    x, y = data
    trainer = defense()
    seen = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(trainer.classifier.get_weights())
    )
    robust = RobustValidation(ATTACK, x, y, file=tmp_path / "best.npz")
    history = trainer.fit(x, y, epochs=6, verbose=0, callbacks=[robust, keep]).history
    accuracy = []
    model = trainer.classifier
    for weights in seen:
        model.set_weights(weights)
        accuracy.append(1 - ATTACK.run(model, x, y).success.mean())
    np.testing.assert_allclose(history["val_attack_accuracy"], accuracy)
    assert robust.best == max(accuracy)
    assert robust.best_epoch == 1 + accuracy.index(max(accuracy))
    best = seen[robust.best_epoch - 1]
    for a, b in zip(best, robust.best_weights, strict=True):
        np.testing.assert_array_equal(a, b)
    again = RobustValidation(ATTACK, x, y, file=tmp_path / "best.npz")
    assert (again.best, again.best_epoch, again.collapsed) == (robust.best, robust.best_epoch, 0)


@pytest.mark.long
def test_the_model_has_the_best_weights_at_the_end(data):
    x, y = data
    trainer = defense()

    def ruin(epoch, logs):
        if epoch == 5:
            kernel, _ = trainer.classifier.get_weights()
            trainer.classifier.set_weights([0 * kernel, 2 * np.eye(3)[0]])  # always class 0

    robust = RobustValidation(ATTACK, x, y)
    ruined = keras.callbacks.LambdaCallback(on_epoch_begin=ruin)
    # Nothing is learned after the fifth epoch: the weights of one before come back.
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 if epoch < 5 else 1e-9)
    trainer.fit(x, y, epochs=7, verbose=0, callbacks=[ruined, schedule, robust])
    assert 1 <= robust.best_epoch <= 5
    found = 1 - ATTACK.run(trainer.classifier, x, y).success.mean()
    assert found == robust.best > 1 / 3


def test_a_collapse_stops_training_with_a_sentence(data):
    x, y = data
    trainer = defense()
    robust = RobustValidation(ATTACK, x, y)
    robust.set_model(trainer)
    robust.on_train_begin()
    measured = iter([0.9, 0.1, 0.1])
    robust._measure = lambda: (0.8, next(measured), trainer.classifier.get_weights())
    trainer.stop_training = False
    robust.on_epoch_end(2, {"robust_accuracy": 0.5})
    robust.on_epoch_end(3, {"robust_accuracy": 0.4})  # both fell: not what it looks for
    assert not trainer.stop_training
    with pytest.warns(
        RuntimeWarning, match=r"catastrophic overfitting in epoch 5.*epoch 3 are kept"
    ):
        robust.on_epoch_end(4, {"robust_accuracy": 0.7})
    assert trainer.stop_training
    assert robust.collapsed == 5


@pytest.mark.long
def test_mixed_precision_is_measured_in_float32(data):
    x, y = data
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trainer = defense()
    finally:
        keras.config.set_dtype_policy("float32")
    robust = RobustValidation(ATTACK, x, y)
    history = trainer.fit(x, y, epochs=2, verbose=0, callbacks=[robust]).history
    kernel, bias = robust.best_weights
    predicted = (x.reshape(48, -1) @ kernel + bias).argmax(1)
    expected = history["val_clean_accuracy"][robust.best_epoch - 1]
    assert (predicted == y).mean() == pytest.approx(expected)
    assert ops.convert_to_numpy(trainer.training_steps) == 4
