import numpy as np
import pytest

from robust_zoo.attacks import FGSM
from robust_zoo.evaluation import adversarial_loss, craft


@pytest.mark.slow
def test_loss_against_numpy(linear, images):
    model, kernel, bias = linear
    x, y = images(40, (2, 2, 1)), np.arange(40) % 3

    def mean_loss(images):
        z = images.reshape(len(images), -1) @ kernel + bias
        return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), y])

    clean = adversarial_loss(None, model, x, y, batch_size=16)
    assert clean == pytest.approx(mean_loss(x), rel=1e-5)
    attack = FGSM(epsilon=0.1)
    attacked = adversarial_loss(attack, model, x, y)
    assert attacked == pytest.approx(mean_loss(craft(attack, model, x, y)), rel=1e-5)
    assert attacked > clean + 0.01
