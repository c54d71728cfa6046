import numpy as np
from keras import ops

from robust_zoo.attacks import SignNoise, TruncatedNormalNoise
from robust_zoo.backend import random


def noise(attack, model):
    x = np.full((400, 6, 6, 1), 0.5, "float32")
    y = ops.zeros(400, "int32")
    found = attack(model, ops.convert_to_tensor(x), y, key=random.key(0))
    return (ops.convert_to_numpy(found) - x).ravel() / attack.epsilon


def test_sign_noise_moves_everything_by_epsilon(small_cnn):
    found = noise(SignNoise(epsilon=0.2), small_cnn)
    np.testing.assert_allclose(np.abs(found), 1, rtol=1e-5)
    assert abs(found.mean()) < 4 / np.sqrt(len(found))


def test_truncated_normal_noise_has_the_law_it_should(small_cnn):
    found = 2 * noise(TruncatedNormalNoise(epsilon=0.2), small_cnn)  # in standard deviations
    assert np.abs(found).max() <= 2 + 1e-5
    # Of a standard normal number, 0.6827 are within 1 and 0.9545 within 2.
    error = 4 / np.sqrt(len(found))
    assert abs((np.abs(found) < 1).mean() - 0.682689 / 0.954500) < error
    assert abs((found < 0).mean() - 0.5) < error


def test_more_candidates_only_help(small_cnn, images):
    x = images(60)
    one, many = (
        SignNoise(epsilon=0.06, restarts=restarts).run(small_cnn, x) for restarts in (1, 20)
    )
    assert (many.success >= one.success).all()
    assert many.success.sum() > one.success.sum()
    assert (one.queries == 2).all()
