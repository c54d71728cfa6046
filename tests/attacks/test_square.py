import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo.attacks import Square
from robust_zoo.attacks.square import square_sides, wave
from robust_zoo.backend import random


def test_side_schedule_is_the_published_one():
    # p = 0.8, halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries; CIFAR-10.
    shares = [0.8 / 2**k for k in range(10)]
    assert square_sides(32, 32, 0.8) == [round((p * 1024) ** 0.5) or 1 for p in shares]
    assert square_sides(32, 32, 0.8) == [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    assert square_sides(32, 32, 0.8, 3, odd=True) == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]
    assert square_sides(2, 9, 1.0, 3, odd=True)[0] == 2  # never larger than the image

    attack = Square(epsilon=0.1)
    at = np.array([0, 10, 11, 50, 51, 200, 201, 1000, 1001, 4001, 6001, 8001], "int32")
    phase = ops.convert_to_numpy(attack._phase(ops.convert_to_tensor(at)))
    assert phase.tolist() == [0, 0, 1, 1, 2, 2, 3, 4, 5, 7, 8, 9]


def test_wave_by_hand():
    # A 1 x 3 bump over a negative 2 x 3 one: rectangles around the middle, weights 1 and 1/4.
    upper = np.array([[0.25, 1.25, 0.25]])
    lower = np.array([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
    expected = np.concatenate(
        [upper / np.sqrt((upper**2).sum()), -lower / np.sqrt((lower**2).sum())]
    )
    np.testing.assert_allclose(wave(3), expected / np.sqrt(2), rtol=1e-6)
    for side in (1, 2, 5, 14):
        assert (wave(side) ** 2).sum() == pytest.approx(1)


def states(attack, model, x, y, epsilon, count):
    # As in a run with seed 0, in its only attempt.
    keys = random.fold_in(random.fold_in(random.key(0), np.arange(len(x))), 0)
    x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    state = attack.start(model, x, y, keys, epsilon, 0)
    for _ in range(count):
        yield {name: ops.convert_to_numpy(value) for name, value in state.items()}
        state, _ = attack.step(model, x, state, epsilon)


def flat_model(shape, classes=3):
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(inputs)))


@pytest.mark.slow
def test_linf_starts_with_stripes_and_tries_one_square_at_a_time():
    shape, epsilon = (8, 9, 2), 0.1
    model, x = flat_model(shape), np.full((20, *shape), 0.5, "float32")
    y = np.zeros(20, "int32")
    path = list(states(Square(epsilon=epsilon), model, x, y, epsilon, 70))
    stripes = path[0]["x_adv"] - x
    np.testing.assert_allclose(np.abs(stripes), epsilon, atol=1e-6)
    np.testing.assert_array_equal(stripes, np.broadcast_to(stripes[:, :1], stripes.shape))
    sides = square_sides(8, 9, 0.8)
    corners = set()
    for number in range(1, 70):
        before, after = path[number]["best"], path[number]["x_adv"]
        changed = np.abs(after - before).max(axis=-1) > 1e-6
        side = sides[(number - 1 > 10) + (number - 1 > 50)]
        for image in changed:
            rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
            if len(rows) == 0:
                continue
            assert max(np.ptp(rows), np.ptp(columns)) < side
            corners.add((rows[0], columns[0]))
        np.testing.assert_allclose(np.abs(after - x), epsilon, atol=1e-6)
    assert len(corners) > 5


@pytest.mark.long
def test_only_better_candidates_are_kept_and_queries_are_counted(small_cnn, images):
    x = images(12)
    logits = ops.convert_to_numpy(small_cnn(x))
    y = logits.argmax(1).astype("int32")
    for norm, epsilon in (("linf", 0.02), ("l2", 0.1)):
        attack = Square(epsilon=epsilon, norm=norm, steps=60)
        path = list(states(attack, small_cnn, x, y, epsilon, 60))
        losses = np.stack([state["best_loss"] for state in path[1:]])
        assert (np.diff(losses, axis=0) >= 0).all()
        assert (losses[-1] > losses[0]).any()
        z = ops.convert_to_numpy(small_cnn(path[-1]["best"]))
        own = z[np.arange(12), y]
        z[np.arange(12), y] = -np.inf
        np.testing.assert_allclose(losses[-1], z.max(1) - own, atol=1e-5)
        result = attack.run(small_cnn, x, y)
        # Where it failed, the strongest candidate is handed out, not the last one tried.
        z = ops.convert_to_numpy(small_cnn(result.x_adv))
        own = z[np.arange(12), y]
        z[np.arange(12), y] = -np.inf
        assert ((z.max(1) - own) >= losses[-1] - 1e-5)[~result.success].all()
        # The clean image, 60 candidates, and the last one.
        assert (result.queries[~result.success] == 62).all()


@pytest.mark.slow
def test_l2_candidates_use_the_whole_budget(small_cnn):
    x = np.full((10, 6, 6, 1), 0.5, "float32")
    y = np.zeros(10, "int32")
    for state in states(Square(epsilon=0.5, norm="l2"), small_cnn, x, y, 0.5, 30):
        length = np.sqrt(((state["x_adv"] - x) ** 2).sum(axis=(1, 2, 3)))
        np.testing.assert_allclose(length, 0.5, rtol=1e-4)


@pytest.mark.long
@pytest.mark.home
def test_random_search_reaches_the_closed_form_of_a_linear_model():
    model = flat_model((4, 4, 1), 2)
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 4, 2))
    kernel[-1], kernel[:, -1] = 0, 0  # where no small square ever is
    kernel = kernel.reshape(16, 2).astype("float32")
    weights = (kernel[:, 1] - kernel[:, 0]).astype("float64")
    model.set_weights([kernel, np.array([weights.sum() / 2, 0.0])])
    x = rng.uniform(0.3, 0.7, (40, 4, 4, 1)).astype("float32")
    margin = np.abs((x.reshape(40, 16) - 0.5) @ weights)
    epsilon = float(np.median(margin) / np.abs(weights).sum())
    result = Square(epsilon=epsilon, steps=5000).run(model, x)
    reachable = margin < epsilon * np.abs(weights).sum() * (1 - 1e-3)
    impossible = margin > epsilon * np.abs(weights).sum() * (1 + 1e-3)
    assert not result.success[impossible].any()
    assert result.success[reachable].mean() > 0.9


def test_bad_hyperparameters():
    with pytest.raises(ValueError, match=r"start_share must lie in \(0, 1\], got 0"):
        Square(epsilon=0.1, start_share=0)
