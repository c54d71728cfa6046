import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import architectures
from robust_zoo.attacks import PGD
from robust_zoo.defenses import AdversarialTraining, TrainingState

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def data(images):
    return images(32, (6, 6, 1)), np.arange(32) % 3


def trainer():
    keras.utils.set_random_seed(0)
    classifier = architectures.mlp((6, 6, 1), 3, hidden=(4,))
    made = AdversarialTraining(classifier, attack=PGD(epsilon=0.1, steps=1))
    made.compile(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True), LOSS)
    return made


def fit(data, epochs, *callbacks):
    made = trainer()
    made.fit(*data, batch_size=16, shuffle=False, epochs=epochs, verbose=0, callbacks=callbacks)
    return [ops.convert_to_numpy(v) for v in (*made.variables, *made.optimizer.variables)]


def assert_same(first, second):
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.long
def test_a_resumed_training_equals_an_uninterrupted_one(data, tmp_path):
    whole = TrainingState(tmp_path / "whole")
    expected = fit(data, 4, whole)
    fit(data, 2, TrainingState(tmp_path / "parts"))
    resumed = TrainingState(tmp_path / "parts")
    assert resumed.epochs_done == 2
    assert_same(fit(data, 4, resumed), expected)
    assert resumed.epochs_done == 4
    assert resumed.history == whole.history


@pytest.mark.long
def test_a_damaged_file_gives_way_to_the_one_before(data, tmp_path):
    fit(data, 3, TrainingState(tmp_path))
    (current,) = tmp_path.glob("training.npz")
    current.write_bytes(current.read_bytes()[:1000])
    assert TrainingState(tmp_path).epochs_done == 2
    assert_same(fit(data, 4, TrainingState(tmp_path)), fit(data, 4))


@pytest.mark.long
def test_a_damaged_file_never_takes_the_place_of_the_one_before(data, tmp_path, monkeypatch):
    fit(data, 3, TrainingState(tmp_path))
    (tmp_path / "training.npz").write_bytes(b"")
    going_on = TrainingState(tmp_path)

    def full(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr("robust_zoo.defenses.training_state.write_bytes", full)
    with pytest.raises(OSError, match="full"):
        fit(data, 4, going_on)
    assert TrainingState(tmp_path).epochs_done == 2


@pytest.mark.slow
def test_nothing_readable_is_an_error_and_not_a_new_training(data, tmp_path):
    fit(data, 2, TrainingState(tmp_path))
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read, nor can the one before it"):
        TrainingState(tmp_path)


@pytest.mark.slow
def test_other_settings_are_refused(data, tmp_path):
    fit(data, 1, TrainingState(tmp_path, {"batch_size": 16}))
    TrainingState(tmp_path, {"batch_size": 16})
    with pytest.raises(ValueError, match="batch_size must be 16, as in the interrupted run, got 8"):
        TrainingState(tmp_path, {"batch_size": 8})


@pytest.mark.slow
def test_a_finished_training_leaves_the_model_to_the_next(data, tmp_path):
    made = trainer()
    made.compile("sgd", LOSS)
    options = {"batch_size": 16, "verbose": 0}
    made.fit(*data, epochs=2, callbacks=[TrainingState(tmp_path)], **options)
    made.fit(*data, epochs=3, callbacks=[TrainingState(tmp_path)], **options)
    history = made.fit(*data, epochs=2, **options)
    assert history.epoch == [0, 1]
