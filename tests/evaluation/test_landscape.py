import numpy as np
import pytest

from robust_zoo.attacks import PGD
from robust_zoo.evaluation import craft, loss_landscape


@pytest.mark.slow
def test_against_pgd_step_by_step(small_cnn, images):
    image = images(1)[0]
    found = loss_landscape(
        small_cnn, image, 2, epsilon=0.2, steps=4, step_size=0.05, restarts=3, seed=5
    )
    assert found.losses.shape == (3, 5)
    x, y = np.repeat(image[None], 3, axis=0), np.full(3, 2)
    for steps in (1, 2, 4):
        ends = craft(PGD(epsilon=0.2, steps=steps, step_size=0.05), small_cnn, x, y, seed=5)
        logits = np.asarray(small_cnn(ends)).astype("float64")
        loss = np.log(np.exp(logits).sum(1)) - logits[:, 2]
        np.testing.assert_allclose(found.losses[:, steps], loss, rtol=1e-4)
    change = (ends - x).reshape(3, -1).astype("float64")
    for i in range(3):
        for j in range(3):
            distance = np.linalg.norm(change[i] - change[j])
            assert found.distances[i, j] == pytest.approx(distance, abs=1e-5)
            cosine = change[i] @ change[j]
            cosine /= np.linalg.norm(change[i]) * np.linalg.norm(change[j])
            assert np.cos(np.radians(found.angles[i, j])) == pytest.approx(cosine, abs=1e-4)
    assert found.random_distance == pytest.approx(0.2 * np.sqrt(2 * 36 / 3))
    assert (found.final_losses > found.losses[:, 0]).all()
    spread = found.final_losses.std() / found.final_losses.mean()
    assert found.spread == pytest.approx(spread)


@pytest.mark.slow
def test_a_linear_model_has_one_summit(linear, images):
    """All restarts reach the same corner, and it is the gradient's sign."""
    model = linear[0]
    model.set_weights([linear[1][:, [0, 1, 1]], np.array([0, 0, -20])])  # two classes, in effect
    image = np.full((2, 2, 1), 0.5, "float32")
    found = loss_landscape(model, image, 0, epsilon=0.1, steps=20, restarts=4)
    assert found.distances.max() < 1e-5
    assert found.angles.max() < 0.1
    assert found.spread < 1e-5
    difference = linear[1][:, 1] - linear[1][:, 0]
    cosine = np.abs(difference).sum() / np.linalg.norm(difference) / 2
    np.testing.assert_allclose(found.gradient_cosines, cosine, rtol=1e-4)
    with pytest.raises(ValueError, match="restarts must be an integer >= 2, got 1"):
        loss_landscape(model, image, 0, epsilon=0.1, restarts=1)
