import keras
import numpy as np
import pytest

from robust_zoo.attacks import FGSM
from robust_zoo.defenses import AdversarialTraining, LogAdversarialExamples
from robust_zoo.defenses.log_examples import grid_of, magnified

pytest.importorskip("tensorboardX")
tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.mark.slow
def test_what_tensorboard_gets(small_cnn, images, tmp_path):
    x, y = images(40), np.arange(40) % 5
    attack = FGSM(epsilon=0.05)
    trainer = AdversarialTraining(small_cnn, attack=attack)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(optimizer="sgd", loss=loss)
    log = LogAdversarialExamples(tmp_path / "logs", attack, x[:12], y[:12], images=3, every=2)
    trainer.fit(x, y, epochs=4, verbose=0, callbacks=[log])
    events = tensorboard.EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"clean_accuracy", "robust_accuracy"}
    robust = events.Scalars("robust_accuracy")
    assert [event.step for event in robust] == [2, 4]
    right = 1 - attack.run(small_cnn, x[:12], y[:12], progress=False).success.mean()
    assert robust[-1].value == pytest.approx(right)
    (first, _) = events.Images("adversarial_examples")
    assert (first.height, first.width) == (3 * 6, 3 * 6)


def test_a_grid():
    x = np.full((2, 4, 4, 1), 0.5, "float32")
    x_adv = x.copy()
    x_adv[0, 0, 0] += 0.1
    x_adv[0, 1, 1] -= 0.05
    change = magnified(x, x_adv)
    assert change[0, 0, 0, 0] == 1.0
    assert change[0, 1, 1, 0] == pytest.approx(0.25)
    assert (change[1] == 0.5).all()
    grid = grid_of(x, x_adv)
    assert grid.shape == (12, 8, 3)
    assert grid.min() >= 0
    assert grid.max() <= 1


def test_what_is_refused(images):
    with pytest.raises(ValueError, match="every must be an integer >= 1, got 0"):
        LogAdversarialExamples("logs", FGSM(epsilon=0.1), images(2), [0, 1], every=0)
    with pytest.raises(ValueError, match="images must be an integer >= 1, got True"):
        LogAdversarialExamples("logs", FGSM(epsilon=0.1), images(2), [0, 1], images=True)
