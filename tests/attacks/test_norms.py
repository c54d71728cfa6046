import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from robust_zoo.attacks.norms import get_norm
from robust_zoo.backend import random

SHAPES = st.sampled_from([(1, 1, 1), (3, 2, 1), (4, 4, 3)])


def arrays(seed, shape, n=4):
    rng = np.random.default_rng(seed)
    x = rng.random((n, *shape)).astype("float32")
    x[0] = rng.integers(0, 2, shape)  # an image at the ends of the range
    return x, (x + rng.normal(size=x.shape) * 2).astype("float32")


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["linf", "l2"]),
    shape=SHAPES,
    epsilon=st.floats(1e-3, 1.0),
    seed=st.integers(0, 2**31),
)
def test_projection_lands_in_the_ball_and_in_range(name, shape, epsilon, seed):
    norm = get_norm(name)
    x, far = arrays(seed, shape)
    near = ops.convert_to_numpy(
        norm.project(ops.convert_to_tensor(far), ops.convert_to_tensor(x), epsilon)
    )
    assert near.min() >= 0
    assert near.max() <= 1
    assert norm.distance(near, x).max() <= epsilon * (1 + 1e-5) + 1e-7
    again = ops.convert_to_numpy(
        norm.project(ops.convert_to_tensor(near), ops.convert_to_tensor(x), epsilon)
    )
    np.testing.assert_allclose(again, near, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(["linf", "l2"]),
    shape=SHAPES,
    epsilon=st.floats(1e-3, 1.0),
    seed=st.integers(0, 2**31),
)
def test_random_starts_lie_in_the_ball_and_in_range(name, shape, epsilon, seed):
    norm = get_norm(name)
    x, _ = arrays(seed, shape)
    keys = random.fold_in(random.key(seed), np.arange(len(x)))
    start = ops.convert_to_numpy(norm.random_start(keys, ops.convert_to_tensor(x), epsilon))
    assert start.min() >= 0
    assert start.max() <= 1
    assert norm.distance(start, x).max() <= epsilon * (1 + 1e-5) + 1e-7


def test_l2_start_is_uniform_in_the_volume():
    x = np.full((4000, 2, 1, 1), 0.5, "float32")
    keys = random.fold_in(random.key(0), np.arange(len(x)))
    start = ops.convert_to_numpy(get_norm("l2").random_start(keys, ops.convert_to_tensor(x), 0.4))
    radius = get_norm("l2").distance(start, x) / 0.4
    # In two dimensions the share within radius r is r squared.
    for r in (0.3, 0.5, 0.8):
        assert abs((radius <= r).mean() - r**2) < 4 * np.sqrt(r**2 * (1 - r**2) / 4000)
    angle = np.arctan2(start[:, 0] - 0.5, start[:, 1] - 0.5)
    assert abs(np.cos(angle).mean()) < 0.05


def test_directions():
    gradient = ops.convert_to_tensor(np.array([[[[3e-30], [-4e-30]]], [[[0.0], [0.0]]]], "float32"))
    linf = ops.convert_to_numpy(get_norm("linf").direction(gradient))
    np.testing.assert_array_equal(linf.reshape(2, 2), [[1, -1], [0, 0]])
    l2 = ops.convert_to_numpy(get_norm("l2").direction(gradient))
    np.testing.assert_allclose(l2.reshape(2, 2), [[0.6, -0.8], [0, 0]], rtol=1e-5)


def test_distances():
    x, x_adv = np.zeros((1, 2, 1, 1)), np.array([3.0, -4.0]).reshape(1, 2, 1, 1)
    assert get_norm("linf").distance(x_adv, x).tolist() == [4]
    assert get_norm("l2").distance(x_adv, x).tolist() == [5]
    assert get_norm("l0").distance(x_adv, x).tolist() == [2]
    for name, length in (("linf", 4), ("l2", 5), ("l0", 2)):
        change = ops.convert_to_tensor(np.stack([x_adv[0], x[0]]).astype("float32"))
        found = ops.convert_to_numpy(get_norm(name).length(change))
        np.testing.assert_allclose(found.ravel(), [length, 0])


@pytest.mark.parametrize("name", ["linf", "l2"])
def test_surface_start_is_on_the_surface(name):
    x = np.full((200, 3, 2, 1), 0.5, "float32")
    keys = random.fold_in(random.key(0), np.arange(len(x)))
    start = get_norm(name).surface_start(keys, ops.convert_to_tensor(x), 0.3)
    distance = get_norm(name).distance(ops.convert_to_numpy(start), x)
    np.testing.assert_allclose(distance, 0.3, rtol=1e-5)


def test_unknown_norm():
    with pytest.raises(
        ValueError, match=r"norm must be one of \('linf', 'l2', 'l1', 'l0'\), got 'l3'"
    ):
        get_norm("l3")
