import keras
import numpy as np
import pytest

from robust_zoo.attacks import FGSM
from robust_zoo.defenses import AdversarialTraining, DivergenceError


class Explode(keras.callbacks.Callback):
    """Ruins a weight at the start of an epoch."""

    def __init__(self, epoch, value=np.nan):
        super().__init__()
        self.epoch, self.value = epoch, value

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            weights = self.model.classifier.get_weights()
            self.model.classifier.set_weights([weight + self.value for weight in weights])


def train(model, images, tmp_path, *callbacks):
    defense = AdversarialTraining(model, attack=FGSM(epsilon=0.1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile(optimizer="adam", loss=loss)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "state")
    options = {"batch_size": 4, "epochs": 4, "shuffle": False, "verbose": 0}
    x, y = images(8), np.arange(8) % 5
    return defense.fit(x, y, callbacks=[*callbacks, backup], **options)


@pytest.mark.long
@pytest.mark.parametrize("value", [np.nan, 1e38])
def test_a_diverging_run_stops_and_the_last_good_epoch_is_kept(small_cnn, images, tmp_path, value):
    start = small_cnn.get_weights()
    train(small_cnn, images, tmp_path)
    whole = small_cnn.get_weights()
    small_cnn.set_weights(start)
    with pytest.raises(
        DivergenceError, match=r"training diverged in epoch 3: .*Lower the learning"
    ):
        train(small_cnn, images, tmp_path, Explode(2, value))
    small_cnn.set_weights([0 * weight for weight in start])
    history = train(small_cnn, images, tmp_path)
    assert history.epoch == [2, 3]
    for a, b in zip(small_cnn.get_weights(), whole, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
