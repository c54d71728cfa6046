import numpy as np
import pytest
from keras import ops

from robust_zoo.evaluation import fooling_images, rubbish_test


@pytest.mark.slow
def test_fooling_images_of_a_linear_model_go_straight_to_their_class(linear):
    model, kernel, bias = linear
    found = fooling_images(model, steps=7, step_size=0.01, seed=3)
    assert found.images.shape == (3, 2, 2, 1)
    logits = found.images.reshape(3, 4).astype("float64") @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found.confidence, np.diag(p), rtol=1e-5)
    # Whatever the gradient's sign, each step of each value is 0.01, from a start in [0.5, 0.6).
    moves = (found.images.reshape(3, 4) - 0.5) / 0.01
    assert moves.min() >= -7 - 1e-3
    assert moves.max() < 17 + 1e-3
    more = fooling_images(model, steps=60, step_size=0.01, seed=3)
    assert (more.confidence > found.confidence).all()
    assert not np.array_equal(fooling_images(model, steps=7, seed=4).images, found.images)


def test_rubbish_test_against_numpy(linear):
    model, kernel, bias = linear
    epsilons = [1 / 255, 0.1, 0.4]
    found = rubbish_test(model, epsilons, n=50, temperature=0.5, threshold=0.6, batch_size=16)
    tiny = rubbish_test(model, [0], n=50, temperature=0.5)
    # A step of nothing shows the noise: its own classes are hit, each once in three trials.
    assert tiny.success_rate[0] == pytest.approx(1 / 3)

    from robust_zoo.backend import random

    keys = random.fold_in(random.key(0), np.arange(50))
    x = ops.convert_to_numpy(random.uniform(keys, (2, 2, 1))).reshape(50, 4).astype("float64")
    logits = x @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for number, epsilon in enumerate(epsilons):
        hits, margins = 0, 0
        for target in range(3):
            gradient = (np.eye(3)[target] - p) @ kernel.T  # of log p_target
            moved = np.clip(x + epsilon * np.sign(gradient), 0, 1)
            z = (moved @ kernel + bias) / 0.5
            q = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            hits += ((q.argmax(1) == target) & (q[:, target] >= 0.6)).sum()
            margins += (np.sort(q, axis=1)[:, -1] - np.sort(q, axis=1)[:, -2]).sum()
        assert found.success_rate[number] == pytest.approx(hits / 150, abs=1e-9)
        assert found.margin[number] == pytest.approx(margins / 150, rel=1e-5)
    assert found.success_rate[2] > found.success_rate[0]
    again = rubbish_test(model, epsilons, n=50, temperature=0.5, threshold=0.6, batch_size=64)
    np.testing.assert_array_equal(again.success_rate, found.success_rate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilons": []}, "at least one, got"),
        ({"epsilons": [float("nan")]}, "at least one, got"),
        ({"epsilons": [8]}, r"must be numbers in \[0, 1\]"),
        ({"epsilons": [0.1], "n": 0}, "n must be an integer >= 1, got 0"),
        ({"epsilons": [0.1], "temperature": 0}, "temperature must be > 0, got 0"),
        ({"epsilons": [0.1], "threshold": 2}, r"threshold must lie in \[0, 1\], got 2"),
        ({"epsilons": [0.1], "seed": -1}, "seed must be an integer"),
    ],
)
def test_bad_arguments(linear, arguments, message):
    with pytest.raises(ValueError, match=message):
        rubbish_test(linear[0], **arguments)
